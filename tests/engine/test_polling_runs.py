"""The policies of polling in whole runs: virtual time, real pipeline, scripted provider."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe import Job, Pipeline, Polling
from asyncpipe.engine.engine import learned_before
from asyncpipe.errors import PollFailed
from asyncpipe.flow.learned import Learned
from asyncpipe.jobs import now
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import a_pipeline, job, opened

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def scripts(count: int, median_s: float = 30.0, seed: int = 1) -> dict[str, Script]:
    rng = Random(seed)
    times = [median_s * math.exp(0.6 * rng.gauss(0, 1)) for _ in range(count)]
    return {f"job {n}": Script(generation_s=generation_s) for n, generation_s in enumerate(times)}


def jobs(count: int, **params: Any) -> list[Job]:
    return [Job(name=f"job {n}", model=FLUX, prompt="p", params=params) for n in range(count)]


def real(count: int, **fields: Any) -> FakeProvider:
    """A provider whose times are worth keeping."""
    known: dict[str, Any] = {
        "simulated": False,
        "origin": "https://api.example",
        "account": "a1",
    }
    return FakeProvider(scripts=scripts(count), **(known | fields))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "asyncpipe"


def run(folder: Path, provider: FakeProvider, count: int, **options: Any) -> tuple[float, Pipeline]:
    """Run ``count`` jobs; the virtual seconds it took."""

    async def main() -> tuple[float, Pipeline]:
        async with a_pipeline(
            provider, folder, min_free_bytes=0, seed=1, **({"max_workers": 20} | options)
        ) as pipeline:
            started = asyncio.get_running_loop().time()
            manifest = await pipeline.batch_generate(jobs(count))
            assert manifest.totals.successful == count
            return asyncio.get_running_loop().time() - started, pipeline

    return run_virtual(main())


def test_the_learned_policy_is_the_default_and_beats_the_articles(tmp_path: Path) -> None:
    """In a whole run, from nothing: fewer polls, and an earlier end."""
    ours, articles = FakeProvider(scripts=scripts(200)), FakeProvider(scripts=scripts(200))
    learned_s, _ = run(tmp_path / "a", ours, 200)
    backoff_s, _ = run(tmp_path / "b", articles, 200, polling=Polling(policy="backoff"))
    assert ours.polls < 0.9 * articles.polls
    assert learned_s < 0.95 * backoff_s


class Middle(Random):
    """No chance: what is drawn does not depend on who draws first, which threads decide."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_time_that_runs_faster_is_the_same_run_in_less_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--simulate-speed divides every wait by its number and changes nothing else."""
    monkeypatch.setattr("asyncpipe.engine.pipeline.Random", Middle)
    slow = FakeProvider(default=Script(generation_s=60.0))
    fast = FakeProvider(default=Script(generation_s=3.0))
    slow_s, _ = run(tmp_path / "a", slow, 50)
    fast_s, _ = run(tmp_path / "b", fast, 50, polling=Polling(speed=20.0))
    assert fast.polls == pytest.approx(slow.polls, rel=0.05)
    assert slow_s == pytest.approx(20 * fast_s, rel=0.05)


def test_a_retry_after_stretches_a_learned_gap(tmp_path: Path) -> None:
    """The provider's wish goes before the plan."""
    asked = [PollFailed("429", retry_after_s=500.0)]
    provider = FakeProvider(default=Script(generation_s=10.0, polls=asked))
    took_s, _ = run(tmp_path, provider, 1, deadlines=None)
    assert provider.polls >= 2
    assert 299.9 <= took_s <= 301.0, "not before the deadline, where it looks in any case"


def test_what_a_run_learned_is_known_to_the_next(tmp_path: Path, cache: Path) -> None:
    """It begins as the first one ended; estimates can say how long a job takes."""
    first, second = real(100), real(100)
    run(tmp_path / "a", first, 100)
    (file,) = cache.iterdir()
    assert "api.example" in file.name
    run(tmp_path / "b", second, 100)
    assert second.polls < first.polls
    expected = learned_before(first)(FLUX, {})
    assert expected is not None
    assert expected.median_s == pytest.approx(30.0, rel=0.2)
    assert expected.median_s < expected.mean_s < expected.p90_s
    assert learned_before(real(0, account="another"))(FLUX, {}) is None


