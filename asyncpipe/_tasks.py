"""Leaving a scope: close within a time limit, raise what users can catch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.abc import TaskGroup, TaskStatus

from asyncpipe.errors import AsyncpipeError

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
