"""Paid jobs that were put down unfinished: taken up again with growing gaps while there is time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable

from asyncpipe.engine.again import is_keyed
from asyncpipe.engine.health import may_pass
from asyncpipe.engine.tickets import StopReasons, Ticket
from asyncpipe.jobs import PAID_OPEN, JobRecord, JobState
from asyncpipe.ledger import Ledger

FIRST_S = 60.0
"""How long after it was put down a job is taken up again; twice as long each time after that."""

LONGEST_S = 6 * 3600.0


def to_come_again(record: JobRecord) -> bool:
    """Whether asking once more may bring home what was paid for."""
    named = record.state is JobState.UNKNOWN and record.attempt.prediction_id is not None
    return named or record.state in PAID_OPEN


AGAIN_S = 60.0
"""How long after what may pass had stopped submitting it is tried again for accepted jobs."""


class Backlog:
    """Takes up again what was accepted when what may pass by itself had stopped submitting.

    The API was down for longer than patience lasts, the disk was full: nobody may come to ask for
    another job. ``take_up`` forgets what had stopped submitting, up to so many reasons, if there is
    any such job.
    """

    def __init__(self, stops: StopReasons, take_up: Callable[[int], Awaitable[None]]) -> None:
        self._stops, self._take_up = stops, take_up

    async def run(self) -> None:
        """Try again for ever, now and then while something has stopped submitting."""
        while True:
            await self._stops.stopped.wait()
            await asyncio.sleep(AGAIN_S)
            if may_pass(self._stops.run):
                await self._take_up(self._stops.noted)
            else:
                self._stops.stopped.clear()


class Aftercare:
    """Takes up again what drivers put down unfinished, for as long as the pipeline is open.

    In a service a caller is told that its job expired, and nobody else would ask for it.
    """

    def __init__(
        self,
        ledger: Ledger,
        offer: Callable[[Iterable[JobRecord]], None],
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._offer, self._clock = ledger, offer, clock
        self._due: dict[int, tuple[float, float]] = {}  # by job: when, and how long that is
        self._news = asyncio.Event()

    def put_down(self, ticket: Ticket) -> None:
        """Note that a driver let go of a job."""
        if ticket.chase is not None or not _comes_again(ticket.record):  # admission chases it on
            self._due.pop(ticket.id, None)
            return
        _, gap_s = self._due.get(ticket.id, (0.0, FIRST_S / 2))
        gap_s = min(2 * gap_s, LONGEST_S)
        self._due[ticket.id] = self._clock() + gap_s, gap_s
        self._news.set()

    async def run(self) -> None:
        """Offer jobs when they are due, for ever."""
        while True:
            self._news.clear()
            at = min((at for at, _ in self._due.values()), default=math.inf)
            try:
                async with asyncio.timeout_at(None if at == math.inf else at):
                    await self._news.wait()
            except TimeoutError:
                await self._take_up()

    async def _take_up(self) -> None:
        due = [job_id for job_id, (at, _) in self._due.items() if at <= self._clock()]
        for job_id in due:  # one that others have taken up meanwhile is put down by them
            self._due[job_id] = math.inf, self._due[job_id][1]
        records = await self._ledger.claim(due) if due else []
        self._offer(record for record in records if _comes_again(record))


def _comes_again(record: JobRecord) -> bool:
    """Whether a driver may bring on what one put down: it was bought, or a key tells whether."""
    return to_come_again(record) or is_keyed(record)