def test_an_interrupted_run_keeps_what_it_learned(tmp_path: Path, cache: Path) -> None:
    """Also when its caller is cut off in the middle."""

    async def main() -> None:
        async with Pipeline(
            real(100), tmp_path, max_workers=10, storage={"min_free_bytes": 0}
        ) as pipeline:
            await asyncio.wait_for(pipeline.batch_generate(jobs(100)), 120.0)

    with pytest.raises(TimeoutError):
        run_virtual(main())
    (file,) = cache.iterdir()
    assert FLUX in json.loads(file.read_text())["models"]


@pytest.mark.parametrize("damage", ["", "{", '{"format":1,"models":{"M":{"at":"x"}}}', "NONSENSE"])
def test_a_damaged_memory_does_no_harm(tmp_path: Path, cache: Path, damage: str) -> None:
    """The run goes on from nothing and writes it anew."""
    run(tmp_path / "a", real(30), 30)
    (file,) = cache.iterdir()
    whole = file.read_text()
    if damage == "NONSENSE":
        kept = json.loads(whole)
        kept["models"][FLUX]["learned"] = [1, {"all": 2}]
        damage = json.dumps(kept)
    file.write_text(damage)
    run(tmp_path / "b", real(30), 30)
    assert json.loads(file.read_text())["models"].keys() == {FLUX}
    assert len(file.read_text()) == pytest.approx(len(whole), rel=0.2)


def test_a_simulator_teaches_nothing_that_is_kept(tmp_path: Path, cache: Path) -> None:
    """Nor does anything else on this machine."""
    run(tmp_path / "a", real(10, simulated=True), 10)
    run(tmp_path / "b", real(10, origin="http://127.0.0.1:80"), 10)
    assert not cache.exists()


def test_a_run_is_in_its_tail_when_nothing_waits_to_be_submitted(tmp_path: Path) -> None:
    """Not while jobs are in the ledger, ready, or waiting for their next attempt."""

    async def main() -> list[tuple[int, bool]]:
        provider = FakeProvider(default=Script(generation_s=60.0))
        seen = []
        async with Pipeline(
            provider, tmp_path, max_workers=4, storage={"min_free_bytes": 0}
        ) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs(40)))
            while not batch.done():
                seen.append((len(provider.sold), pipeline._parts().admission.tail()))
                await asyncio.sleep(5.0)
            await batch
        return seen

    seen = run_virtual(main())
    assert {tail for sold, tail in seen if 0 < sold < 38} == {False}
    assert {tail for sold, tail in seen if sold == 40} == {True}


def test_a_resumed_prediction_is_asked_at_once_and_then_by_the_law(tmp_path: Path) -> None:
    """Whatever the law says of young predictions."""
    provider = FakeProvider(default=Script(generation_s=5_000.0))

    async def main() -> None:
        async with Pipeline(provider, tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            await pipeline.batch_generate(jobs(1))

    run_virtual(main())
    polls = provider.polls
    provider._made["p1"].ready = 0.0
    took_s, pipeline = run(tmp_path, provider, 1)
    assert provider.polls == polls + 1
    assert took_s < 1.0
    assert isinstance(pipeline._parts(ever=True).latencies.polls, Learned)


@pytest.mark.parametrize("step", [timedelta(days=-3), timedelta(hours=2), timedelta(days=400)])
def test_a_wall_clock_that_is_set_meanwhile_changes_no_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    """A prediction of this run is as old as the loop's clock says; its deadline goes by it, too."""

    def polls_of(folder: Path) -> tuple[int, list[str]]:
        provider, seen = FakeProvider(default=Script(generation_s=40.0)), list[str]()

        async def main() -> None:
            async with opened(
                folder, provider, on_event=lambda event, _: seen.append(type(event).__name__)
            ) as pipeline:
                await pipeline.batch_generate([job(f"{n}") for n in range(3)])

        run_virtual(main())
        return provider.polls, seen

    before = polls_of(tmp_path / "before")
    monkeypatch.setattr("asyncpipe.engine.poll.now", lambda: now() + step)
    assert polls_of(tmp_path / "after") == before
