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


class Row:
    """The jobs of one model that may be submitted: by priority, and as they came.

    By id, too: callers of a service leave by the thousand, each from anywhere in a long row.
    """

    def __init__(self) -> None:
        self._lanes: dict[int, OrderedDict[int, Ticket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Ticket]:
        for priority in sorted(self._lanes, reverse=True):
            yield from self._lanes[priority].values()

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket.id in self._lanes.get(ticket.job.priority, ())

    @property
    def top(self) -> int:
        """The priority of its first job."""
        return max(self._lanes)

    @property
    def first(self) -> Ticket:
        """The job that goes next."""
        return next(iter(self._lanes[self.top].values()))

    def add(self, ticket: Ticket, *, first: bool = False) -> None:
        """Take a job; ``first`` puts it before those of the same priority."""
        lane = self._lanes.setdefault(ticket.job.priority, OrderedDict())
        lane[ticket.id] = ticket
        if first:
            lane.move_to_end(ticket.id, last=False)

    def remove(self, ticket: Ticket) -> None:
        """Take a job out."""
        lane = self._lanes[ticket.job.priority]
        del lane[ticket.id]
        if not lane:
            del self._lanes[ticket.job.priority]

    def clear(self) -> list[Ticket]:
        """Take all out."""
        tickets = [*self]
        self._lanes.clear()
        return tickets


class Queue:
    """The jobs that wait for a permit, and the choice among them: synchronous, no I/O.

    Paid work comes first, downloads that failed when they are due; then jobs by their priority,
    and among equals models take turns, each as its window and its pause allow; jobs that wait for
    their next attempt come when they are due; expired ones last, when nothing else is left of their
    run. Those that are ``short`` wait for money of their label's or day's budget.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.paid: deque[Ticket] = deque()
        self.ready: dict[str, Row] = {}
        self.short: dict[str, Row] = {}
        self.later: list[tuple[float, int, Ticket]] = []
        self.expired: dict[int, Ticket] = {}
        self.chased: list[tuple[float, int, Ticket]] = []
        self.unfit: deque[Ticket] = deque()
        self._turn: deque[str] = deque()
        self._ranked = False  # once there was a job of another priority than the usual
        self._order = 0

    def add(self, tickets: Iterable[Ticket], *, first: bool = False) -> None:
        """Take pending jobs; ``first`` puts them before those of the same model."""
        for ticket in tickets:
            model = ticket.job.model
            if model not in self.ready:
                self.ready[model], self.short[model] = Row(), Row()
                self._turn.append(model)
            self.ready[model].add(ticket, first=first)
            self._ranked |= ticket.job.priority != 0

    def add_later(self, ticket: Ticket, when: float) -> None:
        """Take a job that is not to be submitted before ``when``."""
        self._order += 1
        heapq.heappush(self.later, (when, self._order, ticket))

    def waiting(self, model: str) -> int:
        """How many jobs of ``model`` are ready, or short of money."""
        return len(self.ready.get(model, ())) + len(self.short.get(model, ()))

    @property
    def any_short(self) -> bool:
        """Whether jobs wait for money of their label's or day's budget."""
        return any(self.short.values())

    @property
    def first_short(self) -> Ticket | None:
        """One of them, or None."""
        return next((ticket for row in self.short.values() for ticket in row), None)

    def try_short(self) -> None:
        """Let all of them have their turn again."""
        for row in self.short.values():
            self.add(reversed(row.clear()), first=True)

    @property
    def empty(self) -> bool:
        """Whether no job is held, expired ones and downloads that failed apart."""
        return not (self.paid or self.later or any(self.ready.values()) or self.any_short)

    def forget_pending(self, model: str | None = None) -> list[Ticket]:
        """Drop every job, of ``model`` or of all, that is not paid for; return them."""
        dropped: list[Ticket] = []
        for rows in (self.ready, self.short):
            for name, row in rows.items():
                if model in (None, name):
                    dropped += row.clear()
        gone = [entry for entry in self.later if model in (None, entry[2].job.model)]
        self.later = [entry for entry in self.later if model not in (None, entry[2].job.model)]
        heapq.heapify(self.later)
        return dropped + [ticket for _, _, ticket in gone]

    def remove(self, ticket: Ticket, *, untouched: bool = False) -> bool:
        """Take one unpaid job out; False if it is not here.

        ``untouched``: not one that was submitted before, whose money has to stay in sight.
        """
        for rows in (self.ready, self.short):
            row = rows.get(ticket.job.model)
            if row is not None and ticket in row:
                if untouched and ticket.record.used:
                    return False
                row.remove(ticket)
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
        not ``fit`` the budget yet makes its model wait, or is ``short`` where it does not fit that
        of its label or day alone; one that never will goes to ``unfit``.
        """
        paid = self.choose_paid(now)
        if isinstance(paid, Ticket):
            return paid
        if not room:
            return min(paid, now + NO_ROOM_S)
        while self.later and self.later[0][0] <= now:
            self.add([heapq.heappop(self.later)[2]], first=True)
        due = min(paid, self.later[0][0] if self.later else math.inf)
        if self._ranked:
            self._turn = deque(sorted(self._turn, key=self._rank))
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
            ticket = row.first
            verdict = fit(ticket)
            if verdict is Fit.LATER:
                return None
            row.remove(ticket)
            if verdict is Fit.NOW:
                return ticket
            if verdict is Fit.WAITS:
                self.short[model].add(ticket)
            else:
                self.unfit.append(ticket)
        return None

    def _rank(self, model: str) -> float:
        row = self.ready[model]
        return -row.top if row else math.inf

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
