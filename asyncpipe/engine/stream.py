"""The jobs one stream has read ahead, and their results as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from asyncpipe.engine.source import JobSource
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import ProviderError, UsageError
from asyncpipe.jobs import JobRecord

T = TypeVar("T")

Admit = Callable[[T], Awaitable[Ticket | JobRecord]]
"""Takes a job in; returns its ticket, or its record if it has ended."""


SOON_S = 0.02
"""So long a source is read before what it gave is taken in."""

MOST_READ = 64
"""Jobs that are read at once."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """An item that was not taken in, and why: it is no job, or has no price."""

    item: object
    error: UsageError


class ResultStream:
    """Between the coroutine that reads a stream's jobs and the one that awaits its results.

    At most ``limit`` jobs are read and not yet handed out.
    """

    def __init__(
        self, limit: int, leave: Callable[[Ticket, asyncio.Future[JobRecord]], None]
    ) -> None:
        self._leave, self._closed = leave, False
        self.scope = anyio.CancelScope()  # of the coroutine that reads
        self._room = anyio.Semaphore(limit)
        self._open: dict[asyncio.Future[JobRecord], Ticket] = {}
        self._taken = 0
        self._ended: deque[JobRecord | NotTaken] = deque()
        self._failure: BaseException | None = None
        self._news = anyio.Event()
        self._fed = False

    async def feed(self, jobs: Iterable[T] | AsyncIterable[T], admit: Admit[T]) -> None:
        """Admit jobs as there is room; what goes wrong reaches whoever awaits the results."""
        try:
            with self.scope:
                async with JobSource(jobs) as source:
                    # Room before reading: what is read is within the limit.
                    while values := await source.read(await self._places(), soon_s=SOON_S):
                        self._give_back(len(values))
                        for job in values:
                            await self._admit(job, admit)
        except Exception as exc:  # raised again where the results are awaited
            self._fail(exc)
        finally:
            self._fed = True
            self._news.set()

    async def _places(self) -> int:
        """Take room for the next jobs: one at least, which may have to be waited for."""
        await self._room.acquire()
        self._taken = 1
        while self._taken < MOST_READ and self._room.value:
            self._room.acquire_nowait()
            self._taken += 1
        return self._taken

    def _give_back(self, used: int) -> None:
        for _ in range(self._taken - used):
            self._room.release()

    async def _admit(self, job: T, admit: Admit[T]) -> None:
        try:
            found = await admit(job)
        except UsageError as exc:
            if isinstance(exc, ProviderError):  # the way to the API: no job is at fault
                raise
            self._put(NotTaken(job, exc))
            return
        self.watch(found)
        if self._closed:  # it was taken in under a shield: nobody waits for it
            self._leave_open()

    def watch(self, found: Ticket | JobRecord) -> None:
        """Hand a job out when it ends; a record has ended already."""
        if isinstance(found, JobRecord):
            self._put(found)
        else:
            future = found.wait()
            self._open[future] = found
            future.add_done_callback(self._done)

    async def next(self) -> JobRecord | NotTaken | None:
        """Wait for the next job that ended, or was refused; None when there is no other.

        Raises what ended the reading, or a job before it was submitted, after all that is under
        way: who pays is told of it first.
        """
        while not self._ended:
            if self._fed and not self._open:
                if self._failure is not None:
                    raise self._failure
                return None
            self._news = anyio.Event()
            await self._news.wait()
        self._room.release()
        return self._ended.popleft()

    def _fail(self, error: BaseException) -> None:
        """Read no more; the first error counts."""
        self._failure = self._failure or error
        self.scope.cancel()

    def close(self) -> None:
        """Stop reading and waiting; ``leave`` hears of the jobs that have not ended."""
        self._closed = True
        self.scope.cancel()
        self._leave_open()

    def _leave_open(self) -> None:
        left = dict(self._open)
        self._open.clear()
        for future in left:
            future.cancel()
        for future, ticket in left.items():
            self._leave(ticket, future)

    def _done(self, future: asyncio.Future[JobRecord]) -> None:
        if self._open.pop(future, None) is None:
            return  # closed: nobody waits any more
        if (error := future.exception()) is not None:
            self._fail(error)
            self._news.set()
        else:
            self._put(future.result())

    def _put(self, ended: JobRecord | NotTaken) -> None:
        self._ended.append(ended)
        self._news.set()
