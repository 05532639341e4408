"""What happens, made to count: folded, written down, reckoned with, passed on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs import MOVES_MONEY, Event, JobRecord, fold
from asyncpipe.ledger import Ledger
from asyncpipe.pricing import Budget
from asyncpipe.report import ABOUT_S, MANIFEST_EVERY_S, Totals, manifest_due_s


class Recording:
    """Call it with a job and an event; it returns the job as it stands after it.

    Synchronous: no cancellation comes between what happened and its record. ``stop`` is called
    when a charge above its reservation has used the budget up.
    """

    def __init__(
        self,
        ledger: Ledger,
        collector: Collector,
        budget: Budget,
        stop: Callable[[AsyncpipeError], None],
    ) -> None:
        self._ledger, self._collector = ledger, collector
        self._budget, self._stop = budget, stop

    def __call__(self, record: JobRecord, event: Event) -> JobRecord:
        """Record ``event`` of ``record``."""
        after = fold(record, event)
        overran = after.overrun > record.overrun
        exceeded = overran and self._budget.exceeded
        if record.state is not after.state or type(event) in MOVES_MONEY:
            self._budget.move(
                committed=after.committed - record.committed,
                releasable=after.releasable - record.releasable,
            )
        if event.stored:
            self._ledger.append(event)
        self._collector.receive(record, event, after)
        if overran and self._budget.exceeded and not exceeded:
            self._stop(self._budget.excess())
        return after


logger = logging.getLogger("asyncpipe.collector")

Hook = Callable[[Event, JobRecord], None]
"""Called once for every event, with the job as it stands after it; must not block."""


class Collector:
    """Receive every event, fold it, pass it on, and write the manifest now and then.

    ``receive`` is synchronous; what came in one tick of the loop is folded together right after
    it, ``run`` writes manifests in its own coroutine: neither a slow hook nor a large manifest
    holds a job up. A hook that raises is logged and called again.
    """

    def __init__(
        self,
        totals: Totals,
        write_manifest: Callable[[], Awaitable[object]],
        hooks: tuple[Hook, ...],
    ) -> None:
        self.totals = totals
        self._write = write_manifest
        self._hooks = hooks
        self._received: deque[tuple[JobRecord, Event, JobRecord]] = deque()
        self._changed = asyncio.Event()

    def receive(self, before: JobRecord, event: Event, after: JobRecord) -> None:
        """Take one event; called in the order things happened."""
        if not self._received:
            # Not a coroutine that is woken: that costs more than all the folding.
            asyncio.get_running_loop().call_soon(self.drain)
        self._received.append((before, event, after))

    def drain(self) -> None:
        """Fold everything received so far."""
        if any(event.stored for _, event, _ in self._received):
            self._changed.set()
        while self._received:
            before, event, after = self._received.popleft()
            self.totals.fold(before, event, after)
            for hook in self._hooks:
                try:
                    hook(event, after)
                except Exception:  # a user's hook must not stop paid work
                    logger.exception("hook failed", extra={"action": "hook.failed"})

    async def run(self) -> None:
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
                self.drain()
                rows = self.totals.total - self.totals.pending
                left_s = began + manifest_due_s(rows, took_s) - clock()
            self._changed.clear()
            started = time.perf_counter()
            await self._write()
            took_s = time.perf_counter() - started
