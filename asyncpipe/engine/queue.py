"""The jobs that wait for a permit, the choice among them, and where they are handed over."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from asyncpipe.engine.tickets import Ticket
from asyncpipe.flow import Limiter
from asyncpipe.pricing import Fit

NO_ROOM_S = 5.0
"""How soon admission looks again whether the disk has room."""


class Queue:
    """The jobs that wait for a permit, and the choice among them: synchronous, no I/O.

    Paid work comes first, downloads that failed when they are due; then models take turns, each as
    its window and its pause allow; jobs that wait for their next attempt come when they are due;
    expired ones last, when nothing else is left of their run.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.paid: deque[Ticket] = deque()
        # By id: callers of a service leave by the thousand, each from anywhere in a long row.
        self.ready: dict[str, OrderedDict[int, Ticket]] = {}
        self.later: list[tuple[float, int, Ticket]] = []
        self.expired: dict[int, Ticket] = {}
        self.chased: list[tuple[float, int, Ticket]] = []
        self.unfit: deque[Ticket] = deque()
        self._turn: deque[str] = deque()
        self._order = 0

    def add(self, tickets: Iterable[Ticket], *, first: bool = False) -> None:
        """Take pending jobs; ``first`` puts them before those of the same model."""
        for ticket in tickets:
            model = ticket.job.model
            if model not in self.ready:
                self.ready[model] = OrderedDict()
                self._turn.append(model)
            self.ready[model][ticket.id] = ticket
            if first:
                self.ready[model].move_to_end(ticket.id, last=False)

    def add_later(self, ticket: Ticket, when: float) -> None:
        """Take a job that is not to be submitted before ``when``."""
        self._order += 1
        heapq.heappush(self.later, (when, self._order, ticket))

    def waiting(self, model: str) -> int:
        """How many jobs of ``model`` are ready."""
        return len(self.ready.get(model, ()))

    @property
    def empty(self) -> bool:
        """Whether no job is held, expired ones and downloads that failed apart."""
        return not (self.paid or self.later or any(self.ready.values()))

    def forget_pending(self, model: str | None = None) -> list[Ticket]:
        """Drop every job, of ``model`` or of all, that is not paid for; return them."""
        dropped: list[Ticket] = []
        for name, row in self.ready.items():
            if model in (None, name):
                dropped += row.values()
                row.clear()
        gone = [entry for entry in self.later if model in (None, entry[2].job.model)]
        self.later = [entry for entry in self.later if model not in (None, entry[2].job.model)]
        heapq.heapify(self.later)
        return dropped + [ticket for _, _, ticket in gone]

    def remove(self, ticket: Ticket, *, untouched: bool = False) -> bool:
        """Take one unpaid job out; False if it is not here.

        ``untouched``: not one that was submitted before, whose money has to stay in sight.
        """
        row = self.ready.get(ticket.job.model)
        if row is not None and ticket.id in row:
            if untouched and ticket.record.used:
                return False
            del row[ticket.id]
            return True
        if untouched:  # what waits for its next attempt has had one
            return False
        entry = next((entry for entry in self.later if entry[2] is ticket), None)
        if entry is None:
            return False
        self.later.remove(entry)
        heapq.heapify(self.later)
        return True

    def discard(self, ticket: Ticket) -> None:
        """Take a job out, wherever it is."""
        if ticket in self.paid:
            self.paid.remove(ticket)
        elif ticket.id in self.expired:
            [*self.take_expired([ticket])]
        elif any(entry[2] is ticket for entry in self.chased):
            self.chased = [entry for entry in self.chased if entry[2] is not ticket]
            heapq.heapify(self.chased)
        else:
            self.remove(ticket)

    def choose(
        self,
        now: float,
        *,
        room: bool = True,
        fit: Callable[[Ticket], Fit] = lambda _: Fit.NOW,
    ) -> Ticket | float:
        """Take the next job out, or say when there may be one (infinity: when news comes).

        Without ``room`` on the disk nothing is to be submitted; look again soon. A job that does
        not ``fit`` the budget yet makes its model wait; one that never will goes to ``unfit``.
        """
        paid = self.choose_paid(now)
        if isinstance(paid, Ticket):
            return paid
        if not room:
            return min(paid, now + NO_ROOM_S)
        while self.later and self.later[0][0] <= now:
            self.add([heapq.heappop(self.later)[2]], first=True)
        due = min(paid, self.later[0][0] if self.later else math.inf)
        for _ in range(len(self._turn)):
            model = self._turn[0]
            at = self._limiter.ready_at(model, now) if self.ready[model] else None
            if at is not None and at <= now and not self._limiter.gate.submit_free():
                return due  # the model keeps its turn; news come with that of the request
            self._turn.rotate(-1)
            if at is None or at > now:
                due = due if at is None else min(due, at)
            elif (chosen := self._first_fitting(model, fit)) is not None:
                return chosen
        return due

    def choose_paid(self, now: float) -> Ticket | float:
        """Take out what is paid for already, or say when there may be some."""
        return self.paid.popleft() if self.paid else self.choose_chased(now)

    def choose_chased(self, now: float) -> Ticket | float:
        """Take out a download that failed and is due again, or say when one is."""
        if not self.chased:
            return math.inf
        if self.chased[0][0] > now:
            return self.chased[0][0]
        return heapq.heappop(self.chased)[2]

    def fetch_later(self, ticket: Ticket) -> None:
        """Take a job whose download failed, until its chase is due."""
        assert ticket.chase is not None, "the chase says when"
        self._order += 1
        heapq.heappush(self.chased, (ticket.chase.due, self._order, ticket))

    def _first_fitting(self, model: str, fit: Callable[[Ticket], Fit]) -> Ticket | None:
        row = self.ready[model]
        while row:
            verdict = fit(next(iter(row.values())))
            if verdict is Fit.LATER:
                return None
            _, ticket = row.popitem(last=False)
            if verdict is Fit.NOW:
                return ticket
            self.unfit.append(ticket)
        return None

    # -- a last look ----------------------------------------------------------------------------

    def expire(self, ticket: Ticket) -> None:
        """Keep an expired job for one more poll when nothing else is left of its run."""
        self.expired[ticket.id] = ticket
        for run in ticket.runs:
            run.expired += 1

    def take_expired(self, tickets: Iterable[Ticket]) -> Iterator[Ticket]:
        """Take expired jobs out: their time has come."""
        for ticket in tickets:
            del self.expired[ticket.id]
            for run in ticket.runs:
                run.expired -= 1
            yield ticket


class Handoff:
    """Where admission meets the drivers; nothing is stored in between.

    (anyio's memory stream does the same and costs several times as much for each job.)
    """

    def __init__(self, news: asyncio.Event) -> None:
        self._takers: deque[asyncio.Future[Ticket]] = deque()
        self._news = news

    @property
    def awaited(self) -> bool:
        """Whether a driver is there to take a job."""
        while self._takers and self._takers[0].done():  # cancelled meanwhile
            self._takers.popleft()
        return bool(self._takers)

    def give(self, ticket: Ticket) -> None:
        """Give a job to the driver that has waited longest; only while one is ``awaited``."""
        self._takers.popleft().set_result(ticket)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ticket:
        taker: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        self._news.set()
        return await taker
