"""Forget what old jobs were, in an output folder that nobody works in; no money is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from asyncpipe._fs import Root
from asyncpipe.errors import DiskError, FolderInUse, LedgerError, UsageError
from asyncpipe.jobs import JobState, now
from asyncpipe.ledger import (
    Ledger,
    PrunableFile,
    SharedPlace,
    Where,
    bucket_of,
    folder_of,
    mending,
    reading,
    resolved,
)
from asyncpipe.media import stands
from asyncpipe.pricing import from_micro
from asyncpipe.report import write_manifest

PAGE = 500
"""Jobs that are looked at, and forgotten, at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was forgotten, or would be; amounts in USD, which stay in every sum.

    ``jobs`` keep key, name, model, labels, outcome, money, times, errors and the ids of
    predictions; prompts, parameters and the URLs of inputs and outputs are gone. ``files`` were
    removed, of ``bytes``. ``left`` counts older jobs that are kept whole, by why.
    """

    jobs: int = 0
    charged: Decimal = Decimal(0)
    files: int = 0
    bytes: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "jobs": self.jobs,
            "charged": float(self.charged),
            "currency": "USD",
            "files": self.files,
            "bytes": self.bytes,
            "left": dict(self.left),
            "dry_run": self.dry_run,
        }


LEFT: Mapping[JobState, str] = {
    JobState.SUCCEEDED: "paid, and their files are not here",
    JobState.FAILED: "failed, and what they cost may still change",
    JobState.UNKNOWN: "unknown: they may have been bought",
    JobState.LOST: "paid, and their media are lost",
    JobState.MISSING: "paid, and their files are missing",
    JobState.CANCELLED: "withdrawn",
}
"""Why jobs are kept whole, by their state; all others have not ended."""


async def prune(
    folder: Where, older_than: timedelta, *, files: bool = False, dry_run: bool = False
) -> Pruned:
    """Forget what jobs were that ended longer ago than ``older_than``; with ``files`` theirs, too.

    Only jobs that succeeded, all of whose files stand here, and failed ones; never one whose money
    is reserved. A run that names one again buys nothing. Raises FolderInUse while anybody works in
    the folder, LedgerError, DiskError, and UsageError for files in a bucket.
    """
    if older_than < timedelta(0):
        raise UsageError("older_than must be a time span of 0 or more")
    where = resolved(folder)
    if files and bucket_of(where) is not None:
        raise UsageError(
            f"{where} is a bucket: have it remove old objects by a lifecycle rule, and prune "
            "without files"
        )
    await asyncio.to_thread(_check_alone, where)
    at = now()
    async with mending(where) as ledger:
        pruning = _Pruning(ledger, where, files=files, dry_run=dry_run)
        while await pruning.step(before=at - older_than):
            pass
        left = await ledger.unpruned(before=at - older_than)
        if not dry_run and pruning.jobs:
            await ledger.shrink()
            write_manifest(where)
    counts = Counter({state: count for state, count in left.items() if count})
    if dry_run:
        counts.subtract(pruning.states)
    return Pruned(
        jobs=pruning.jobs,
        charged=from_micro(pruning.micro),
        files=pruning.removed,
        bytes=pruning.bytes,
        left=_by_reason(+counts),
        dry_run=dry_run,
    )


def _by_reason(counts: Mapping[JobState, int]) -> dict[str, int]:
    left: Counter[str] = Counter()
    for state, count in counts.items():
        left[LEFT.get(state, "not ended")] += count
    return dict(left)


def _check_alone(where: Path | SharedPlace) -> None:
    """A shared ledger's workers hold jobs of their own; a folder's lock says the same of others."""
    with reading(where) as ledger:
        working = [each.name for each in ledger.workers() if each.left_s > 0]
    if working:
        raise FolderInUse(f"{where} is worked in by {', '.join(working[:5])}: wait for them to end")


class _Pruning:
    """Goes through a ledger page by page."""

    def __init__(
        self, ledger: Ledger, where: Path | SharedPlace, *, files: bool, dry_run: bool
    ) -> None:
        self._ledger, self._root = ledger, Root(folder_of(where))
        self._in_bucket = bucket_of(where) is not None
        self._files, self._dry_run = files, dry_run
        self._after = 0
        self.states: Counter[JobState] = Counter()
        self.jobs = self.micro = self.removed = self.bytes = 0

    async def step(self, *, before: Any) -> bool:
        """Look at the next page; return whether there was one."""
        page = await self._ledger.prunable(before=before, after=self._after, limit=PAGE)
        if not page:
            return False
        self._after = page[-1][0]
        stored = await self._ledger.stored([job_id for job_id, _, _ in page])
        kept = await asyncio.to_thread(self._not_here, stored)
        # What succeeded has files, unless they were removed: a job of URLs alone never had any.
        chosen = [row for row in page if row[0] not in kept]
        ids = [job_id for job_id, _, _ in chosen]
        self.states.update(state for _, state, _ in chosen)
        self.jobs += len(chosen)
        self.micro += sum(charged for _, _, charged in chosen)
        theirs = [each for each in stored if each[0] in {*ids}] if self._files else []
        if not self._dry_run and ids:
            await self._ledger.prune(ids, at=now(), files=self._files)
        # After their rows: what a kill leaves behind is a file too many, never a job without one.
        self.removed += len(theirs)
        self.bytes += sum(size for _, _, size, _ in theirs)
        if not self._dry_run:
            await asyncio.to_thread(self._remove, theirs)
        return True

    def _not_here(self, stored: Sequence[PrunableFile]) -> set[int]:
        """The jobs some of whose files do not stand in this folder, as far as can be seen."""
        away: set[int] = set()
        for job_id, path, size, store in stored:
            if self._in_bucket and store in ("", self._ledger.store):
                continue  # in a bucket, where a lifecycle rule may have removed it: that is known
            if store not in ("", self._ledger.store):
                away.add(job_id)
                continue
            if trouble := self._root.trouble(path):
                raise LedgerError(trouble)
            try:
                if not stands(self._root.folder / path, size, None):
                    away.add(job_id)
            except OSError as exc:
                raise DiskError(f"{path} cannot be looked at ({exc.strerror or exc})") from exc
        return away

    def _remove(self, stored: Sequence[PrunableFile]) -> None:
        for _, path, _, _ in stored:
            try:
                (self._root.folder / path).unlink(missing_ok=True)
            except OSError as exc:
                raise DiskError(
                    f"{path} cannot be removed ({exc.strerror or exc}); its job is forgotten: "
                    "remove it by hand"
                ) from exc
