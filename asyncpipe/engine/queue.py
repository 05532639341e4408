"""TODO."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Self

from asyncpipe.errors import AsyncpipeError
from asyncpipe.flow import Traffic
from asyncpipe.jobs import JobRecord
from asyncpipe.ledger import Named, claim_stems, pending
from asyncpipe.pricing import Fit

NO_ROOM_S = 5.0
"""How soon admission looks again whether the disk has room."""


class Queue:
    """The jobs admission holds in memory, and the choice among them: synchronous, no I/O.

    Paid work comes first; then models take turns, each as its window and its pause allow; jobs
    that wait for their next attempt come when they are due; expired ones last, when nothing else
    is left of their run.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.paid: deque[JobRecord] = deque()
        # By id: callers of a service leave by the thousand, each from anywhere in a long row.
        self.ready: dict[str, OrderedDict[int, JobRecord]] = {}
        self.later: list[tuple[float, int, JobRecord]] = []
        self.expired: dict[int, JobRecord] = {}
        self.unfit: deque[JobRecord] = deque()
        self._turn: deque[str] = deque()
        self._order = 0

    def add(self, records: Iterable[JobRecord], *, first: bool = False) -> None:
        """Take pending jobs; ``first`` puts them before those of the same model."""
        for record in records:
            model = record.job.model
            if model not in self.ready:
                self.ready[model] = OrderedDict()
                self._turn.append(model)
            self.ready[model][record.id] = record
            if first:
                self.ready[model].move_to_end(record.id, last=False)

    def add_later(self, record: JobRecord, when: float) -> None:
        """Take a job that is not to be submitted before ``when``."""
        self._order += 1
        heapq.heappush(self.later, (when, self._order, record))

    def waiting(self, model: str) -> int:
        """How many jobs of ``model`` are ready."""
        return len(self.ready.get(model, ()))

    @property
    def empty(self) -> bool:
        """Whether no job is held, expired ones apart."""
        return not (self.paid or self.later or any(self.ready.values()))

    def forget_pending(self, model: str | None = None) -> list[JobRecord]:
        """Drop every job, of ``model`` or of all, that is not paid for; return them."""
        dropped: list[JobRecord] = []
        for name, queue in self.ready.items():
            if model in (None, name):
                dropped += queue.values()
                queue.clear()
        gone = [entry for entry in self.later if model in (None, entry[2].job.model)]
        self.later = [entry for entry in self.later if model not in (None, entry[2].job.model)]
        heapq.heapify(self.later)
        return dropped + [record for _, _, record in gone]

    def remove(self, job_id: int, *, untouched: bool = False) -> JobRecord | None:
        """Take one unpaid job out; None if it is not here.

        ``untouched``: not one that was submitted before, whose money has to stay in sight.
        """
        for queue in self.ready.values():
            if (record := queue.get(job_id)) is not None:
                return None if untouched and record.used else queue.pop(job_id)
        if untouched:  # what waits for its next attempt has had one
            return None
        entry = next((entry for entry in self.later if entry[2].id == job_id), None)
        if entry is None:
            return None
        self.later.remove(entry)
        heapq.heapify(self.later)
        return entry[2]

    def choose(
        self,
        now: float,
        *,
        room: bool = True,
        fit: Callable[[JobRecord], Fit] = lambda _: Fit.NOW,
    ) -> JobRecord | float:
        """Take the next job out, or say when there may be one (infinity: when news comes).

        Without ``room`` on the disk nothing is to be submitted; look again soon. A job that does
        not ``fit`` the budget yet makes its model wait; one that never will goes to ``unfit``.
        """
        if self.paid:
            return self.paid.popleft()
        if not room:
            return now + NO_ROOM_S
        while self.later and self.later[0][0] <= now:
            self.add([heapq.heappop(self.later)[2]], first=True)
        due = self.later[0][0] if self.later else math.inf
        for _ in range(len(self._turn)):
            model = self._turn[0]
            at = self.traffic.ready_at(model, now) if self.ready[model] else None
            if at is not None and at <= now and not self.traffic.gate.submit_free():
                return due  # the model keeps its turn; news come with that of the request
            self._turn.rotate(-1)
            if at is None or at > now:
                due = due if at is None else min(due, at)
            elif (chosen := self._first_fitting(model, fit)) is not None:
                self.traffic.admitted(chosen.id, model)
                return chosen
        return due

    def _first_fitting(self, model: str, fit: Callable[[JobRecord], Fit]) -> JobRecord | None:
        queue = self.ready[model]
        while queue:
            verdict = fit(next(iter(queue.values())))
            if verdict is Fit.LATER:
                return None
            _, record = queue.popitem(last=False)
            if verdict is Fit.NOW:
                return record
            self.unfit.append(record)
        return None


@dataclass(slots=True)
class Backlog:
    """One run's jobs: those still in the ledger, drawn in small pages, and those under way.

    ``comparing``: assets of jobs that had succeeded are still being looked at; more may come.
    """

    named: Named | None  # which rows it draws; None: it draws nothing
    models: dict[str, int]  # models with jobs not drawn yet -> last id drawn
    open: set[int]  # ids drawn and not let go
    comparing: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: bool = False

    async def wait(self) -> None:
        """Wait for the end; raises AsyncpipeError when the pipeline was closed before it."""
        await self.done.wait()
        if self.abandoned:
            raise AsyncpipeError("the pipeline was closed before the jobs ended; they are kept")

    def left_over(self, expired: Mapping[int, object]) -> list[int]:
        """The jobs that are open, if those that are ``expired`` are all there is."""
        more = self.models or self.comparing or len(self.open) > len(expired)
        return [] if more or not self.open <= expired.keys() else sorted(self.open)

    def settle(self) -> None:
        """Note the end, when it has come."""
        if not self.models and not self.open and not self.comparing:
            self.done.set()


def read_page(
    connection: Connection, *, folder: Path, named: Named, model: str, after: int, limit: int
) -> list[JobRecord]:
    """The next pending jobs of a run and a model, their stems fixed."""
    records = pending(connection, named, model, after=after, limit=limit)
    return claim_stems(connection, records, folder)


class Handover:
    """A meeting point of one giver and many takers; nothing is stored in between.

    (anyio's memory stream does the same and costs several times as much for each job.)
    """

    def __init__(self) -> None:
        self._takers: deque[asyncio.Future[JobRecord]] = deque()
        self._somebody = asyncio.Event()

    async def give(self, record: JobRecord) -> None:
        """Wait for a taker, and give it the job."""
        while True:
            while self._takers:
                taker = self._takers.popleft()
                if not taker.done():  # cancelled meanwhile
                    taker.set_result(record)
                    return
            self._somebody.clear()
            await self._somebody.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobRecord:
        taker: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        self._somebody.set()
        return await taker
