"""manifest.json: what a folder's ledger says, for people and programs; public, versioned."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
import orjson

from asyncpipe._fs import whole_file
from asyncpipe._text import printable
from asyncpipe.errors import DiskError, DownloadError
from asyncpipe.jobs import Links, Noted, now
from asyncpipe.ledger import (
    Ledger,
    LedgerReader,
    SharedPlace,
    Where,
    bucket_of,
    folder_of,
    reading,
    resolved,
)
from asyncpipe.media import Bucket
from asyncpipe.pricing import usd_text
from asyncpipe.report.links import Linker
from asyncpipe.report.results import Asset, Result, files_of, result_of
from asyncpipe.report.totals import Totals

logger = logging.getLogger("asyncpipe.engine")

MANIFEST_NAME = "manifest.json"

MANIFEST_VERSION = 2

LONG_S = 2.0
"""A manifest that takes longer (beyond some 40,000 jobs) is not written at every batch's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The totals of an output folder and, when iterated, its results, read from the ledger.

    Iterate as often as you like; memory does not grow with the number of jobs.
    """

    folder: Path
    generated_at: datetime
    totals: Totals = field(repr=False)
    where: Path | SharedPlace = field(repr=False)
    links: Links | None = None

    @property
    def path(self) -> Path:
        """The manifest file; of a bucket there is none, see ``url``."""
        return self.folder / MANIFEST_NAME

    @property
    def url(self) -> str:
        """Where the manifest is: the path of its file, or its URL in a bucket."""
        bucket = bucket_of(self.where)
        return str(self.path) if bucket is None else bucket.url_of(MANIFEST_NAME)

    def document(self) -> bytes:
        """What the manifest says, by the ledger as it is now."""
        with reading(self.where) as ledger:
            links = self.links or Links.again(head_of(self.where).get("links"))
            return b"".join(_document(_manifest(self.where, ledger, links), ledger))

    def __iter__(self) -> Iterator[Result]:
        with reading(self.where) as ledger:
            folder = files_of(self.where)
            yield from (result_of(row, folder) for row in ledger.results(started=True))


def read_manifest(folder: Where) -> Manifest:
    """Read the totals of a folder's ledger; raises LedgerError when it has none."""
    where = resolved(folder)
    with reading(where) as ledger:
        return _manifest(where, ledger, None)


def _manifest(where: Path | SharedPlace, ledger: LedgerReader, links: Links | None) -> Manifest:
    totals = Totals.of(ledger.sums())
    return Manifest(
        folder=folder_of(where), generated_at=now(), totals=totals, where=where, links=links
    )


def write_manifest(folder: Where, links: Links | None = None) -> Manifest:
    """Write ``manifest.json`` anew from the ledger: whole or not at all, in bounded memory.

    Safe beside a run that writes the ledger: it reads one moment of it. Without ``links`` those are
    made that the old one had. Raises DiskError when the file cannot be written; the old one stands
    then.
    """
    where = resolved(folder)
    links = links or Links.again(head_of(where).get("links"))
    with reading(where) as ledger:
        manifest = _manifest(where, ledger, links)
        try:
            _store(manifest, _document(manifest, ledger))
        except OSError as exc:
            raise DiskError(
                f"{manifest.url} cannot be written ({exc.strerror or exc}): make room or make it "
                "writable, then run the same command again"
            ) from exc
    return manifest


def _store(manifest: Manifest, document: Iterator[bytes]) -> None:
    """Put a manifest in the place of the old one; raises OSError, and DiskError of a bucket."""
    if (bucket := bucket_of(manifest.where)) is None:
        with whole_file(manifest.path) as file:
            file.writelines(document)
        return
    try:
        Bucket(bucket).replace(MANIFEST_NAME, document, "application/json")
    except DownloadError as exc:
        raise DiskError(f"{manifest.url} cannot be written: {exc}") from exc


_RESULTS = b',\n  "results": ['


def _document(manifest: Manifest, ledger: LedgerReader) -> Iterator[bytes]:
    linker = Linker(manifest.links, manifest.where, manifest.generated_at)
    head = orjson.dumps(_head(manifest, ledger, linker), option=orjson.OPT_INDENT_2)
    yield head.removesuffix(b"\n}") + _RESULTS
    separator = b"\n    "
    for row in ledger.results(started=True):
        yield separator + orjson.dumps(_row(result_of(row, None), linker))
        separator = b",\n    "
    yield b"\n  ]\n}\n"


HEAD_BYTES = 256 * 1024
"""More than what stands before a manifest's results has."""


def head_of(where: Path | SharedPlace) -> dict[str, Any]:
    """Like ``read_head``; one that cannot be read says nothing."""
    try:
        return read_head(where) or {}
    except DiskError:
        return {}


