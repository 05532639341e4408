"""The simulator in a thread of its own: for tests on any loop, or on none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Polling
from asyncpipe.providers import Provider, connect

if TYPE_CHECKING:
    from asyncpipe.simulator import BookedPrediction, Simulator, SimulatorSettings

T = TypeVar("T")

FAST = 500.0
"""How much faster the time of a simulator for tests runs."""


class RunningSimulator:
    """A simulator that serves on loopback, from a thread; ask it what it sold.

    ``base_url`` is where, ``polling`` how often its predictions are to be asked for: as much
    oftener as its time is faster.
    """

    def __init__(self, simulator: Simulator, settings: SimulatorSettings) -> None:
        self.base_url: str = simulator.base_url
        self.profile: str = settings.profile
        self.polling: Polling = Polling(speed=settings.speed)
        self._simulator = simulator
        self._loop = asyncio.get_running_loop()

    def provider(self) -> Provider:
        """A new provider of its kind that asks it; for one loop."""
        return connect(self.profile, base_url=self.base_url, simulated=True)

    def predictions(self) -> list[BookedPrediction]:
        """Everything sold, in order."""
        return self._ask(self._simulator.books.predictions)

    def charged(self) -> Decimal:
        """USD charged and not returned."""
        return self._ask(self._simulator.books.charged)

    def summary(self) -> dict[str, Any]:
        """Its books in figures: predictions, submits, polls, downloads, uploads."""
        return self._ask(self._simulator.books.summary)

    def _ask(self, question: Callable[[], T]) -> T:
        async def answer() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result()


@contextmanager
def running_simulator(*, faults: str = "", **settings: Any) -> Iterator[RunningSimulator]:
    """Run a simulator in a thread while the block runs.

    ``faults`` are written as for ``--simulate-faults``, ``settings`` those of SimulatorSettings:
    ``profile``, ``seed`` and so on; its time runs FAST times as fast unless they say otherwise.
    Raises UsageError for what cannot be.
    """
    try:
        from asyncpipe.simulator import Faults, Simulator, SimulatorSettings
    except ImportError as exc:
        raise UsageError(
            f"the simulator draws with a package that is missing ({exc.name}): "
            "pip install 'asyncpipe[simulator]'"
        ) from None
    told = SimulatorSettings(**{"speed": FAST, "faults": Faults.parse(faults), **settings})
    running: list[RunningSimulator] = []
    failed: list[BaseException] = []
    ready, over = Event(), asyncio.Event()

    async def serve() -> None:
        async with Simulator(told) as simulator:
            running.append(RunningSimulator(simulator, told))
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            failed.append(exc)
        finally:
            ready.set()

    thread = Thread(target=run, name="asyncpipe simulator")
    thread.start()
    ready.wait()
    if not running:
        thread.join()
        raise failed[0] if failed else UsageError("the simulator did not start")
    try:
        yield running[0]
    finally:
        running[0]._loop.call_soon_threadsafe(over.set)
        thread.join()
