"""Nothing paid is given up while it can be had: no fault of polling or downloading loses it."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from asyncpipe import JobState, Manifest
from asyncpipe.errors import AsyncpipeError, PollFailed, PredictionGone, ProviderError
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import jobs, pipeline, run_batch
from tests.support.chaos import SEEDS, all_sorts, bought, every_fault, on_disk, run_simulated
from tests.support.clock import Clock
from tests.support.pipelines import counts_agree, job, opened

FAILED, DONE = PredictionStatus.FAILED, PredictionStatus.COMPLETED
RUNNING = Prediction(id="p1", said="processing")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("faster_waits")
def test_500_jobs_with_every_recoverable_fault_all_succeed(
    tmp_path: Path, one_clock: Clock, seed: int
) -> None:
    """All succeeded, the manifest equal to the books to the cent, nothing paid for twice."""
    jobs, faults = all_sorts(500), every_fault(Random(seed))
    settings = SimulatorSettings(
        seed=seed, speed=100, faults=faults, books=tmp_path / "books", body_bytes=20_000, hang_s=0.5
    )
    done, stopped = run_simulated(tmp_path / "out", settings, jobs, one_clock)
    results, kept = list(done), Books(tmp_path / "books")
    assert Counter(result.state for result in results) == {JobState.SUCCEEDED: 500}, [
        (result.name, result.state, result.error) for result in results if result.error
    ]
    assert stopped is None
    assert max(bought(kept.predictions()).values()) == 1
    assert len(bought(kept.predictions())) == 500
    assert Decimal(done.totals.charged_micro).scaleb(-6) == kept.charged()
    assert (done.totals.reserved_micro, kept.media_credentials()) == (0, 0)
    on_disk(tmp_path / "out", results)
    by_id = {p.id: p for p in kept.predictions()}
    assert all(r.cost == Decimal(by_id[str(r.prediction_id)].price).scaleb(-6) for r in results)
    assert {by_id[str(r.prediction_id)].body["prompt"] for r in results} == {
        job.prompt for job in jobs
    }


def test_a_drain_lasts(tmp_path: Path) -> None:
    """While a batch is still being written, and for callers who come later."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate([job(f"{n}") for n in range(30)]))
            await asyncio.sleep(0)
            pipeline.stop()
            assert (await batch).totals.pending == 30
            with pytest.raises(AsyncpipeError, match="drained"):
                await pipeline.generate(job("late"))
            await asyncio.sleep(1000)
            assert pipeline.stopped is not None
        assert provider.submits == 0

    run_virtual(main())


@pytest.mark.parametrize(
    "odd", [PredictionGone("404", status=404), Prediction(id="p1", status=DONE)]
)
def test_one_odd_answer_at_the_deadline_gives_nothing_up(
    tmp_path: Path, odd: ProviderError | Prediction
) -> None:
    """A 404, or completed without outputs: the next poll finds what is paid for."""
    provider = FakeProvider(default=Script(generation_s=0, polls=[RUNNING, RUNNING, odd]))

    async def main() -> Manifest:
        async with opened(tmp_path, provider) as pipeline:
            return await pipeline.batch_generate([job("a", deadline_s=20.0)])

    assert run_virtual(main()).totals.successful == 1
    assert provider.submits == 1


def test_callers_who_leave_take_nothing_from_a_batch(tmp_path: Path) -> None:
    """A generate or a stream of jobs that a batch wants as well."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            names = [job(f"{n}") for n in range(8)]
            batch = asyncio.ensure_future(pipeline.batch_generate(names))
            await asyncio.sleep(3)
            caller = asyncio.ensure_future(pipeline.generate(names[7]))

            async def early() -> None:
                async for _ in pipeline.stream(names[2:]):
                    break

            stream = asyncio.ensure_future(early())
            await asyncio.sleep(3)
            caller.cancel()
            stream.cancel()
            assert (await batch).totals.successful == 8
            await counts_agree(pipeline)

    run_virtual(main())


@pytest.mark.parametrize(
    "fault",
    [
        PredictionGone("404", status=404),
        PollFailed("502 html", status=502),
        PollFailed("429", status=429, retry_after_s=20.0),
        Prediction(id="p1", status=PredictionStatus.COMPLETED, outputs=()),
        Prediction(id="p1", said="queued"),
    ],
    ids=["warm-up", "html", "429", "empty-outputs", "backwards"],
)
def test_no_fault_while_polling_loses_a_paid_job(
    tmp_path: Path, fault: ProviderError | Prediction
) -> None:
    """Polls go on until the truth is told; nothing is submitted twice."""
    provider = FakeProvider(default=Script(polls=[fault] * 4))
    manifest, _, _ = run_batch(tmp_path, provider, jobs(2))
    assert (manifest.totals.successful, len(provider.sold)) == (2, 2)


@pytest.mark.parametrize("after_s", [0.0, 0.25, 0.5, 0.75, 1.0, 4.0, 11.0, 12.0])
def test_cancelling_the_run_at_any_moment_loses_nothing(tmp_path: Path, after_s: float) -> None:
    """Cancelled before, during or after a submit: the next run ends with everything paid once."""
    provider = FakeProvider(default=Script(submit_s=0.5))

    async def cancelled() -> None:
        async with pipeline(tmp_path, provider, max_workers=5) as opened:
            await asyncio.wait_for(opened.batch_generate(jobs(8)), after_s)

    with pytest.raises(TimeoutError):
        run_virtual(cancelled())
    manifest, _, _ = run_batch(tmp_path, provider, jobs(8))
    assert manifest.totals.successful == 8
    assert sorted(provider.sold) == [f"杯子 {n}" for n in range(8)]
