"""Where a job goes that a driver has put down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from asyncpipe.engine.admission import Admission
from asyncpipe.engine.submit import Driver
from asyncpipe.engine.tickets import Stops, Waiters
from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs import JobRecord, JobState


class Settling:
    """Take jobs from admission, have them carried, and decide what follows.

    ``adopted`` are paid jobs of earlier runs that nobody named in this one: they are brought home,
    and what fails of them is not bought anew. ``alone`` are jobs that are callers' and no batch's,
    as long as admission holds them.
    """

    def __init__(
        self, admission: Admission, driver: Driver, stops: Stops, waiters: Waiters
    ) -> None:
        self._admission, self._driver = admission, driver
        self._stops, self._waiters = stops, waiters
        self._looked_again: set[int] = set()
        self.adopted: set[int] = set()
        self.alone: set[int] = set()

    async def drive(self, receive: AsyncIterable[JobRecord]) -> None:
        """Carry jobs for ever, one at a time."""
        async for record in receive:
            if self._stops.of(record) or self._uncovered(record):
                self._admission.put_back(record)
                self._settle(record)
            else:
                self._settle(await self._driver.carry(record))
            self._admission.put_down()

    def _uncovered(self, record: JobRecord) -> bool:
        """Whether the money held for a job is gone: another one cost more than it reserved."""
        return record.state is JobState.PENDING and not self._admission.budget.covers_holds

    def _settle(self, record: JobRecord) -> None:
        stopped = self._stops.of(record)
        if record.state is JobState.PENDING and not stopped and record.id not in self.adopted:
            self._admission.give_back(record, self._driver.next_attempt_at(record))
        elif self._looks_again(record):
            self._looked_again.add(record.id)
            self._admission.last_look(record)
        else:
            self._looked_again.discard(record.id)
            self.alone.discard(record.id)
            self._admission.let_go(record)
            self._waiters.tell(record.id, stopped or record)

    def _looks_again(self, record: JobRecord) -> bool:
        """Whether an expired job gets one more poll before its run ends.

        Not a caller's, whether it still waits or not: callers' jobs belong to no run, and in a
        service that is never idle an end to wait for may not come.
        """
        callers = record.id in self._waiters or record.id in self.alone
        expired = record.state is JobState.EXPIRED and not callers
        return expired and record.id not in self._looked_again

    def name(self, ids: set[int]) -> None:
        """Note that a batch wants jobs: whatever they were, they are its own now."""
        self.adopted -= ids
        self.alone -= ids

    def withdraw(self, record: JobRecord, waiter: asyncio.Future[JobRecord]) -> JobRecord | None:
        """Take back the job of a caller that left, unless somebody wants it or a driver has it."""
        self._waiters.leave(record.id, waiter)
        wanted = self._waiters.anybody(record.id) or record.id not in self.alone
        found = None if wanted else self._admission.withdraw(record.id)
        if found is not None:
            self.alone.discard(found.id)
        return found

    def leave_out(self, record: JobRecord, reason: AsyncpipeError) -> None:
        """Leave a job pending that does not fit the budget, and say so."""
        self._stops.remark(reason)
        self.alone.discard(record.id)
        self._waiters.tell(record.id, reason)

    def stop(self, reason: AsyncpipeError, model: str | None) -> None:
        """Let go of all unpaid jobs, or those of ``model``: they stay pending in the ledger."""
        self._admission.drop_pending(model)
        self.alone = {job_id for job_id in self.alone if self._admission.holds(job_id)}
        self._waiters.fail(reason, those=lambda job_id: not self._admission.holds(job_id))