def read_head(where: Path | SharedPlace) -> dict[str, Any] | None:
    """What the manifest that stands says before its results; blocks.

    None where there is none, and nothing where a file of that name is none of ours. Raises
    DiskError where that cannot be seen.
    """
    try:
        if (bucket := bucket_of(where)) is not None:
            beginning = Bucket(bucket).beginning(MANIFEST_NAME, HEAD_BYTES)
        else:
            with (folder_of(where) / MANIFEST_NAME).open("rb") as file:
                beginning = file.read(HEAD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, DownloadError) as exc:
        raise DiskError(f"the manifest of {where} cannot be read: {exc}") from exc
    try:
        head = orjson.loads(beginning.partition(_RESULTS)[0] + b"\n}")
    except ValueError:
        return {}
    return head if isinstance(head, dict) else {}


@lru_cache(maxsize=4096)
def money(micro: int) -> orjson.Fragment:
    """Write micro-dollars as a JSON number: exact, at most 6 decimals."""
    whole, rest = divmod(micro, 1_000_000)
    return orjson.Fragment(f"{whole}.{rest:06d}".rstrip("0").rstrip("."))


def remarks(totals: Totals, folder: str = "FOLDER") -> list[str]:
    """What people have to know besides the sums."""
    said = []
    if totals.overruns:
        said.append(
            f"{_counted(totals.overruns, 'prediction')} cost {usd_text(totals.overrun)} USD more "
            "than was reserved: what the provider says is charged"
        )
    if totals.estimated_micro:
        said.append(
            f"{usd_text(totals.estimated)} USD are charged by the provider's own estimates: "
            "the bill may say otherwise"
        )
    if totals.lost_answers:
        said.append(
            f"{usd_text(totals.held)} USD stay reserved for "
            f"{_counted(totals.lost_answers, 'lost answer')} of jobs that were submitted anew: "
            "compare with the bill, then "
            f"asyncpipe resolve {folder} --lost-charged or --lost-free"
        )
    said += [f"{phrase}: {_of(noted)}" for phrase, noted in totals.noted.items()]
    return said


def _of(noted: Noted) -> str:
    left = noted.count - len(noted.names)
    more = f" and {left} more" if left and noted.names else ""
    return f"{_counted(noted.count, 'job')} ({printable(', '.join(noted.names))}{more})"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _head(manifest: Manifest, ledger: LedgerReader, linker: Linker) -> dict[str, Any]:
    totals, bucket = manifest.totals, bucket_of(manifest.where)
    return {
        "generated_at": manifest.generated_at.isoformat(timespec="seconds"),
        "total_cost": money(totals.charged_micro),
        "total_jobs": totals.total,
        "successful": totals.successful,
        **({"missing": totals.missing} if totals.missing else {}),
        "failed": totals.failed,
        "unknown": totals.unknown,
        "pending": totals.pending,
        "removed": totals.removed,
        "reserved": money(totals.reserved_micro),
        "estimated_cost": money(totals.estimated_micro),
        "overrun": money(totals.overrun_micro),
        "lost_answers": totals.lost_answers,
        "remarks": remarks(totals),
        "cost_by_model": {m: money(c) for m, c in sorted(totals.cost_by_model_micro.items())},
        "run": _run(ledger),
        **({"store": str(bucket)} if bucket is not None else {}),
        **({"links": manifest.links.told} if manifest.links is not None else {}),
        **({"links_until": linker.until.isoformat(timespec="seconds")} if linker.until else {}),
    }


def _run(ledger: LedgerReader) -> dict[str, Any]:
    origin, run = ledger.origin(), ledger.last_run()
    return {
        "manifest_version": MANIFEST_VERSION,
        "id": run["id"] if run else None,
        "started_at": run["started_at"] if run else None,
        "job_file": run["job_file"] if run else None,
        "provider": origin.provider if origin else None,
        "origin": origin.origin if origin else None,
        "simulated": origin is not None and origin.simulated,
        "currency": "USD",
    }


