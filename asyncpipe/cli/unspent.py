"""Which jobs of a file a run would still buy, as the folder's ledger has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from asyncpipe.errors import LedgerError
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.states import JobState
from asyncpipe.ledger.database import reading
from asyncpipe.ledger.folder import ledger_path

_BOUGHT = (
    "SELECT j.state, coalesce(a.charged, 0), coalesce(a.moderated, 0) FROM jobs j"
    " LEFT JOIN attempts a ON a.job_id=j.id AND a.n=j.used+1 WHERE j.key=?"
)


@contextmanager
def still_to_buy(
    folder: Path, provider: str, *, retry_failed: bool, resubmit: bool
) -> Iterator[Callable[[Job], bool]]:
    """Give a test for jobs that a run into ``folder`` would submit.

    A ledger that cannot be read counts every job: the run that opens it says what is wrong.
    """
    again = {JobState.PENDING, JobState.CANCELLED, *([JobState.UNKNOWN] if resubmit else [])}

    def wanted(state: str, charged: int, moderated: int) -> bool:
        if state == JobState.FAILED:
            return retry_failed and not charged and not moderated
        return state in again

    if not ledger_path(folder).exists():
        yield lambda job: True
        return
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(reading(folder))
            connection.execute(_BOUGHT, ("",)).fetchone()
        except (LedgerError, sqlite3.Error):
            yield lambda job: True
            return

        def test(job: Job) -> bool:
            row = connection.execute(_BOUGHT, (job.key(provider),)).fetchone()
            return row is None or wanted(*row)

        yield test
