"""Virtual time: a loop whose clock jumps to the next timer as soon as everybody waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import wraps
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")

P = ParamSpec("P")

GRACE_S = 0.002
"""How long sockets get to answer before time jumps, in real seconds."""

STUCK_S = 10.0
"""After how many real seconds without any timer or answer a virtual loop gives up."""


class _VirtualSelector(selectors.DefaultSelector):
    """Waits in virtual time, unless a thread works: then it really waits for the thread."""

    now = 0.0
    holds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            return super().select(0)
        if self.holds:
            return super().select(STUCK_S)
        sockets = len(self.get_map()) > 1  # one is the loop's own
        ready = super().select(GRACE_S if sockets else 0)
        if ready:
            return ready
        if timeout is None:
            ready = super().select(STUCK_S)
            if not ready:
                raise RuntimeError("every coroutine waits and nothing will wake any of them")
            return ready
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as everybody waits.

    It stands still while a thread of an executor works, so that a file or ledger write takes no
    time at all instead of hours. Sleeping an hour takes no time; loopback sockets work.
    """

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Hold the clock until ``func`` has returned."""
        self._virtual.holds += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._release)
        return future

    def _release(self, _: asyncio.Future[Any]) -> None:
        self._virtual.holds -= 1


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an ``async def`` test one that pytest runs by itself, in virtual time.

    Whichever plugin for async tests there is has no part in it.
    """

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` like ``asyncio.run``, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
