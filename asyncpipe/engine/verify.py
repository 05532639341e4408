"""Compare assets with the ledger; what is missing or changed is to be fetched again, unpaid.

Asks no provider: a job with a bad asset is ``generated`` again, and whoever polls and downloads
next takes it up. A ``missing`` job whose files are back has succeeded.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asyncpipe._fs import Root
from asyncpipe.engine.ingest import written
from asyncpipe.errors import DiskError, LedgerError
from asyncpipe.jobs import (
    STOOD,
    AssetStored,
    Damaged,
    Event,
    JobRecord,
    JobState,
    StoredAsset,
    Succeeded,
    now,
)
from asyncpipe.ledger import Ledger, SharedPlace, Where, bucket_of, folder_of, mending, resolved
from asyncpipe.media import Bucket, Inspection, stands
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
    """What a comparison found; ``bad`` holds at most 100, ``bad_count`` counts all.

    ``elsewhere`` counts assets by store that lie in another place than this folder: nobody looked.
    """

    checked: int
    bad_count: int
    bad: tuple[BadAsset, ...]
    elsewhere: Mapping[str, int]


async def verify(folder: Where) -> Verified:
    """Compare every asset of an output folder by size and sha256.

    Jobs with a bad one are to be downloaded again by the next run, or by ``Pipeline.collect``. A
    file that changed is kept beside as ``NAME.changed``. Raises FolderInUse, LedgerError, and
    DiskError when a file cannot be read.
    """
    where = resolved(folder)
    async with mending(where) as ledger:
        found = Comparison(ledger, where, partial(written, ledger), hashing=True)
        while await found.step() is not None:
            pass
        await ledger.durable()
        if found.bad:
            write_manifest(where)
    return Verified(
        checked=found.checked,
        bad_count=found.bad_count,
        bad=tuple(found.bad),
        elsewhere=found.elsewhere,
    )


class Comparison:
    """Go through the assets of jobs that succeeded, page by page; all of them or those of ``run``.

    With ``hashing`` files are read, and what was given up is sought again; without, only sizes are
    compared, and of missing files is only seen whether they are back.
    """

    def __init__(
        self,
        ledger: Ledger,
        where: Path | SharedPlace,
        emit: Emit,
        *,
        hashing: bool,
        run: int | None = None,
    ) -> None:
        self._ledger, self._folder, self._emit = ledger, folder_of(where), emit
        bucket = bucket_of(where)
        self._objects = None if bucket is None else Inspection(Bucket(bucket))
        self._hashing, self._run = hashing, run
        self._after = 0
        self.checked = 0
        self.bad_count = 0
        self.bad: list[BadAsset] = []
        self.elsewhere: Counter[str] = Counter()

    async def step(self) -> list[JobRecord] | None:
        """Compare the next PAGE jobs; return those to be fetched again, None at the end."""
        # Downloads of generated jobs go on beside a run, which looks at those that ended alone.
        states = {*STOOD, JobState.GENERATED} if self._hashing else STOOD
        assets = await self._ledger.assets(
            run=self._run, after=self._after, limit=PAGE, states=states
        )
        if not assets:
            return None
        self._after = assets[-1].job_id
        found = await self._compare(assets)
        return [record for record in found if record.state is JobState.GENERATED]

    async def of(self, record: JobRecord) -> JobRecord:
        """Compare one job's assets; return it as it stands."""
        found = await self._compare(record.attempt.stored)
        return found[0] if found else record

    async def _compare(self, assets: Sequence[StoredAsset]) -> list[JobRecord]:
        """Compare assets; return the jobs for which that changes something, as they stand then."""
        theirs = [asset for asset in assets if asset.store not in ("", self._ledger.store)]
        self.elsewhere.update(asset.store for asset in theirs)
        if theirs:
            assets = [asset for asset in assets if asset.store in ("", self._ledger.store)]
        bad = await self._find_bad(assets)
        self.checked += len(assets)
        self.bad_count += len(bad)
        self.bad += bad[: max(0, 100 - len(self.bad))]
        by_job = {j: list(b) for j, b in itertools.groupby(bad, lambda b: b.asset.job_id)}
        concerned = dict.fromkeys(a.job_id for a in assets if a.missing) | by_job
        if not concerned:
            return []
        records = await self._ledger.records(concerned)
        judged = [self._judge(record, by_job.get(record.id, ())) for record in records]
        return [record for record in judged if record is not None]

    async def _find_bad(self, assets: Sequence[StoredAsset]) -> list[BadAsset]:
        if self._objects is not None:
            problems = await self._objects.problems(assets, hashing=self._hashing)
            return [BadAsset(asset=asset, problem=problem) for asset, problem in problems]
        check = partial(compare, self._folder, assets, hashing=self._hashing)
        return await asyncio.get_running_loop().run_in_executor(None, check)

    def _judge(self, record: JobRecord, bad: Sequence[BadAsset]) -> JobRecord | None:
        """What becomes of a job; None: nothing, as whoever else looked may have found the same."""
        state = record.state
        if state is JobState.MISSING and not bad:
            return self._put_back(record)
        known = all(each.asset.missing for each in bad)
        again = self._hashing and state in (JobState.MISSING, JobState.GENERATED)
        if state is JobState.SUCCEEDED or (state is JobState.MISSING and not known):
            again = bool(bad)
        return self._damaged(record, bad) if again and bad else None

    def _put_back(self, record: JobRecord) -> JobRecord:
        for each in record.attempt.missing:
            event = AssetStored(
                job_id=record.id,
                at=now(),
                index=each.position,
                path=each.path,
                size=each.size,
                sha256=each.sha256,
            )
            record = self._emit(record, event)
        return self._emit(record, Succeeded(job_id=record.id, at=now()))

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
    bad, root = [], Root(folder)
    for asset in assets:
        path = _path_of(root, asset)
        with _unreadable(path):
            if (problem := _problem(path, asset, hashing=hashing)) is not None:
                bad.append(BadAsset(asset=asset, problem=problem))
    return bad


def _path_of(root: Root, asset: StoredAsset) -> Path:
    if trouble := root.trouble(asset.path):
        raise LedgerError(trouble)
    return root.folder / asset.path


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DiskError(
            f"{path} cannot be checked ({exc.strerror or exc}): make it "
            "readable and its folder writable, then run the same command again"
        ) from exc


def _problem(path: Path, asset: StoredAsset, *, hashing: bool) -> str | None:
    # What was missing counts as back with every byte only.
    sha256 = asset.sha256 if hashing or asset.missing else None
    if stands(path, asset.size, sha256):
        return None
    if not os.path.lexists(path):
        return "is missing"
    if asset.missing and not hashing:
        return "is missing, another file stands there"
    aside = _set_aside(path)
    return f"has changed (kept as {aside.name})"


def _set_aside(path: Path) -> Path:
    """Rename a file that is not ours any more: somebody may have worked on it."""
    for n in itertools.count(1):
        aside = path.with_name(f"{path.name}.changed" + (f"-{n}" if n > 1 else ""))
        if not os.path.lexists(aside):
            return path.rename(aside)
    raise AssertionError
