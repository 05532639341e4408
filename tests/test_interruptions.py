"""Runs that are cancelled again and again, under faults: at the end everything is paid once."""

from __future__ import annotations

from pathlib import Path
from random import Random

import anyio
import pytest

from asyncpipe import Job, Manifest, Pipeline
from asyncpipe.errors import (
    NotSent,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
)
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.states import JobState
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual

MODELS = ("black-forest-labs/flux-2-pro/text-to-image", "google/veo3.1/text-to-video")
RUNS = 40


def script(rng: Random) -> Script:
    """A provider's mood for one job: every fault in it can be recovered from."""
    refusals = [RateLimited("429"), NotSent("dns"), Overloaded("503")]
    empty = Prediction(id="p", status=PredictionStatus.COMPLETED)
    mishaps: list[ProviderError | Prediction] = [PollFailed("502"), PredictionGone("404")]
    mishaps += [empty, Prediction(id="p", said="?")]
    return Script(
        submits=rng.choices(refusals, k=rng.choice([0, 0, 0, 1, 3])),
        polls=rng.choices(mishaps, k=rng.choice([0, 0, 1, 4])),
        generation_s=rng.choice([0.0, 3.0, 40.0, 200.0]),
        submit_s=rng.choice([0.0, 0.2, 5.0]),
        outputs=(PIXEL,) * rng.choice([1, 1, 2]),
    )


@pytest.mark.parametrize("seed", range(30))
def test_cancelled_at_random_moments_every_job_is_paid_once(tmp_path: Path, seed: int) -> None:
    """However often a run is cut short, no job is bought twice and none is lost."""
    rng = Random(seed)
    jobs = [Job(name=f"杯 {n}", model=rng.choice(MODELS), prompt="x") for n in range(12)]
    scripts = {str(job.name): script(rng) for job in jobs}
    provider = FakeProvider(scripts=scripts)
    workers = rng.choice([1, 2, 5])

    async def one(limit_s: float) -> Manifest | None:
        with anyio.move_on_after(limit_s):
            async with Pipeline(
                provider, tmp_path, max_workers=workers, downloads=1, seed=seed
            ) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
                assert pipeline.totals.in_flight == 0
                return manifest
        return None

    manifest = None
    for turn in range(RUNS):
        limit_s = rng.choice([0.0, 0.1, 1.0, 7.0, 31.0, 90.0]) if turn < RUNS - 1 else 100_000.0
        provider_clock_restarts(provider)
        manifest = run_virtual(one(limit_s)) or manifest
    assert manifest is not None
    results = list(manifest)
    assert {result.state for result in results} == {JobState.SUCCEEDED}, results
    assert sorted(provider.sold) == sorted(str(job.name) for job in jobs)
    assert provider.peak_in_flight <= workers
    paths = [asset.path for result in results for asset in result.assets]
    assert len(paths) == len(set(paths))
    assert len(paths) == sum(len(scripts[result.name].outputs) for result in results)


def provider_clock_restarts(provider: FakeProvider) -> None:
    """Every run has a virtual clock of its own: what an earlier one bought is ready by now."""
    for made in provider._made.values():
        made.ready = 0.0
