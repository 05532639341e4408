"""Trying again, and leaving: a few attempts, close within a limit, raise what users can catch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from asyncpipe.errors import AsyncpipeError, KeyRefused, ProviderError, Rejected, storable

T = TypeVar("T")

E = TypeVar("E", bound=Exception)


def backoff_s(
    failures: int, rng: Random, *, initial_s: float = 4.0, maximum_s: float = 60.0
) -> float:
    """Seconds to wait after the ``failures``-th refusal in a row: the article's 4, 8, 16 … capped.

    Drawn from the upper half of the interval, so that neither all come at once nor any at once.
    """
    exponent = min(max(failures, 1) - 1, 30)
    return min(initial_s * 2.0**exponent, maximum_s) * rng.uniform(0.5, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often something is tried in a row, and how long to wait between; times in seconds.

    Pauses double from ``initial_s`` up to ``maximum_s``, see ``backoff_s``. A wish of the other
    side (Retry-After) makes one longer, up to ``longest_wish_s`` (None: however long).
    """

    attempts: int
    initial_s: float
    maximum_s: float = 60.0
    longest_wish_s: float | None = None

    def pause_s(self, failures: int, rng: Random, wish_s: float | None = None) -> float | None:
        """Seconds until the next attempt after so many failures in a row; None: there is none."""
        if failures >= self.attempts:
            return None
        pause_s = backoff_s(failures, rng, initial_s=self.initial_s, maximum_s=self.maximum_s)
        wish_s = wish_s or 0.0
        if self.longest_wish_s is not None:
            wish_s = min(wish_s, self.longest_wish_s)
        return max(pause_s, wish_s)


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    retries: Retries,
    *,
    on: type[E] | tuple[type[E], ...],
    rng: Random | None = None,
    again: Callable[[E], bool] = lambda _: True,
    between: Callable[[E, int, float], Awaitable[float]] | None = None,
) -> T:
    """Return what ``attempt`` returns, trying again where it raises one of ``on``.

    An error is raised when ``again`` says that it would not help, or after too many in a row. Its
    ``retry_after_s``, if it has one, is the other side's wish. ``between`` is given each error that
    is tried again, how many there were in a row, and the pause, and returns the pause to make.
    """
    rng, failures = rng or Random(), 0
    while True:
        try:
            return await attempt()
        except on as exc:
            failures += 1
            pause_s = retries.pause_s(failures, rng, getattr(exc, "retry_after_s", None))
            if pause_s is None or not again(exc):
                raise
            if between is not None:
                pause_s = await between(exc, failures, pause_s)
        await asyncio.sleep(pause_s)


ONCE_MORE_S = 3.0
"""How soon is asked once more what one slip of a gateway may have refused, in seconds."""


async def once_more(ask: Callable[[], Awaitable[T]], *, pause_s: float = ONCE_MORE_S) -> T:
    """Return what ``ask`` returns; asked a second time, the last, where the key is refused."""
    try:
        return await ask()
    except ProviderError as exc:
        if not _refuses_the_key(exc):
            raise
    await asyncio.sleep(pause_s)
    return await ask()


def _refuses_the_key(error: ProviderError) -> bool:
    """Whether an answer may speak of the key; a 403 to one request for good is about that."""
    if isinstance(error, KeyRefused):
        return True
    return error.status in (401, 403) and not isinstance(error, Rejected)


@contextmanager
def provider_code(during: str, *, logger: logging.Logger, action: str) -> Iterator[None]:
    """Raise what a provider's own code fails with as a ProviderError: it is one job's affair.

    A cancellation that comes out of that code, and that nobody asked of us, is such a failure.
    """
    try:
        yield
    except ProviderError:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        text = f"the provider's code failed during {during}: it was cancelled from inside"
        raise ProviderError(text) from None
    except Exception as exc:
        logger.exception("%s failed", during, extra={"action": action})
        text = f"the provider's code failed during {during}: {_shown(exc)}"[:LONGEST_ERROR]
        raise ProviderError(text) from exc


LONGEST_ERROR = 300


def _shown(error: Exception) -> str:
    try:
        return storable(repr(error))
    except Exception:  # a bug in showing what a bug was
        return type(error).__name__


CLOSING_S = 30.0
"""Longest that closing one part may take."""


async def within(close: Callable[[], Awaitable[None]]) -> None:
    """Close a part, cancelled or not, within CLOSING_S."""
    with anyio.move_on_after(CLOSING_S, shield=True):
        await close()


@asynccontextmanager
async def tasks_apart(name: str) -> AsyncIterator[TaskGroup]:
    """A task group that lives in a task of its own; leaving cancels what runs in it.

    Never whoever leaves: its task may bear the mark of an asyncio.TaskGroup whose child failed
    (before Python 3.13 that stays), and anyio would take its own cancellation for a stranger's.
    """
    async with anyio.create_task_group() as outer:
        inner: TaskGroup = await outer.start(_hold, name=name)
        try:
            yield inner
        finally:
            inner.cancel_scope.cancel()


async def _hold(*, task_status: TaskStatus[TaskGroup]) -> None:
    async with anyio.create_task_group() as tasks:
        task_status.started(tasks)
        await anyio.sleep_forever()


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the one error of ours out of a task group's block as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = plain(group)
        if error is group:
            raise
        raise error from None


def plain(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error of ours in ``group``, or the group itself when there is another.

    Our own tasks fail for one reason (the ledger) many times over; callers get it once.
    """
    own, rest = group.split(AsyncpipeError)
    if own is None or rest is not None:
        return group
    error: BaseException = own
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def seen_through(answer: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until ``answer`` is there, whatever is cancelled; return the cancellation that came."""
    cut = None
    with anyio.CancelScope(shield=True):
        while not answer.done():
            try:
                await asyncio.wait([answer])
            except asyncio.CancelledError as exc:  # a native one: no shield holds it off
                cut = exc
    return cut
