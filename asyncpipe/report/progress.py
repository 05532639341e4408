"""Calm progress lines while a run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import anyio

from asyncpipe._text import fit, printable
from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs import (
    Event,
    FetchFailed,
    JobRecord,
    JobState,
    NotBought,
    Polled,
    Released,
)
from asyncpipe.pricing import usd
from asyncpipe.report.eta import about
from asyncpipe.report.totals import Totals

EACH_UP_TO = 100
"""Up to so many jobs every one that ends gets a line; above, only the total does."""

BEAT_S = 10.0
"""A line with the totals comes at most so often, in seconds."""

WAITING_EVERY_S = 60.0
"""The reason why submits are refused is said at most so often, in seconds."""

_WORDS = {
    JobState.SUCCEEDED: "ok",
    JobState.FAILED: "failed",
    JobState.LOST: "lost",
    JobState.MISSING: "missing",
    JobState.UNKNOWN: "unknown",
    JobState.EXPIRED: "expired",
}


class Run(Protocol):
    """What progress asks of a pipeline."""

    @property
    def totals(self) -> Totals:
        """The totals so far."""

    @property
    def waiting(self) -> AsyncpipeError | None:
        """What submitting waits for besides the provider."""

    async def left_s(self) -> float | None:
        """About how many seconds the open jobs will take; None while too little is known."""


class Progress:
    """Hook of a pipeline: print a line per job that ended, and the totals now and then."""

    def __init__(self, echo: Callable[[str], None], *, verbose: bool = False) -> None:
        self._echo = echo
        self._verbose = verbose
        self._totals: Totals | None = None
        self._changed = False
        self._waiting_said = -WAITING_EVERY_S

    def __call__(self, event: Event, record: JobRecord) -> None:
        """Take one event."""
        if self._verbose:
            self._echo(f"  {type(event).__name__.lower():<12}{fit(record.name, 28)} {_more(event)}")
        self._changed = self._changed or not isinstance(event, Polled)
        if isinstance(event, FetchFailed) or (isinstance(event, NotBought) and not event.stops):
            self._say_waiting(event.error)
        if self._totals is None or event.target is None:
            return
        if isinstance(event, Released):
            self._echo(f"  again     {fit(record.name, 28)} {printable(event.error)[:200]}")
        elif record.state in _WORDS and self._totals.total <= EACH_UP_TO:
            self._echo(self._line(record))

    def _say_waiting(self, reason: str) -> None:
        """Say why nothing goes on, once a minute."""
        clock = asyncio.get_running_loop().time()
        if clock - self._waiting_said >= WAITING_EVERY_S:
            self._waiting_said = clock
            self._echo(f"  waiting   {printable(reason)[:300]}; trying again")

    def _line(self, record: JobRecord) -> str:
        assert self._totals is not None
        done = f"{self._done(self._totals)}/{self._totals.total}"
        word = _WORDS[record.state]
        if record.state is JobState.SUCCEEDED:
            path = record.attempt.assets[0].path if record.attempt.assets else ""
            detail = f"{usd(record.attempt.charged):>11}   {path}"
        else:
            detail = printable(record.attempt.error or "")[:200]
        return f"  {done:>9}  {word:<8} {fit(record.name, 28)} {detail}"

    @staticmethod
    def _done(totals: Totals) -> int:
        return totals.total - totals.pending

    async def beat(self, run: Run) -> None:
        """Print the totals every BEAT_S while something changes; until cancelled."""
        self._totals = run.totals
        clock = asyncio.get_running_loop().time
        started = clock()
        while True:
            await anyio.sleep(BEAT_S)
            if run.waiting is not None:
                self._say_waiting(str(run.waiting))
            if not self._changed:
                continue
            self._changed = False
            totals = run.totals
            failed = f", {totals.failed} failed" if totals.failed else ""
            done = f"{self._done(totals)}/{totals.total} done{failed}"
            cost = f"{usd(totals.charged)}, {clock() - started:.0f} s"
            self._echo(f"  {done}, {totals.in_flight} in flight, {cost}{await _left(run)}")


async def _left(run: Run) -> str:
    try:
        seconds = await run.left_s()
    except AsyncpipeError:  # a ledger that fails is told by the run itself
        return ""
    return "" if seconds is None else f"; {about(seconds)} left"


def _more(event: Event) -> str:
    for name in ("error", "prediction_id", "said", "path", "price_source"):
        value = getattr(event, name, None)
        if value:
            return printable(str(value))[:160]
    return ""
