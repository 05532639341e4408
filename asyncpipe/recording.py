"""What happens, made to count: folded, written down, reckoned with, passed on."""

from __future__ import annotations

from collections.abc import Callable

from asyncpipe.collector import Collector
from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs.events import Event
from asyncpipe.jobs.record import MOVES_MONEY, JobRecord, fold
from asyncpipe.ledger.database import Ledger
from asyncpipe.pricing.budget import Budget


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
