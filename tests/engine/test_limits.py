"""Whole runs against limits nobody is told: in virtual time, and over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Manifest, Pipeline, Polling
from asyncpipe.engine.poll import TURN_S
from asyncpipe.errors import PollFailed, RateLimited, UsageError
from asyncpipe.jobs.events import Event, Submitted
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.states import JobState
from asyncpipe.providers.base import Prediction
from asyncpipe.report.totals import Totals
from asyncpipe.testing import FakeProvider, Script, run_virtual
from benchmarks.harness.limits import Limited, Sliding
from benchmarks.parts import flow
from tests.support.pipelines import a_pipeline, opened

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
SEEDANCE = "bytedance/seedance-v1.5-pro/text-to-video"
VEO = "google/veo3.1/text-to-video"


def jobs(count: int, model: str = FLUX) -> list[Job]:
    params = {} if model == FLUX else {"duration": 4}
    return [
        Job(name=f"{model[:5]} {n}", model=model, prompt="a mug", params=params)
        for n in range(count)
    ]


def run(
    folder: Path, provider: Any, batch: list[Job], **options: Any
) -> tuple[Manifest, Exception | None, float]:
    """Run a batch in virtual time; returns what came of it, what stopped it, and the seconds."""

    async def main() -> tuple[Manifest, Exception | None, float]:
        async with a_pipeline(provider, folder, seed=1, min_free_bytes=0, **options) as pipeline:
            manifest = await pipeline.batch_generate(batch)
            return manifest, pipeline.stopped, asyncio.get_running_loop().time()

    return run_virtual(main())


@pytest.mark.parametrize("hidden", flow.SHORT, ids=lambda hidden: str(hidden.limit))
def test_hidden_limits_are_found_and_hardly_met(hidden: flow.Hidden) -> None:
    """The benchmark in short: 90 % within a minute, 2 % refused, none lost."""
    line = flow.hidden_line(hidden, 1)
    assert line.holds, line.words


def test_a_gateway_that_counts_requests_is_kept_busy_and_hardly_met() -> None:
    """The other half: more done than by clients that retry each for itself, and few refused."""
    gateway = flow.Gateway(kind=Sliding, gain=1.0, jobs=400, at_once=200, rate=200.0)
    provider = gateway.provider(seed=1)
    polling = Polling(initial_s=0.3, maximum_s=2.0)
    ours = flow.run(provider, gateway.jobs, polling=polling, workers=gateway.at_once)
    herd = flow.run_herd(gateway, "exponential", gateway.provider(seed=1, wish_s=1.0))
    assert ours.lost == 0
    assert provider.refusals <= 0.2 * provider.requests
    assert ours.done / ours.seconds > 1.4 * herd.done / herd.seconds


@pytest.mark.parametrize("chance", [0.04, 0.08])
def test_refusals_by_chance_do_not_slow_a_run(tmp_path: Path, chance: float) -> None:
    """Within 1.3 x the time of a window that learns nothing."""
    took_s = {}
    for window in ("learned", "fixed"):
        provider = Limited(median_s=20.0, sigma=0.3, chance=chance)
        manifest, _, took_s[window] = run(
            tmp_path / window, provider, jobs(300), max_workers=64, window=window
        )
        assert manifest.totals.successful == 300
    assert took_s["learned"] <= 1.3 * took_s["fixed"], took_s


def test_no_attempt_is_used_up_by_waiting(tmp_path: Path) -> None:
    """However often a submit was refused for the rate, a job has all its retries."""
    provider = Limited(median_s=20.0, in_flight=lambda _: 2)
    manifest, stopped, _ = run(tmp_path, provider, jobs(12), retries=0, window="fixed")
    assert manifest.totals.successful == 12
    assert stopped is None
    assert sum(refused for _, refused in provider.sent) > 5
    assert {result.attempts for result in manifest} == {1}


def test_patience_is_for_runs_that_get_nowhere(tmp_path: Path) -> None:
    """A limit that our own predictions fill is refused for an hour, and nothing is wrong."""
    provider = Limited(median_s=1_000.0, sigma=0.1, in_flight=lambda _: 2)
    batch = [Job(name=f"{n}", model=FLUX, prompt="p", deadline_s=5_000.0) for n in range(6)]
    manifest, stopped, took_s = run(tmp_path, provider, batch, patience_s=300.0, window="fixed")
    assert (manifest.totals.successful, stopped) == (6, None)
    assert took_s > 2_000


def test_models_do_not_wait_for_one_another(tmp_path: Path) -> None:
    """One model's limit is 1 and slow; the others finish as if it were not there."""

    class OneOfVeo(FakeProvider):
        async def submit(self, job: Job) -> Prediction:
            running = [made for made in self.sold if made.startswith("googl")]
            if job.model == VEO and len(running) > asyncio.get_running_loop().time() // 60:
                self.submits += 1
                raise RateLimited("one at a time")
            return await super().submit(job)

    provider = OneOfVeo(
        scripts={job.name or "": Script(generation_s=60.0) for job in jobs(5, VEO)},
        default=Script(generation_s=10.0),
    )
    batch = [*jobs(5, VEO), *jobs(60), *jobs(60, SEEDANCE)]
    done: dict[str, float] = {}

    async def main() -> Manifest:
        def note(event: Any, record: JobRecord) -> None:
            if record.state is JobState.SUCCEEDED:
                done[record.job.model] = asyncio.get_running_loop().time()

        async with Pipeline(provider, tmp_path, max_workers=20, seed=1, on_event=note) as pipeline:
            return await pipeline.batch_generate(batch)

    assert run_virtual(main()).totals.successful == 125
    assert max(done[FLUX], done[SEEDANCE]) < 150 < done[VEO]


