"""A pipeline that runs is held, let go on, emptied, and set anew."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Handle, HealthStatus, JobState, Limits, Pipeline, UsageError
from asyncpipe.engine.controls import changed
from asyncpipe.errors import AsyncpipeError, BudgetReached
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import FLUX, counts_agree, job, opened


async def submitted(pipeline: Pipeline, names: str) -> list[Handle]:
    return [await pipeline.submit(job(name)) for name in names]


async def states(handles: list[Handle]) -> list[JobState]:
    return [(await handle.status()).state for handle in handles]


P, S, D = JobState.PENDING, JobState.SUBMITTED, JobState.SUCCEEDED


def test_a_pause_holds_what_was_not_sent(tmp_path: Path) -> None:
    """What was sent comes home; jobs are accepted meanwhile; then all go on."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            handles = await submitted(pipeline, "ab")
            await asyncio.sleep(10.0)
            pipeline.pause()
            handles += await submitted(pipeline, "c")
            await pipeline.idle()
            assert await states(handles) == [D, P, P]
            health = pipeline.health()
            assert (health.status, health.why) == (
                HealthStatus.WAITING,
                "submitting is paused: go() goes on",
            )
            await asyncio.sleep(36_000.0)
            assert provider.sold == ["a"]
            pipeline.go()
            assert pipeline.health().ok
            await pipeline.idle()
            assert await states(handles) == [D, D, D]

    run_virtual(main())


def test_a_drain_waits_for_what_was_sent(tmp_path: Path) -> None:
    """Up to its grace: what is left is told, kept, and goes on; the rest is taken up later."""
    scripts = {"slow": Script(generation_s=250.0)}
    provider = FakeProvider(scripts=scripts, default=Script(generation_s=30.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=2) as pipeline:
            handles = [await pipeline.submit(job(name)) for name in ("slow", "quick", "rest")]
            await asyncio.sleep(1.0)
            left = await pipeline.drain(60.0)
            assert [handle.name for handle in left] == ["slow"]
            assert await states(handles) == [S, D, P]
            assert pipeline.health().status is HealthStatus.STOPPED
            with pytest.raises(AsyncpipeError, match="drained"):
                await pipeline.submit(job("late"))
            assert await pipeline.drain() == []
            assert await states(handles) == [D, D, P]
            pipeline.go()
            await pipeline.idle()
            assert await states(handles) == [D, D, D]
            await counts_agree(pipeline)

    run_virtual(main())
    assert provider.sold == ["slow", "quick", "rest"]


def test_idle_waits_for_a_batch_to_its_end(tmp_path: Path) -> None:
    """Also for what is not at hand yet; with nothing to do it returns at once."""
    provider = FakeProvider(default=Script(generation_s=30.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=2) as pipeline:
            await pipeline.idle()
            batch = asyncio.create_task(pipeline.batch_generate([job(f"{n}") for n in range(20)]))
            await asyncio.sleep(1.0)
            await pipeline.idle()
            assert len(provider.sold) == pipeline.totals.successful == 20
            await batch

    run_virtual(main())


def test_workers_become_more_and_fewer(tmp_path: Path) -> None:
    """More at once; fewer as jobs end, none of which is cut."""
    provider = FakeProvider(default=Script(generation_s=50.0))
    in_flight: list[int] = []

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=2, window="fixed") as pipeline:
            handles = await submitted(pipeline, "abcdefghijklmnopqrstuvwx")
            for workers in (None, 20, 3):
                if workers:
                    pipeline.set(max_workers=workers)
                await asyncio.sleep(10.0)
                in_flight.append((await states(handles)).count(S))
            await asyncio.sleep(60.0)
            in_flight.append((await states(handles)).count(S))
            await pipeline.idle()
            assert set(await states(handles)) == {D}
            assert provider.submits == 24

    run_virtual(main())
    assert in_flight == [2, 20, 20, 3]


def test_a_models_limit_and_the_rate_follow(tmp_path: Path) -> None:
    """From now on, for windows that are there already and for those to come."""
    provider = FakeProvider(default=Script(generation_s=50.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=9, window="fixed") as pipeline:
            pipeline.set(limits=Limits(models={FLUX: 1}, window="fixed"))
            handles = await submitted(pipeline, "abcdef")
            await asyncio.sleep(10.0)
            assert (await states(handles)).count(S) == 1
            limits = Limits(models={FLUX: 4}, window="fixed", requests_per_second=2.0, downloads=1)
            pipeline.set(limits=limits)
            await asyncio.sleep(10.0)
            assert (await states(handles)).count(S) == 4
            assert pipeline.limiter.gate.pace.limit == 2.0
            await pipeline.idle()

    run_virtual(main())


def test_a_larger_budget_has_what_did_not_fit_tried_again(tmp_path: Path) -> None:
    """Refused, kept, and done when there is money; the books agree."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_cost=Decimal("0.05")) as pipeline:
            handles = await submitted(pipeline, "abc")
            told = await asyncio.gather(*(h.wait() for h in handles), return_exceptions=True)
            assert sum(isinstance(each, BudgetReached) for each in told) == 2
            pipeline.set(max_cost=Decimal("0.09"))
            await asyncio.sleep(600.0)
            assert len(provider.sold) == 2
            pipeline.set(max_cost=None)
            await asyncio.sleep(600.0)
            assert await states(handles) == [D, D, D]
            await counts_agree(pipeline)

    run_virtual(main())


def test_a_smaller_budget_holds(tmp_path: Path) -> None:
    """Nothing more is bought than it allows."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_cost=Decimal(5), max_workers=1) as pipeline:
            await (await pipeline.submit(job("a"))).wait()
            pipeline.set(max_cost=Decimal("0.04"))
            with pytest.raises(BudgetReached):
                await pipeline.generate(job("b"))
        pipeline.set(max_cost=Decimal("0.08"))
        async with pipeline:
            assert (await pipeline.generate(job("b"))).status == "success"

    run_virtual(main())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": True}, "max_workers"),
        ({"max_cost": 5}, "max_cost"),
        ({"limits": {"nope": 1}}, "limits"),
        ({"limits": Limits(window="fixed"), "max_workers": 3}, "limits.window"),
    ],
)
def test_what_is_wrong_changes_nothing(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    """And is named."""

    async def main() -> None:
        async with opened(tmp_path, FakeProvider(), max_workers=2) as pipeline:
            with pytest.raises(UsageError, match=said):
                pipeline.set(**wrong)
            assert pipeline.limiter.workers == 2

    run_virtual(main())


def test_what_is_not_said_stays(tmp_path: Path) -> None:
    settings = opened(tmp_path, FakeProvider(), max_workers=7)._settings
    kept = changed(settings, max_workers=None, max_cost=None, limits=None)
    assert kept == settings
