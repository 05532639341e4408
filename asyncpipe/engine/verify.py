"""Compare assets with the ledger; what is missing or changed is to be fetched again, unpaid.

Asks no provider: a job with a bad asset is ``generated`` again, and whoever polls and downloads
next takes it up.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asyncpipe._fs import inside
from asyncpipe.errors import DiskError, LedgerError
from asyncpipe.jobs import Damaged, Event, JobRecord, JobState, StoredAsset, fold, now
from asyncpipe.ledger import (
    STATE_FOLDER,
    FolderLock,
    Ledger,
    ledger_path,
    open_ledger,
)
from asyncpipe.report import write_manifest

PAGE = 1000
"""Jobs whose assets are compared at once."""

Emit = Callable[[JobRecord, Event], JobRecord]


@dataclass(frozen=True, kw_only=True, slots=True)
class BadAsset:
    """An asset that is not what was stored; ``problem`` is in words."""

    asset: StoredAsset
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What a comparison found; ``bad`` holds at most 100, ``bad_count`` counts all."""

    checked: int
    bad_count: int
    bad: tuple[BadAsset, ...]


async def verify(folder: Path) -> Verified:
    """Compare every asset of an output folder by size and sha256.

    Jobs with a bad one are to be downloaded again by the next run, or by ``Pipeline.collect``. A
    file that changed is kept beside as ``NAME.changed``. Raises FolderInUse, LedgerError, and
    DiskError when a file cannot be read.
    """
    if not ledger_path(folder).exists():
        raise LedgerError(f"{folder} has no ledger: no run has used it as its output folder")
    with FolderLock(folder / STATE_FOLDER / "lock"):
        async with open_ledger(folder, None) as ledger:

            def emit(record: JobRecord, event: Event) -> JobRecord:
                after = fold(record, event)
                ledger.append(after)
                return after

            found = Comparison(ledger, folder, emit, hashing=True)
            while await found.step() is not None:
                pass
            await ledger.durable()
        if found.bad:
            write_manifest(folder)
    return Verified(checked=found.checked, bad_count=found.bad_count, bad=tuple(found.bad))


class Comparison:
    """Go through the assets of jobs that succeeded, page by page; all of them or those of ``run``.

    With ``hashing`` files are read; without, only their sizes are compared.
    """

    def __init__(
        self, ledger: Ledger, folder: Path, emit: Emit, *, hashing: bool, run: int | None = None
    ) -> None:
        self._ledger, self._folder, self._emit = ledger, folder, emit
        self._hashing, self._run = hashing, run
        self._after = 0
        self.checked = 0
        self.bad_count = 0
        self.bad: list[BadAsset] = []

    async def step(self) -> list[JobRecord] | None:
        """Compare the next PAGE jobs; return those to be fetched again, None at the end."""
        assets = await self._ledger.assets(run=self._run, after=self._after, limit=PAGE)
        if not assets:
            return None
        self._after = assets[-1].job_id
        return await self._compare(assets)

    async def of(self, record: JobRecord) -> JobRecord:
        """Compare one job's assets; return it as it stands."""
        found = await self._compare(record.attempt.assets)
        return found[0] if found else record

    async def _compare(self, assets: Sequence[StoredAsset]) -> list[JobRecord]:
        check = partial(compare, self._folder, assets, hashing=self._hashing)
        bad = await asyncio.get_running_loop().run_in_executor(None, check)
        self.checked += len(assets)
        self.bad_count += len(bad)
        self.bad += bad[: max(0, 100 - len(self.bad))]
        if not bad:
            return []
        by_job = {j: list(b) for j, b in itertools.groupby(bad, lambda b: b.asset.job_id)}
        records = await self._ledger.records(by_job)
        # Whoever else looked meanwhile may have found the same.
        return [self._damaged(r, by_job[r.id]) for r in records if r.state is JobState.SUCCEEDED]

    def _damaged(self, record: JobRecord, bad: Sequence[BadAsset]) -> JobRecord:
        event = Damaged(
            job_id=record.id,
            at=now(),
            indexes=tuple(b.asset.position for b in bad),
            error="; ".join(f"{b.asset.path} {b.problem}" for b in bad[:5]) + ": fetched again",
        )
        return self._emit(record, event)


def compare(folder: Path, assets: Iterable[StoredAsset], *, hashing: bool) -> list[BadAsset]:
    """Find the assets that are missing or changed, and put changed files aside.

    Raises DiskError for a file that cannot be read: that tells nothing about what is in it.
    """
    bad = []
    for asset in assets:
        if not inside(folder, asset.path):
            raise LedgerError(
                f"the ledger names a file outside {folder}: {asset.path!r}. Nothing was touched; "
                "do not use a folder whose ledger somebody else may have written"
            )
        try:
            problem = _problem(folder / asset.path, asset, hashing=hashing)
            if problem is not None:
                bad.append(BadAsset(asset=asset, problem=problem))
        except OSError as exc:
            raise DiskError(
                f"{folder / asset.path} cannot be checked ({exc.strerror or exc}): make it "
                "readable and its folder writable, then run the same command again"
            ) from exc
    return bad


def _problem(path: Path, asset: StoredAsset, *, hashing: bool) -> str | None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    if size == asset.size and path.is_file():
        if not hashing:
            return None
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == asset.sha256:
                return None
    aside = _set_aside(path)
    return f"has changed (kept as {aside.name})"


def _set_aside(path: Path) -> Path:
    """Rename a file that is not ours any more: somebody may have worked on it."""
    for n in itertools.count(1):
        aside = path.with_name(f"{path.name}.changed" + (f"-{n}" if n > 1 else ""))
        if not aside.exists():
            return path.rename(aside)
    raise AssertionError
