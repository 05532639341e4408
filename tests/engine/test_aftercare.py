"""A service that lives on: paid jobs come home by themselves, accepted ones after a restart."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from asyncpipe import JobState
from asyncpipe.errors import PollFailed, PredictionGone, ProviderError
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.media import PNG
from tests.support.pipelines import clock_restarts, counts_agree, job, opened
from tests.support.servers import serving

HOUR_S = 3600.0
RUNNING = Prediction(id="p1", said="processing")
NOBODY_KNOWS = Prediction(id="p1", status=PredictionStatus.FAILED, error="gpu", released=None)


@pytest.mark.parametrize(
    ("script", "first"),
    [
        (Script(generation_s=HOUR_S), JobState.EXPIRED),
        (Script(generation_s=HOUR_S, polls=[PredictionGone("404")] * 999), JobState.EXPIRED),
        (Script(polls=[NOBODY_KNOWS] * 3), JobState.UNKNOWN),
    ],
)
def test_a_service_brings_home_what_it_called_unfinished(
    tmp_path: Path, script: Script, first: JobState
) -> None:
    """Without any other traffic, without a restart, and with ever fewer polls."""
    provider = FakeProvider(default=script)

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            assert (await pipeline.generate(job("杯"))).state is first
            if first is JobState.EXPIRED:
                provider._made["p1"].polls.clear()
            await asyncio.sleep(24 * HOUR_S)
            assert pipeline.totals.successful == 1
            await counts_agree(pipeline)
        assert provider.submits == 1

    run_virtual(main())


@pytest.mark.parametrize("answer", [RUNNING, PredictionGone("404"), PollFailed("500")])
def test_the_gaps_grow(tmp_path: Path, answer: Prediction | ProviderError) -> None:
    """Three weeks of looking after a job that never ends take some hundred turns."""
    provider = FakeProvider(default=Script(polls=[answer] * 99_999))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            await pipeline.generate(job("杯", deadline_s=5.0))
            await asyncio.sleep(21 * 24 * HOUR_S)
            turns = provider.polls
            assert 21 * 3 < turns < 21 * 24
            await asyncio.sleep(24 * HOUR_S)
            assert provider.polls > turns

    run_virtual(main())


def test_what_was_accepted_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    """Jobs of ``generate`` that were not submitted stay in the totals, and ``resume`` buys them."""
    provider = FakeProvider(default=Script(generation_s=50.0))

    async def killed() -> None:
        async with opened(tmp_path, provider, max_workers=2) as pipeline:
            calls = [asyncio.ensure_future(pipeline.generate(job(f"{n}"))) for n in range(6)]
            calls.append(asyncio.ensure_future(pipeline.generate(job("nobody's"))))
            await asyncio.sleep(10)
            calls.pop().cancel()
            await asyncio.sleep(1)
        await asyncio.wait(calls)

    async def again() -> None:
        async with opened(tmp_path, provider, max_workers=2, take_up=False) as pipeline:
            nothing = await pipeline.batch_generate([])
            assert (nothing.totals.pending, nothing.totals.removed) == (4, 0)
            await counts_agree(pipeline)
            assert len(provider.sold) == 2
            totals = (await pipeline.resume()).totals
            assert (totals.successful, totals.pending, totals.removed) == (6, 0, 0)
            await counts_agree(pipeline)
            assert (await pipeline.resume()).totals.successful == 6
        assert sorted(provider.sold) == [f"{n}" for n in range(6)]

    run_virtual(killed())
    clock_restarts(provider)
    run_virtual(again())


def test_resume_leaves_other_jobs_alone(tmp_path: Path) -> None:
    """Those of a batch that was cut short, and what callers of this process ask for."""
    provider = FakeProvider(default=Script(generation_s=5.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate([job(f"b{n}") for n in range(4)]))
            await asyncio.sleep(1)
            batch.cancel()
            await asyncio.wait([batch])
            assert (await pipeline.resume()).totals.successful == 1
            assert provider.sold == ["b0"]

    run_virtual(main())


@pytest.mark.parametrize("batches", [False, True])
def test_aftercare_and_the_chase_of_media_do_not_get_in_each_others_way(
    tmp_path: Path, *, batches: bool
) -> None:
    """A job that expired is taken up, and its media refused for hours: one try at a time.

    With growing gaps, whoever else takes up what is paid for, and it comes home once.
    """
    under_way, most, asked = 0, 0, list[float]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        now = asyncio.get_running_loop().time()
        asked.append(now)
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0.5)
        finally:
            under_way -= 1
        return web.Response(status=200 if now > 4 * HOUR_S else 403, body=PNG)

    async def main() -> None:
        async with serving(answer) as origin:
            script = Script(generation_s=HOUR_S, outputs=(f"{origin}/a.png",))
            provider = FakeProvider(default=script, origin=origin)
            async with opened(tmp_path, provider) as pipeline:
                assert (
                    await pipeline.generate(job("杯", deadline_s=9.0))
                ).state is JobState.EXPIRED
                for _ in range(5 * 12):
                    await asyncio.sleep(HOUR_S / 12)
                    if batches:
                        await pipeline.batch_generate([])
                await counts_agree(pipeline)
                assert pipeline.totals.successful == 1
            assert provider.submits == 1
        refused = [at for at in asked if at <= 4 * HOUR_S]
        gaps = [after - before for before, after in pairwise(refused)]
        assert len(asked) == len(refused) + 1
        assert (most, len(refused) > 30) == (1, True)
        assert min(gaps[8:]) > 20.0

    run_virtual(main())