def test_a_models_own_limit_and_the_requests_of_all_are_kept(tmp_path: Path) -> None:
    """``limits``: so many of one model in flight, so many requests a second."""
    provider = Limited(median_s=5.0)
    limits = {"requests_per_second": 2.0, "models": {FLUX: 3}}
    manifest, _, took_s = run(tmp_path, provider, jobs(20), limits=limits)
    assert manifest.totals.successful == 20
    assert max(running for _, running in provider.curve) == 3
    assert provider.requests <= 2.0 * took_s + 1
    with pytest.raises(UsageError, match="unknown key 'request_per_second'"):
        Pipeline(provider, tmp_path, limits={"request_per_second": 2})
    with pytest.raises(UsageError, match=r"limits\.models\.m/x: 0 must be a whole number"):
        Pipeline(provider, tmp_path, limits={"models": {"m/x": 0}})
    with pytest.raises(UsageError, match="window: 'slow' must be learned or fixed"):
        Pipeline(provider, tmp_path, limits={"window": "slow"})


def test_the_next_run_begins_near_what_this_one_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below it: the first burst is not refused; and nothing is kept of a simulator."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def once(name: str, *, simulated: bool = False) -> Limited:
        provider = Limited(
            median_s=20.0,
            in_flight=lambda _: 26,
            origin="https://api.example",
            simulated=simulated,
        )
        run(tmp_path / name, provider, jobs(80))
        return provider

    once("simulated", simulated=True)
    assert not (tmp_path / "cache").exists()
    first, second = once("first"), once("second")
    assert any(refused for _, refused in first.sent[:40])
    assert not any(refused for _, refused in second.sent[:26])
    soon = [running for at, running in second.curve if at < 0.5]
    assert max(soon) >= 15


def long_wish(count: int) -> Script:
    """Polls that are told to come again in an hour."""
    return Script(polls=[PollFailed("429", status=429, retry_after_s=3600.0)] * count)


@pytest.mark.parametrize(("refused", "times"), [(1, 1), (1, 99), (8, 1), (8, 99), (64, 99)])
def test_an_hour_that_some_polls_are_told_to_wait_is_not_everybodys(
    tmp_path: Path, refused: int, times: int
) -> None:
    """Other models go on, and whatever was told, deadlines are kept and the run has its end."""
    other = "google/imagen4-ultra/text-to-image"
    told = [Job(name=f"told {n}", model=FLUX, prompt="a mug") for n in range(refused)]
    rest = [Job(name=f"rest {n}", model=other, prompt="a mug") for n in range(20)]
    scripts = {str(each.name): long_wish(times) for each in told}
    provider = FakeProvider(scripts=scripts)
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}

    def hook(event: Event, record: JobRecord) -> None:
        at = asyncio.get_running_loop().time()
        if isinstance(event, Submitted):
            begun[record.name] = at
        if record.state in (JobState.SUCCEEDED, JobState.EXPIRED):
            ended.setdefault(record.name, at)

    async def main() -> tuple[Totals, float]:
        async with opened(tmp_path, provider, on_event=hook) as pipeline:
            totals = (await pipeline.batch_generate([*told, *rest])).totals
            return totals, asyncio.get_running_loop().time()

    totals, took_s = run_virtual(main())
    assert max(at for name, at in ended.items() if name.startswith("rest")) < 250
    assert max(at - begun[name] for name, at in ended.items()) < 300 + TURN_S + 10
    assert took_s < 1000
    assert totals.successful == 20 + (refused if times == 1 else 0)
    assert len(provider.sold) == 20 + refused
