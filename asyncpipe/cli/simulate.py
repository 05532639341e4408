"""``asyncpipe simulate``: the simulator as a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import click

from asyncpipe.simulator import Faults, Simulator, SimulatorSettings


def serve(
    *,
    host: str,
    port: int,
    speed: float,
    seed: int,
    wire: str,
    faults: str,
    books: Path | None,
) -> None:
    """Serve until interrupted."""
    settings = SimulatorSettings(
        host=host,
        port=port,
        speed=speed,
        seed=seed,
        wire=wire,
        faults=Faults.parse(faults),
        books=books,
    )
    asyncio.run(_serve(settings))


async def _serve(settings: SimulatorSettings) -> None:
    async with Simulator(settings) as simulator:
        click.echo(f"simulator at {simulator.base_url} (any key will do); Ctrl-C ends it")
        click.echo(f"  asyncpipe run JOBFILE --base-url {simulator.base_url}")
        await anyio.sleep_forever()
