"""Decide about unknown jobs: submit them anew, or give them up. Asks no provider."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from asyncpipe._fs import FolderLock
from asyncpipe._leaving import within
from asyncpipe.errors import LedgerError, UsageError
from asyncpipe.events import Event, Failed, Resubmitted, now
from asyncpipe.ledger import queries
from asyncpipe.ledger.base import JobRecord, fold
from asyncpipe.ledger.sqlite import STATE_FOLDER, Ledger, ledger_path
from asyncpipe.manifest import write_manifest
from asyncpipe.states import JobState

GIVEN_UP = "given up: submitted, and the answer was lost; counted as charged"


async def resolve(folder: Path, names: Sequence[str], *, resubmit: bool) -> list[JobRecord]:
    """Decide about the unknown jobs called ``names`` (none: all); return them as they stand now.

    With ``resubmit`` they are pending again, for the next run to submit, and what the unknown
    attempt may have cost stays reserved; without, they are failed and count as charged. Raises
    UsageError for a name that no unknown job has, FolderInUse while a run holds the folder, and
    LedgerError when the folder has no ledger.
    """
    if not ledger_path(folder).exists():
        raise LedgerError(f"{folder} has no ledger: no run has used it as its output folder")
    ledger = Ledger(folder)
    with FolderLock(folder / STATE_FOLDER / "lock"):
        try:
            await ledger.open(None)
            records = _chosen(await _unknown(ledger), names, folder)
            resolved = []
            for record in records:
                event = _decision(record, resubmit=resubmit)
                resolved.append(fold(record, event))
                ledger.append(event)
            await ledger.durable()
        finally:
            await within(ledger.aclose)
        write_manifest(folder)
    return resolved


async def _unknown(ledger: Ledger) -> list[JobRecord]:
    ids = await ledger.ask(partial(queries.ids_in_state, state=JobState.UNKNOWN))
    return await ledger.ask(partial(queries.records_by_id, ids=ids))


def _chosen(records: list[JobRecord], names: Sequence[str], folder: Path) -> list[JobRecord]:
    missing = set(names) - {record.name for record in records}
    if missing:
        known = ", ".join(record.name for record in records[:10]) or "none"
        raise UsageError(
            f"{folder} has no unknown job called {', '.join(sorted(missing))}; unknown are: {known}"
        )
    return [record for record in records if not names or record.name in names]


def _decision(record: JobRecord, *, resubmit: bool) -> Event:
    if resubmit:
        return Resubmitted(job_id=record.id, at=now())
    return Failed(job_id=record.id, at=now(), error=GIVEN_UP, charged=True)
