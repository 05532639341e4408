"""The jobs one stream has read ahead, and their results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from asyncpipe.engine.tickets import Ticket
from asyncpipe.jobs import JobRecord

T = TypeVar("T")

Admit = Callable[[T], Awaitable[Ticket | JobRecord]]
"""Takes a job in; returns its ticket, or its record if it has ended."""


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
        self._ended: list[JobRecord | BaseException] = []
        self._news = anyio.Event()
        self._fed = False

    async def feed(self, jobs: Iterable[T] | AsyncIterable[T], admit: Admit[T]) -> None:
        """Admit jobs as there is room; what goes wrong reaches whoever awaits the results."""
        with self.scope:
            try:
                source = each(jobs)
                while True:
                    await self._room.acquire()  # before reading: what is read is within the limit
                    try:
                        job = await anext(source)
                    except StopAsyncIteration:
                        break
                    self.watch(await admit(job))
                    if self._closed:  # it was taken in under a shield: nobody waits for it
                        self._leave_open()
                self.feed_ended(None)
            except Exception as exc:  # raised again where the results are awaited
                self.feed_ended(exc)

    def watch(self, found: Ticket | JobRecord) -> None:
        """Hand a job out when it ends; a record has ended already."""
        if isinstance(found, JobRecord):
            self._put(found)
        else:
            future = found.wait()
            self._open[future] = found
            future.add_done_callback(self._done)

    def feed_ended(self, error: BaseException | None) -> None:
        """Note that no more jobs come, because of ``error`` if there is one."""
        self._fed = True
        if error is not None:
            self._ended.append(error)
        self._news.set()

    async def next(self) -> JobRecord | None:
        """Wait for the next job that ended; None when there is no other.

        Raises what ended the reading, after the jobs that ended before it.
        """
        while not self._ended:
            if self._fed and not self._open:
                return None
            self._news = anyio.Event()
            await self._news.wait()
        ended = self._ended.pop(0)
        if isinstance(ended, BaseException):
            raise ended
        self._room.release()
        return ended

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
        self._put(future.exception() or future.result())

    def _put(self, ended: JobRecord | BaseException) -> None:
        self._ended.append(ended)
        self._news.set()


async def each(jobs: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Iterate over either kind of iterable."""
    if isinstance(jobs, AsyncIterable):
        async for job in jobs:
            yield job
    else:
        for job in jobs:
            yield job
