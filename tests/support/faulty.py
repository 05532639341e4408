"""A run over real sockets whose simulator is at fault in one way or another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from asyncpipe import AtlasCloud, Job, Manifest, Polling
from asyncpipe.http.client import Timeouts
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.pipelines import a_pipeline

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def run_faulty(
    tmp_path: Path, count: int = 3, **faults: float
) -> tuple[Manifest, Exception | None, Books]:
    settings = SimulatorSettings(
        speed=500, faults=Faults(**faults), books=tmp_path / "books", body_bytes=5000
    )
    jobs = [Job(name=f"杯 {n}", model=FLUX, prompt=f"mug {n}") for n in range(count)]

    async def main() -> tuple[Manifest, Exception | None, Books]:
        async with Simulator(settings) as simulator:
            timeouts = Timeouts(submit_s=1.0)
            provider = AtlasCloud(
                "any", base_url=simulator.base_url, timeouts=timeouts, simulated=True
            )
            options: dict[str, Any] = {"polling": Polling(initial_s=0.02, maximum_s=0.1)}
            async with a_pipeline(provider, tmp_path / "out", max_workers=1, **options) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
                return manifest, pipeline.stopped, Books(tmp_path / "books")

    return asyncio.run(main())
