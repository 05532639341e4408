"""Never more than ``max_workers`` predictions in flight; a 429 costs no job and no attempt."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, Pipeline, Polling
from asyncpipe.errors import NotSent, ProviderError, RateLimited
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script
from tests.support.batches import jobs, run_batch

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


@pytest.mark.parametrize("max_workers", [1, 3, 7])
def test_never_more_in_flight_than_max_workers(tmp_path: Path, max_workers: int) -> None:
    """The provider itself never works on more, and the limit is reached."""
    provider = FakeProvider(default=Script(submit_s=0.5))
    run_batch(tmp_path, provider, jobs(20), max_workers=max_workers)
    assert provider.peak_in_flight == max_workers


@pytest.mark.parametrize(
    "refusal",
    [RateLimited("429"), NotSent("no route"), RateLimited("429", retry_after_s=77.0)],
    ids=["429", "connect", "retry-after"],
)
def test_refusals_wait_and_use_up_no_attempt(tmp_path: Path, refusal: ProviderError) -> None:
    """Five refusals in a row are more than ``retries``, and the job still succeeds, paid once."""
    provider = FakeProvider(default=Script(submits=[refusal] * 5))
    manifest, results, _ = run_batch(tmp_path, provider, jobs(4), retries=2)
    assert manifest.totals.successful == 4
    assert len(provider.sold) == 4
    assert {result.attempts for result in results} == {1}


@pytest.mark.parametrize("limit", [{"in_flight": 6}, {"requests_per_second": 60.0}])
def test_limits_of_a_real_server_fail_no_job(tmp_path: Path, limit: dict[str, Any]) -> None:
    """Over sockets: refused for what is in flight, or for the rate of submits and polls."""
    server = SimulatorSettings(speed=1.0, generation_s=(0.1, 0.3), body_bytes=2_000, **limit)

    batch = [Job(name=f"杯 {n}", model=FLUX, prompt="a mug") for n in range(40)]

    async def main() -> None:
        async with Simulator(server) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            polling = Polling(initial_s=0.05, maximum_s=0.2)
            async with Pipeline(
                provider, tmp_path, max_workers=32, polling=polling, seed=1
            ) as pipeline:
                manifest = await pipeline.batch_generate(batch)
            books = simulator.books
            assert manifest.totals.successful == 40 == len(books.predictions())
            assert books.counter("beyond_in_flight") + books.counter("beyond_rate") > 0
            assert books.peak_in_flight() <= limit.get("in_flight", 32)

    asyncio.run(main())
