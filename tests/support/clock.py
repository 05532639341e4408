"""One clock for an engine and a simulator: wall time goes with the time of a virtual loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, tzinfo
from typing import Any, TypeVar

from asyncpipe.testing import VirtualTimeLoop

T = TypeVar("T")


class Clock:
    """Stands still but for virtual loops, of which each begins when the one before it ended."""

    def __init__(self) -> None:
        self._wall = time.time()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` like ``asyncio.run``, in virtual time."""
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            self._loop = runner.get_loop()
            try:
                return runner.run(main)
            finally:
                self._wall, self._loop = self.time(), None

    def set_noon(self) -> None:
        """Begin at noon, in UTC: no test should end on another day by chance."""
        self._wall -= self._wall % 86_400 - 43_200

    def time(self) -> float:
        """As ``time.time``."""
        return self._wall + (self._loop.time() if self._loop else 0.0)

    def now(self, zone: tzinfo) -> datetime:
        """As ``datetime.now``."""
        return datetime.fromtimestamp(self.time(), zone)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what no event tells; the test's own limit ends it."""
    while not true():  # noqa: ASYNC110 - nobody would set the event
        await asyncio.sleep(0.01)
