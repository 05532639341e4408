"""The simulator in a process of its own, with bodies of a fixed size; prints its base URL."""

from __future__ import annotations

import asyncio
import sys

from asyncpipe.simulator import Simulator, SimulatorSettings


async def serve(size: int) -> None:
    """Serve until the process is ended."""
    settings = SimulatorSettings(generation_s=(0.0, 0.0), body_bytes=size)
    async with Simulator(settings) as simulator:
        print(simulator.base_url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
