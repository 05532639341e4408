"""Whole runs against limits nobody is told: in virtual time, and over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpipe import AtlasCloud, Job, Manifest, Pipeline, Polling
from asyncpipe.engine.queue import Queue
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import RateLimited, UsageError
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Answer, Limiter, Permit, Verdict
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.window import Window
from asyncpipe.jobs.job import JobType
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.states import JobState
from asyncpipe.providers.base import Prediction
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script, run_virtual
from benchmarks import flow
from benchmarks.limits import Limited, Sliding

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
        async with Pipeline(provider, folder, seed=1, min_free_bytes=0, **options) as pipeline:
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
    assert max(running for _, running in provider.history) == 3
    assert provider.requests <= 2.0 * took_s + 1
    with pytest.raises(UsageError, match="unknown key 'request_per_second'"):
        Pipeline(provider, tmp_path, limits={"request_per_second": 2})
    with pytest.raises(UsageError, match=r"limits\.models\.m/x: 0 must be a whole number"):
        Pipeline(provider, tmp_path, limits={"models": {"m/x": 0}})
    with pytest.raises(UsageError, match="window: 'slow' must be learned or fixed"):
        Pipeline(provider, tmp_path, window="slow")


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
    soon = [running for at, running in second.history if at < 0.5]
    assert max(soon) >= 15


# -- who goes next --------------------------------------------------------------------------------


def record(number: int, model: str) -> JobRecord:
    job = Job(name=f"{number}", type=JobType.IMAGE, model=model, prompt="p")
    return JobRecord(id=number, key=f"{number:032}", name="a", job=job, state=JobState.PENDING)


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    permits=st.integers(1, 8),
    seed=st.integers(),
)
def test_a_full_window_blocks_nobody_else_and_turns_are_fair(
    sizes: list[int], counts: list[int], permits: int, seed: int
) -> None:
    """Within its window and the permits every model goes on; none is passed over twice."""
    models = {f"m{n}": size for n, size in enumerate(sizes)}
    known = Limiter(
        Gate(Pace(), clock=lambda: 0.0),
        Random(1),
        lambda model: Window(models[model], learned=False),
        workers=permits,
    )
    queue, rng, left = Queue(known), Random(seed), Counter[str]()
    flight: list[tuple[Ticket, Permit]] = []
    for (model, _), count in zip(models.items(), counts, strict=False):
        queue.add(Ticket(record(100 * int(model[1:]) + n, model)) for n in range(count))
        left[model] = count
    passed: Counter[str] = Counter()
    while left.total() or flight:
        busy = Counter(ticket.job.model for ticket, _ in flight)
        able = {m for m, size in models.items() if left[m] and busy[m] < size}
        chosen = queue.choose(0.0) if known.free else 0.0
        if isinstance(chosen, Ticket):
            model = chosen.job.model
            assert model in able
            permit = known.to_submit(model)
            permit.answered(Answer(Verdict.TAKEN))
            flight.append((chosen, permit))
            left[model] -= 1
            passed[model] = 0
            for other in able - {model}:
                passed[other] += 1
                assert passed[other] < len(models)
            continue
        assert not able or len(flight) == permits
        _, permit = flight.pop(rng.randrange(len(flight)))
        permit.release()


# -- real sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"in_flight": 6}, {"requests_per_second": 60.0}])
def test_limits_of_a_real_server_fail_no_job(tmp_path: Path, limit: dict[str, Any]) -> None:
    """Over sockets: refused for what is in flight, or for the rate of submits and polls."""
    server = SimulatorSettings(speed=1.0, generation_s=(0.1, 0.3), body_bytes=2_000, **limit)

    async def main() -> None:
        async with Simulator(server) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            polling = Polling(initial_s=0.05, maximum_s=0.2)
            async with Pipeline(
                provider, tmp_path, max_workers=32, polling=polling, seed=1
            ) as pipeline:
                manifest = await pipeline.batch_generate(jobs(40))
            books = simulator.books
            assert manifest.totals.successful == 40 == len(books.predictions())
            assert books.counter("beyond_in_flight") + books.counter("beyond_rate") > 0
            assert books.peak_in_flight() <= limit.get("in_flight", 32)

    asyncio.run(main())
