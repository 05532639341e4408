"""One job in the hands of a program: wait for it, follow it, look at it, take it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from asyncpipe.engine.engine import Engine
from asyncpipe.engine.lifetime import Lifetime, while_open
from asyncpipe.engine.tickets import Ticket
from asyncpipe.engine.watch import JobUpdate, Watch, update_of
from asyncpipe.errors import UsageError, own_copy
from asyncpipe.jobs import ENDED, JobRecord, JobState
from asyncpipe.ledger import Located
from asyncpipe.report import Result, ask_result


class Home(Protocol):
    """The pipeline that a handle is of."""

    _life: Lifetime

    def _parts(self, *, ever: bool = False) -> Engine: ...


@dataclass(frozen=True, slots=True)
class Handle:
    """One job that a pipeline accepted, for as long as its folder is there.

    It costs nothing to keep and nothing to drop: the job goes on without it, and
    ``pipeline.get(key=handle.key)`` makes another, in another process, too. Every method raises
    UsageError while the pipeline is not open, and what the pipeline has failed of.
    """

    name: str
    key: str
    _id: int = field(repr=False)
    _home: Home = field(repr=False, compare=False)

    @property
    def _life(self) -> Lifetime:
        return self._home._life

    async def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for the job's end and return its result, as ``generate`` does.

        One that expired is such a result, too: it is looked after, and may be waited for again.
        Raises TimeoutError after ``timeout_s`` seconds (None: never), and what stopped submitting
        before it was submitted; in either case, and cancelled, the job is kept and goes on when it
        can.
        """
        async with asyncio.timeout(timeout_s):
            await self._end()
            return await self.status()

    @while_open
    async def status(self) -> Result:
        """The job's result as it stands: ``state`` says how far it is."""
        engine = self._home._parts()
        return await ask_result(engine.ledger, self._id, engine.where)

    async def events(self) -> AsyncGenerator[JobUpdate, None]:
        """Follow the job: where it stands first, then what happens from now on, until it ends.

        Whoever comes too late for more than 256 updates misses the oldest. Leaving concerns nobody
        else.
        """
        self._life.check()
        watches = self._home._parts().watches
        watch = watches.open(self._id)
        try:
            record = await self._record()
            yield update_of(record)
            if self._is_over(record):
                return
            while (told := await self._next(watch)) is not None:
                update, version = told
                if version > record.version:  # not one that the first has seen already
                    yield update
        finally:
            watches.close(self._id, watch)

    @while_open
    async def cancel(self) -> bool:
        """Take the job back: True when it is withdrawn, for all who wait for it; nothing is paid.

        False: it was sent before, or others carry it, so it goes on; or it has ended.
        """
        engine = self._home._parts()
        ticket = engine.tickets.get(self._id)
        if ticket is None:
            record = (await self._located()).record
            if record.state is not JobState.PENDING or engine.sharing is not None:
                return False
            ticket = engine.admission.offer(record)
        withdrawn = engine.withdraw(ticket)
        await engine.ledger.durable()
        return withdrawn

    @while_open
    async def _end(self) -> None:
        """Wait until the job has ended, or is let go of."""
        engine = self._home._parts()
        ticket = engine.tickets.get(self._id)
        if ticket is None:
            found = await self._located()
            ticket = engine.tickets.get(self._id) or self._taken_up(found)
            if ticket is None:
                if found.record.state is JobState.PENDING:
                    await self._changed(found.record)
                return
        caller = ticket.wait()
        try:
            await caller
        finally:
            ticket.leave(caller)

    def _taken_up(self, found: Located) -> Ticket | None:
        """Have a job carried that nobody has in memory, if it may be; raises what stops it."""
        engine, record = self._home._parts(), found.record
        if record.state in ENDED:
            return None
        if engine.sharing is not None:  # whoever has it; we, if nobody does
            return engine.sharing.wait_for(record)
        if record.state is not JobState.PENDING:
            return None
        if (reason := engine.stops.of(record)) is not None:
            raise own_copy(reason)
        return engine.accept(record) if found.alone else None

    async def _changed(self, record: JobRecord) -> None:
        """Wait for the end of a batch's job that is not at hand yet."""
        watches = self._home._parts().watches
        watch = watches.open(record.id)
        try:
            while await watch.next() is not None:
                pass
        finally:
            watches.close(record.id, watch)

    @while_open
    async def _next(self, watch: Watch) -> tuple[JobUpdate, int] | None:
        return await watch.next()

    @while_open
    async def _record(self) -> JobRecord:
        ticket = self._home._parts().tickets.get(self._id)
        return ticket.record if ticket is not None else (await self._located()).record

    def _is_over(self, record: JobRecord) -> bool:
        """Whether nothing more will happen to a job."""
        searched = record.state is JobState.UNKNOWN and record.id in self._home._parts().tickets
        return record.state in ENDED and not searched

    async def _located(self) -> Located:
        found = await self._home._parts().ledger.find("id", self._id)
        if found is None:
            raise UsageError(f"this ledger has no job {self.name}: the handle is of another folder")
        return found
