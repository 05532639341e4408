"""Jobs as a caller gives them: an iterable of either kind, read without holding up the loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextvars import copy_context
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from asyncpipe._tasks import within
from asyncpipe.errors import UsageError

logger = logging.getLogger("asyncpipe.engine")

T = TypeVar("T")

Found = TypeVar("Found")


class JobSource(Generic[T]):
    """One iterable, read to its end or closed before it; ``async with`` closes its generator.

    A synchronous one other than a list or tuple is read in a thread of its own, the same from
    first to last: it may take its time. Raises UsageError for what is no iterable of jobs.
    """

    def __init__(self, jobs: Iterable[T] | AsyncIterable[T]) -> None:
        told: object = jobs
        if isinstance(told, Mapping | str | bytes) or not isinstance(
            told, Iterable | AsyncIterable
        ):
            raise UsageError(
                f"jobs: a {type(told).__name__} is not several jobs: give a list of them, or "
                "whatever else `for` or `async for` goes through"
            )
        self._later: AsyncIterator[T] | None = None
        self._now: Iterator[T] | None = None
        self._jobs = jobs
        self._thread = None if isinstance(jobs, AsyncIterable | list | tuple) else _OneThread()
        self._context = copy_context()
        self._error: BaseException | None = None
        self._over = self._reading = False

    async def page(self, most: int) -> list[T]:
        """The next so many jobs; fewer at the end, then none. ``check`` says how it ended.

        None of a page in which the source raises.
        """
        values = await self._next(most, None)
        return [] if self._error is not None else values

    async def read(self, most: int, *, soon_s: float) -> list[T]:
        """The next jobs, at most so many; none at the end. Raises what the source raises.

        That comes after all that came before it. No more are waited for than one, nor read for
        longer than ``soon_s`` seconds.
        """
        values = await self._next(most, soon_s)
        if not values:
            self.check()
        return values

    def check(self) -> None:
        """Raise what the source raised."""
        if self._error is not None:
            raise self._error

    async def _next(self, most: int, soon_s: float | None) -> list[T]:
        if self._over:
            return []
        if isinstance(self._jobs, AsyncIterable):
            return await self._await(self._jobs, most if soon_s is None else 1)
        if self._thread is None:
            return self._take(self._jobs, most, None)
        return await self._in_thread(self._take, self._jobs, most, soon_s)

    async def _await(self, jobs: AsyncIterable[T], most: int) -> list[T]:
        values: list[T] = []
        try:
            self._later = self._later or aiter(jobs)
            while len(values) < most:
                values.append(await anext(self._later))
        except StopAsyncIteration:
            self._over = True
        except Exception as exc:
            self._over, self._error = True, exc
        return values

    def _take(self, jobs: Iterable[T], most: int, soon_s: float | None) -> list[T]:
        values: list[T] = []
        try:
            self._now = self._now or iter(jobs)
            if self._thread is None:
                values = list(islice(self._now, most))
                self._over = len(values) < most
                return values
            until = None if soon_s is None else time.monotonic() + soon_s
            while len(values) < most and not self._over:
                values.append(next(self._now))
                if until is not None and time.monotonic() >= until:
                    break
        except StopIteration:
            self._over = True
        except Exception as exc:
            self._over, self._error = True, exc
        return values

    async def _in_thread(self, call: Callable[..., Found], *args: Any) -> Found:
        assert self._thread is not None, "only such a source has one"
        loop = asyncio.get_running_loop()
        self._reading = True
        found: Found = await loop.run_in_executor(self._thread, self._context.run, call, *args)
        self._reading = False
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        if self._thread is None:
            await within(self._aclose)
        elif self._reading:  # it may never come back: nobody waits for it
            self._thread.submit(self._close)
            self._thread.shutdown()
        else:
            await within(self._close_in_thread)

    async def _close_in_thread(self) -> None:
        assert self._thread is not None, "only such a source has one"
        await self._in_thread(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        try:
            if (close := getattr(self._now, "close", None)) is not None:
                close()
        except Exception:
            logger.exception("the source of jobs failed when closed", extra=_FAILED)

    async def _aclose(self) -> None:
        try:
            if (aclose := getattr(self._later, "aclose", None)) is not None:
                await aclose()
            self._close()
        except Exception:
            logger.exception("the source of jobs failed when closed", extra=_FAILED)


_FAILED = {"action": "source.failed"}


class _OneThread(Executor):
    """One thread that waits for calls, begun by the first; a process may end while it works."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._begun = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Have the thread call ``fn`` after what it was told before."""
        future: Future[Any] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **named))
            except BaseException as exc:
                future.set_exception(exc)

        self._calls.put(call)
        if not self._begun:
            self._begun = True
            Thread(target=self._run, name="asyncpipe source", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end, once it has done what it was told; nobody waits for it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
