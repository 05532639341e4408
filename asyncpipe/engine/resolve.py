"""Decide about unknown jobs and lost answers: submit anew, give up, settle. Asks no provider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncpipe.errors import LedgerError, UsageError
from asyncpipe.jobs import Event, Failed, JobRecord, JobState, LostSettled, Resubmitted, fold, now
from asyncpipe.ledger import (
    STATE_FOLDER,
    FolderLock,
    Ledger,
    ledger_path,
    open_ledger,
)
from asyncpipe.report import write_manifest

GIVEN_UP = "given up: submitted, and the answer was lost; counted as charged"

GIVEN_UP_FREE = "given up: submitted, and the answer was lost; it was not charged"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the user knows or wants.

    ``lost_charged`` is about the attempts whose answer was lost: True, the bill has them, they are
    charged; False, it has not, they are released; None: not known. ``resubmit`` is about unknown
    jobs: True, pending again; False, given up; None: as the bill has it, given up what was bought
    and submitted anew what was not. Where the bill is not known, a job that is given up counts as
    charged, and one that is submitted anew keeps the money reserved.
    """

    resubmit: bool | None = None
    lost_charged: bool | None = None

    @property
    def submits_anew(self) -> bool:
        """Whether unknown jobs are pending again by it."""
        return self.lost_charged is False if self.resubmit is None else self.resubmit


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A job before and after a decision."""

    before: JobRecord
    after: JobRecord

    @property
    def settled(self) -> int:
        """How many lost answers were settled by it."""
        unknown = [r.lost + (r.state is JobState.UNKNOWN) for r in (self.before, self.after)]
        return unknown[0] - unknown[1]

    @property
    def charged(self) -> int:
        """Micro-dollars charged by it."""
        return self.after.charged - self.before.charged

    @property
    def released(self) -> int:
        """Micro-dollars that are not reserved any more, and not charged either."""
        return self.before.committed - self.after.committed


async def resolve(folder: Path, names: Sequence[str], decision: Decision) -> list[Resolved]:
    """Decide about the jobs called ``names`` (none: all that are concerned).

    Those are unknown jobs, failed ones that an earlier lost answer may have been charged for, and,
    where it is said what lost answers cost, all that have some. Raises UsageError for a name that
    no such job has, FolderInUse while a run holds the folder, and LedgerError when the folder has
    no ledger.
    """
    if not ledger_path(folder).exists():
        raise LedgerError(f"{folder} has no ledger: no run has used it as its output folder")
    with FolderLock(folder / STATE_FOLDER / "lock"):
        async with open_ledger(folder, None) as ledger:
            records = _chosen(await _concerned(ledger, decision), names, folder, decision)
            resolved = []
            for record in records:
                after = record
                for event in follow(record, decision):
                    after = fold(after, event)
                    ledger.append(after)
                resolved.append(Resolved(before=record, after=after))
            await ledger.durable()
        write_manifest(folder)
    return resolved


def follow(record: JobRecord, decision: Decision) -> Iterator[Event]:
    """Yield what follows for one job."""
    if record.state is JobState.UNKNOWN:
        yield from _latest(record, decision)
    if decision.lost_charged is None and decision.submits_anew:
        return
    for each in record.earlier:
        if each.settled is None:
            yield _settled(record, each.n, charged=decision.lost_charged is not False)


def _latest(record: JobRecord, decision: Decision) -> Iterator[Event]:
    """What becomes of an unknown job, and of the attempt that made it so."""
    at, charged = now(), decision.lost_charged
    if decision.submits_anew:
        yield Resubmitted(job_id=record.id, at=at)
        if charged is not None:
            yield _settled(record, record.attempt.n, charged=charged)
    elif charged is False:
        yield Failed(job_id=record.id, at=at, error=GIVEN_UP_FREE, found_free=True)
    else:
        yield Failed(job_id=record.id, at=at, error=GIVEN_UP, charged=True)


def _settled(record: JobRecord, attempt: int, *, charged: bool) -> LostSettled:
    return LostSettled(job_id=record.id, at=now(), attempt=attempt, charged=charged)


async def _concerned(ledger: Ledger, decision: Decision) -> list[JobRecord]:
    records = await ledger.unresolved()
    if decision.lost_charged is not None:
        return records
    # A job that is given up failed; one that succeeded, or may yet, only has money to settle.
    given_up = not decision.submits_anew
    return [r for r in records if r.state is JobState.UNKNOWN or (given_up and r.in_doubt)]


def _chosen(
    records: list[JobRecord], names: Sequence[str], folder: Path, decision: Decision
) -> list[JobRecord]:
    missing = set(names) - {record.name for record in records}
    if missing:
        known = ", ".join(record.name for record in records[:10]) or "none"
        kind = "unknown job" if decision.submits_anew else "job with a lost answer"
        raise UsageError(
            f"{folder} has no {kind} called {', '.join(sorted(missing))}; there are: {known}"
        )
    return [record for record in records if not names or record.name in names]
