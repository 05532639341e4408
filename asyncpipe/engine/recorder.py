"""What happens, made to count: folded, written down, reckoned with, passed on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from asyncpipe.engine.hooks import Hooks
from asyncpipe.engine.tickets import StopReasons, Ticket
from asyncpipe.engine.watch import Watches
from asyncpipe.errors import ClaimLost
from asyncpipe.jobs import Event, Intended, JobRecord, fold
from asyncpipe.ledger import Ledger, NotReserved, SharedLedger
from asyncpipe.pricing import Budget
from asyncpipe.report import ABOUT_S, MANIFEST_EVERY_S, Totals, manifest_due_s


class Recorder:
    """Makes every event count, at once and in the order in which things happen.

    Synchronous: no cancellation comes between what happened and its record. Hooks hear of it right
    after the tick of the loop. A charge above its reservation that uses the budget up stops
    submitting.
    """

    def __init__(
        self,
        ledger: Ledger,
        totals: Totals,
        budget: Budget,
        stops: StopReasons,
        *,
        hooks: Hooks,
        watches: Watches,
        shared: SharedLedger | None = None,
    ) -> None:
        self.totals = totals
        self._shared = shared
        self._ledger, self._budget, self._stops = ledger, budget, stops
        self._hooks, self._watches = hooks, watches
        self._changed = asyncio.Event()

    def record(self, ticket: Ticket, event: Event) -> None:
        """Record an event of a job in memory.

        Raises ClaimLost for one that another worker has; what is found out of it is kept for that.
        """
        if ticket.gone:
            ticket.record = fold(ticket.record, event)
            if event.stored and self._shared is not None:
                self._shared.keep_facts(ticket.record)
            raise ClaimLost(f"another worker has {ticket.record.name}")
        ticket.record = self.append(ticket.record, event, held=True)

    async def reserve(self, ticket: Ticket, intent: Intended) -> NotReserved | None:
        """Record an intent, durably; or say why not: then nothing has changed.

        Cancelled, it may be recorded.
        """
        before, after = ticket.record, fold(ticket.record, intent)
        try:
            refusal = await self._ledger.reserve(after)
        except BaseException:
            self._take(ticket, before, after, intent)
            raise
        if refusal is None:
            self._take(ticket, before, after, intent)
        return refusal

    def _take(self, ticket: Ticket, before: JobRecord, after: JobRecord, event: Event) -> None:
        ticket.record = after
        self._changed.set()
        self._count(before, after, event)

    def append(self, record: JobRecord, event: Event, *, held: bool = False) -> JobRecord:
        """Record an event of any job; return the job as it stands after it.

        ``held``: it is one that we hold, were others to share the ledger.
        """
        after = fold(record, event)
        if event.stored:
            self._ledger.append(after, held=held)
            self._changed.set()
        self._count(record, after, event)
        return after

    def _count(self, record: JobRecord, after: JobRecord, event: Event) -> None:
        """Reckon with what has become of a job, and pass it on."""
        overran = after.attempt.overrun > record.attempt.overrun
        exceeded = overran and self._budget.exceeded
        self.totals.fold(record, after)
        self._budget.purses.fold(record, after)
        self._watches.hear(event, after)
        if self._hooks:
            self._hooks.hear(event, after)
        if overran and self._budget.exceeded and not exceeded:
            self._stops.note(self._budget.excess())

    def trace_of(self, record: JobRecord) -> str | None:
        """The context of the span that a job is about to be submitted in, if anybody traces."""
        return self._hooks.trace_of(record)

    def tell(self) -> None:
        """Let sync hooks hear of everything recorded so far."""
        self._hooks.tell()

    async def keep_manifest(self, write: Callable[[], Awaitable[object]]) -> None:
        """Write the manifest for ever when it is old: every max(10 s, 50 x its own duration).

        That is measured by a real clock: in virtual time writing takes none, and a long test would
        spend its life writing.
        """
        clock = asyncio.get_running_loop().time
        took_s = 0.0
        while True:
            await self._changed.wait()
            began, left_s = clock(), MANIFEST_EVERY_S
            while left_s > ABOUT_S:
                await asyncio.sleep(left_s)
                rows = self.totals.total - self.totals.pending
                left_s = began + manifest_due_s(rows, took_s) - clock()
            self._changed.clear()
            started = time.perf_counter()
            await write()
            took_s = time.perf_counter() - started
