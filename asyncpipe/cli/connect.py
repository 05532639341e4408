"""The provider of a command: Atlas Cloud, or the embedded simulator with a folder's own books."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from asyncpipe.jobs.job import JobType
from asyncpipe.jobs.settings import Deadlines, Polling
from asyncpipe.ledger.folder import STATE_FOLDER, make_folders
from asyncpipe.providers.atlas.client import AtlasCloud

SPEED = 20.0
"""How much faster the simulator's time runs unless told otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """How the embedded simulator behaves; its time runs ``speed`` times as fast.

    ``catalog`` is ``article`` or ``live``.
    """

    speed: float = SPEED
    faults: str = ""
    catalog: str = "article"

    def polling(self, polling: Polling) -> Polling:
        """Poll as much more often."""
        return replace(polling, speed=self.speed)

    def deadlines(self, deadlines: Deadlines) -> Deadlines:
        """Give up as much sooner."""
        return Deadlines(**{k.value: deadlines.of(k) / self.speed for k in JobType})


async def connect(
    stack: AsyncExitStack, folder: Path | None, *, base_url: str | None, simulated: Simulated | None
) -> AtlasCloud:
    """Make the provider; ``stack`` closes the simulator, which without a folder keeps no books."""
    if simulated is None:
        return AtlasCloud(base_url=base_url)
    from asyncpipe.simulator.faults import Faults
    from asyncpipe.simulator.server import Simulator
    from asyncpipe.simulator.settings import SimulatorSettings

    if folder is not None:
        make_folders(folder, [STATE_FOLDER])
    settings = SimulatorSettings(
        speed=simulated.speed,
        faults=Faults.parse(simulated.faults),
        catalog=simulated.catalog,
        books=folder / STATE_FOLDER / "simulator.sqlite3" if folder else None,
    )
    simulator = await stack.enter_async_context(Simulator(settings))
    return AtlasCloud("simulated", base_url=simulator.base_url, simulated=True)


def prepare_process() -> None:
    """Look for cyclic garbage less often: a process that only runs jobs makes next to none.

    What is loaded by now is never looked at again. Saves a tenth of a run's CPU time; that is why
    it is done for the command line's own process, and left to a library's user.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