def _row(result: Result, linker: Linker) -> dict[str, Any]:
    first = result.assets[0].name if result.assets else None
    return {
        "name": result.name,
        "model": result.model,
        "type": result.type,
        "status": result.status,
        "output_url": _shown(result.outputs[0]) if result.outputs else None,
        "local_path": first,
        "cost": _money_of(result.cost),
        "generation_time": None if result.generation_s is None else round(result.generation_s, 1),
        "error": result.error,
        "reason": result.reason,
        "error_code": result.error_code,
        "notes": result.notes,
        "labels": dict(result.labels),
        "key": result.key,
        "outcome": result.outcome.value,
        "charged": result.charged,
        "attempts_charged": result.attempts_charged,
        "estimated": result.estimated,
        "overrun": _money_of(result.overrun),
        "reserved": _money_of(result.reserved),
        "lost_answers": result.lost_answers,
        "cost_source": result.cost_source,
        "provider": result.provider,
        "bought_as": result.bought_as,
        "prediction_id": result.prediction_id,
        "request_id": result.request_id,
        "attempts": result.attempts,
        "polls": result.polls,
        "sha256": result.assets[0].sha256 if result.assets else None,
        "bytes": sum(asset.size for asset in result.assets) if result.assets else None,
        "submitted_at": _iso(result.submitted_at),
        "completed_at": _iso(result.completed_at),
        "assets": [
            _asset(asset, link)
            for asset, link in zip(result.assets, linker.of(result.assets), strict=True)
        ],
    }


def _asset(asset: Asset, link: str | None) -> dict[str, Any]:
    told = {"local_path": asset.name, "bytes": asset.size, "sha256": asset.sha256}
    if asset.store:
        told["store"] = asset.store
    if link is not None:
        told["url"] = link
    return told


def _money_of(amount: Decimal) -> orjson.Fragment:
    return money(int(amount * 1_000_000) if amount else 0)


def _shown(url: str) -> str:
    return url if not url.startswith("data:") else "data:"


def _iso(time: datetime | None) -> str | None:
    if time is None:
        return None
    text = orjson.dumps(time)
    if len(text) == _WHOLE:  # cut to milliseconds; a third of what isoformat costs
        return (text[1:24] + text[27:-1]).decode()
    return time.isoformat(timespec="milliseconds")


_WHOLE = len('"2026-11-25T00:00:00.000000+00:00"')


class ManifestWriter:
    """Write a folder's manifest beside a run, one at a time."""

    def __init__(
        self, ledger: Ledger, folder: Path | SharedPlace, links: Links | None = None
    ) -> None:
        self._ledger, self._folder, self._links = ledger, folder, links
        self._writing = anyio.Lock()
        self._shows = -1  # what of the ledger's changes the file shows
        self._written: Manifest | None = None
        self._owed = False  # to a batch, whose last one may come when the pipeline is closed
        self._took_s = self._ended = 0.0  # by a real clock

    async def write_changes(self, rows: int) -> None:
        """Like ``write``, unless nothing changed since, or a service of many ``rows`` is to close.

        A million jobs take half a minute: where no batch waits for it the interim one stands, the
        ledger has the rest, and whoever reads that (``read_manifest``, export) sees all.
        """
        if not self._owed and rows * ROW_S > LONG_S:
            logger.info(
                "the manifest of %d jobs is left as it is", rows, extra={"action": "manifest.left"}
            )
        elif await self._ledger.changes() != self._shows:
            await self.write()

    async def end_batch(self) -> Manifest:
        """Write it, unless that takes long and was done lately; the totals are today's anyhow.

        In a service of half a million jobs each small batch would cost a quarter of a minute: the
        interim manifest comes as ever, and the last one when the pipeline is closed.
        """
        self._owed = True
        pause_s = MANIFEST_PAUSE * self._took_s
        if self._took_s <= LONG_S or time.perf_counter() - self._ended > pause_s:
            return await self.write()
        await self._ledger.durable()
        return await asyncio.get_running_loop().run_in_executor(None, read_manifest, self._folder)

    async def write(self) -> Manifest:
        """Write everything appended so far; raises LedgerError or DiskError.

        Whoever comes while one is being written shares the next one with all others that came.
        """
        wanted = await self._ledger.changes()
        loop = asyncio.get_running_loop()
        async with self._writing:
            if self._written is not None and self._shows >= wanted:
                return self._written
            shows = await self._ledger.changes()
            started = time.perf_counter()
            # Shielded: an older manifest must not be put in place after a newer one.
            with anyio.CancelScope(shield=True):
                manifest = await loop.run_in_executor(
                    None, write_manifest, self._folder, self._links
                )
            self._shows, self._written, self._ended = shows, manifest, time.perf_counter()
            self._took_s = self._ended - started
        return manifest


MANIFEST_EVERY_S = 10.0
"""Shortest time between two interim manifests."""

MANIFEST_PAUSE = 50
"""A pause of so many times as long as it took follows on a manifest."""

ABOUT_S = 0.001
"""What is left by rounding is not waited for: a clock that is far on does not show it."""

ROW_S = 2e-5
"""About what one row of it takes; the first one's duration is not known otherwise."""


def manifest_due_s(rows: int, took_s: float) -> float:
    """How long after the last manifest the next is due: it shall take 2 % of the time at most."""
    return max(MANIFEST_EVERY_S, MANIFEST_PAUSE * max(took_s, rows * ROW_S))
