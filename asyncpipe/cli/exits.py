"""Exit codes: public, and chosen in one place."""

from __future__ import annotations

from enum import IntEnum

from asyncpipe.collector import Totals
from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.states import JobState


class Exit(IntEnum):
    """Why a command ended; the first that applies, in this order, is the one.

    A signal comes before all but USAGE: 128 + its number, 130 or 143.
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
    failed = totals.jobs[JobState.FAILED] + totals.jobs[JobState.LOST]
    return Exit.FAILED if failed else Exit.OK
