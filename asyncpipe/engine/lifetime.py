"""When a pipeline lives: opened and closed in one task of its own, whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import anyio

from asyncpipe._tasks import seen_through, ungrouped
from asyncpipe.errors import AsyncpipeError, UsageError, own_copy

Enter = Callable[[AsyncExitStack], Awaitable[None]]
"""Opens what a pipeline owns; the stack takes it down again."""

CLOSED = "the pipeline was closed before the job ended; it is kept"


class Lifetime:
    """Enters what a pipeline owns in a task of its own, and leaves it there.

    So whoever opens, closes or uses it may be any task of its loop: no cancel scope is left by
    another task than the one that entered it. ``ended`` is called when it is over, with what it
    failed of, or None.
    """

    def __init__(self, ended: Callable[[AsyncpipeError], None]) -> None:
        self._ended = ended
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._entered = False
        self._failure: BaseException | None = None
        self._callers: set[anyio.CancelScope] = set()

    @property
    def is_open(self) -> bool:
        """Whether it is open and well, in whichever loop."""
        return self._entered and not self._leave.is_set() and self._failure is None

    @property
    def failure(self) -> BaseException | None:
        """What it failed of since it was opened last, or None."""
        return self._failure

    async def open(self, enter: Enter) -> None:
        """Open; cancelled, everything that was opened is closed again.

        Raises what ``enter`` raises, UsageError when it is open already.
        """
        self._check_loop()
        if self._task is not None and self._leave.is_set():
            await seen(self._task)  # it is being closed by others
        if self._task is not None and not self._task.done():
            raise UsageError("the pipeline is open already: one open() or `async with` for each")
        loop = asyncio.get_running_loop()
        self._loop, self._leave, self._failure = loop, asyncio.Event(), None
        opened: asyncio.Future[None] = loop.create_future()
        # The one task that stands in no group: it is what everything else stands in, and whoever
        # opens may be gone long before it is closed.
        task = self._task = loop.create_task(self._live(enter, opened), name="asyncpipe pipeline")
        task.add_done_callback(self._over)
        try:
            await asyncio.wait([task, opened], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._let_go(task)
            await seen(task)
            raise
        if not opened.done():
            self._raise_why(task)

    async def close(self) -> None:
        """Close, unless that is done; whoever comes meanwhile waits as well, cancelled or not.

        Raises what it failed of, a copy for each who waits.
        """
        task = self._task
        if task is None or task.done():
            return
        self._check_loop()
        self._let_go(task)
        await seen(task)
        if self._failure is not None:
            raise copied(self._failure)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Run the block of a caller, which is cut short when the pipeline fails or is closed.

        Raises UsageError at once where it is not open, or open in another loop.
        """
        self.check()
        with anyio.CancelScope() as scope:
            self._callers.add(scope)
            try:
                yield
            finally:
                self._callers.discard(scope)
        if scope.cancelled_caught:
            raise self._why()

    def check(self) -> None:
        """Raise what it failed of, or UsageError where it is not open, or not in this loop."""
        self._check_loop()
        if self._failure is not None:
            raise copied(self._failure)
        if not self.is_open:
            raise UsageError(
                "the pipeline is not open: use it inside `async with Pipeline(…)`, or between "
                "`await pipeline.open()` and `await pipeline.aclose()`"
            )

    def _check_loop(self) -> None:
        """Raise UsageError where it is open in another loop than the running one."""
        if self._task is None or self._loop is None or self._task.done():
            return
        if self._loop.is_closed():  # with it went all that was open
            self._task, self._entered = None, False
        elif self._loop is not asyncio._get_running_loop():  # None in a thread without one
            raise UsageError(
                "the pipeline is open in another event loop: await it there, from another thread "
                "by asyncio.run_coroutine_threadsafe(…, loop), or make one for each loop"
            )

    def _let_go(self, task: asyncio.Task[None]) -> None:
        """Have it closed; one that is still being opened is cancelled, once."""
        if not self._entered and not self._leave.is_set():
            task.cancel()
        self._leave.set()

    async def _live(self, enter: Enter, opened: asyncio.Future[None]) -> None:
        with ungrouped():
            async with AsyncExitStack() as stack:
                await enter(stack)
                self._entered = True
                opened.set_result(None)
                await self._leave.wait()

    def _over(self, task: asyncio.Task[None]) -> None:
        """Note how it ended; nobody waits in vain."""
        if not task.cancelled():
            self._failure = task.exception() if self._entered else None
        self._entered = False
        self._ended(self._why())
        for scope in self._callers:
            scope.cancel()

    def _why(self) -> AsyncpipeError:
        failure = self._failure
        if failure is None:
            return AsyncpipeError(CLOSED)
        if isinstance(failure, AsyncpipeError):
            return own_copy(failure)
        error = AsyncpipeError(f"the pipeline failed: {failure!r}")
        error.__cause__ = failure
        return error

    def _raise_why(self, task: asyncio.Task[None]) -> None:
        """Raise why it could not be opened."""
        if task.cancelled():
            raise AsyncpipeError("the pipeline was closed while it was being opened")
        task.result()


class HasLifetime(Protocol):
    """What lives by one."""

    @property
    def _life(self) -> Lifetime: ...


P = ParamSpec("P")

T = TypeVar("T")

S = TypeVar("S", bound=HasLifetime)


def while_open(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """A method that is for an open pipeline: see ``Lifetime.used``."""

    @wraps(method)
    async def call(self: S, /, *args: P.args, **named: P.kwargs) -> T:
        with self._life.used():
            return await method(self, *args, **named)

    return call


async def seen(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task, whatever is cancelled; then raise the cancellation that came."""
    if (cut := await seen_through(task)) is not None:
        raise cut


def copied(error: BaseException) -> BaseException:
    """What each who is told raises: a copy of its own."""
    return own_copy(error) if isinstance(error, AsyncpipeError) else error
