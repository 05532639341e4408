"""What users run on where uvloop is installed: limits, faults and a resume, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from asyncpipe import AtlasCloud, Event, Job, JobRecord, JobState, Pipeline, Polling
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.pace import Pace
from asyncpipe.simulator import Faults, Simulator, SimulatorSettings

uvloop = pytest.importorskip("uvloop")

T = TypeVar("T")
MODEL = "black-forest-labs/flux-2-pro/text-to-image"
POLLING = Polling(initial_s=0.05, maximum_s=0.2)


def on_uvloop(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, 110))


def jobs(count: int) -> list[Job]:
    return [Job(name=f"杯 {n}", model=MODEL, prompt="a mug") for n in range(count)]


def test_a_turn_that_is_due_at_once_is_given() -> None:
    """Its handle is none of a timer there, and does not say when it is due."""

    async def main() -> int:
        gate = Gate(Pace(cap=5000.0), clock=asyncio.get_running_loop().time)
        await asyncio.gather(*(gate.poll_turn() for _ in range(200)))
        await asyncio.gather(*(gate.poll_turn() for _ in range(200)))
        return 400

    assert on_uvloop(main()) == 400


def test_limits_faults_and_a_resume(tmp_path: Path) -> None:
    """A calm API with limits of one's own; then 429s, faults, a run that is cut and goes on."""
    settings = SimulatorSettings(
        speed=50.0,
        body_bytes=2_000,
        requests_per_second=150.0,
        faults=Faults.parse("rate_limited=0.1,overloaded=0.05"),
    )

    async def main() -> None:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            limits = {"requests_per_second": 60.0}
            async with Pipeline(provider, tmp_path / "a", limits=limits, polling=POLLING) as calm:
                manifest = await calm.batch_generate(jobs(10))
            assert manifest.totals.successful == 10
            one_is_done = asyncio.Event()

            def hear(event: Event, record: JobRecord) -> None:
                if record.state is JobState.SUCCEEDED:
                    one_is_done.set()

            folder = tmp_path / "b"
            async with Pipeline(provider, folder, polling=POLLING, seed=1, on_event=hear) as cut:
                batch = asyncio.ensure_future(cut.batch_generate(jobs(40)))
                await one_is_done.wait()
                batch.cancel()
            async with Pipeline(provider, folder, polling=POLLING, seed=2) as again:
                manifest = await again.batch_generate(jobs(40))
            assert manifest.totals.successful == 40
            assert len(simulator.books.predictions()) == 50

    on_uvloop(main())
