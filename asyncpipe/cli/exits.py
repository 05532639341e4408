"""Exit codes: public, and chosen in one place."""

from __future__ import annotations

from enum import IntEnum

from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.jobs.states import JobState
from asyncpipe.report.totals import Totals


class Exit(IntEnum):
    """Why a command ended; the first that applies, in this order, is the one.

    A signal comes before all but USAGE: 128 + its number, 130 or 143; also 130 when the question
    before a run is answered with no.
    """

    USAGE = 2
    STOPPED = 3
    AGAIN = 75
    FAILED = 1
    OK = 0


def of_error(error: AsyncpipeError) -> Exit:
    """The exit code of a command that an error ended."""
    return Exit.USAGE if isinstance(error, UsageError) else Exit.STOPPED


def of_run(totals: Totals, *, stopped: AsyncpipeError | None) -> Exit:
    """The exit code of a run that came to its end."""
    if stopped is not None:
        return Exit.STOPPED
    if totals.unknown or totals.pending:
        return Exit.AGAIN
    return Exit.FAILED if totals.failed else Exit.OK


def of_verify(code: int, totals: Totals, *, lost_before: int) -> int:
    """The exit code of a verify whose repair ended with ``code``: what became of the files.

    75 while some are still to be fetched, 1 when media are gone for good. A failed, unknown or
    unsubmitted job has no file that could be missing.
    """
    if code not in (Exit.AGAIN, Exit.FAILED):
        return code
    if totals.jobs[JobState.GENERATED]:
        return Exit.AGAIN
    return Exit.FAILED if totals.jobs[JobState.LOST] > lost_before else Exit.OK
