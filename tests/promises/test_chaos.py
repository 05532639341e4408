"""Long runs in which everything goes wrong that can be made good; the simulator's books judge.

ASYNCPIPE_CHAOS=long runs many seeds instead of one, and kills more often.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Deadlines, Job, JobState, Manifest, Pipeline, Polling
from asyncpipe.flow.backoff import backoff_s
from asyncpipe.report.results import Result
from asyncpipe.simulator.books import BookedPrediction, Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.command_line import asyncpipe, books, command, environment, manifest, write_jobs

LONG = os.environ.get("ASYNCPIPE_CHAOS") == "long"
SEEDS = range(20 if LONG else 1)

pytestmark = pytest.mark.timeout(600)
MODELS = (
    "black-forest-labs/flux-2-pro/text-to-image",
    "google/imagen4-ultra/text-to-image",
    "bytedance/seedance-v1.5-pro/text-to-video",
    "google/veo3.1/text-to-video",
    "openai/sora-v2/text-to-video",
)


def every_fault(rng: Random, **others: float) -> Faults:
    """Every recoverable fault at 5 to 25 %, and ``others``."""
    chosen = {k.name: round(rng.uniform(0.05, 0.25), 3) for k in Faults.kinds() if k.recoverable}
    return Faults(**{**chosen, **others})


def all_sorts(count: int) -> list[Job]:
    """Jobs of five models, pictures and clips."""
    return [
        Job(name=f"产品 {n}", model=model, prompt=f"product {n}", params=fields)
        for n in range(count)
        for model in [MODELS[n % len(MODELS)]]
        for fields in [{"duration": 4} if model.endswith("video") else {}]
    ]


@pytest.fixture
def faster_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries shrink like the simulator's generation times."""
    for module in ("engine.fetch", "engine.submit", "flow.backoff"):
        shrunk = partial(shorter, backoff_s)
        monkeypatch.setattr(f"asyncpipe.{module}.backoff_s", shrunk)


def shorter(whole: Callable[..., float], *arguments: Any, **options: Any) -> float:
    return whole(*arguments, **options) / 20


def run(
    folder: Path, settings: SimulatorSettings, jobs: list[Job]
) -> tuple[Manifest, Exception | None]:
    async def main() -> tuple[Manifest, Exception | None]:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("apikey-chaos", base_url=simulator.base_url, simulated=True)
            async with Pipeline(
                provider,
                folder,
                max_workers=64,
                window="fixed",  # it would learn slowly from refusals at random, and this is long
                downloads=32,
                retries=8,
                polling=Polling(initial_s=0.05, maximum_s=0.5),
                deadlines=Deadlines(image=300, video=300),
            ) as pipeline:
                done = await pipeline.batch_generate(jobs)
                return done, pipeline.stopped

    return asyncio.run(main())


def on_disk(folder: Path, results: list[Result]) -> None:
    """Every asset stands once and whole, and nothing else stands there."""
    files = set()
    for result in results:
        for asset in result.assets:
            body = (folder / asset.path).read_bytes()
            assert (len(body), hashlib.sha256(body).hexdigest()) == (asset.size, asset.sha256)
            files.add(asset.path)
    found = [p for kind in ("images", "videos") for p in (folder / kind).iterdir()]
    assert {p.relative_to(folder).as_posix() for p in found} == files
    assert not list((folder / ".asyncpipe" / "parts").iterdir())


def bought(sold: list[BookedPrediction]) -> Counter[str]:
    """How many predictions per prompt were kept: what failed was given back."""
    return Counter(p.body["prompt"] for p in sold if p.outcome == "completed")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("faster_waits")
def test_500_jobs_with_every_recoverable_fault_all_succeed(tmp_path: Path, seed: int) -> None:
    """All succeeded, the manifest equal to the books to the cent, nothing paid for twice."""
    jobs, faults = all_sorts(500), every_fault(Random(seed))
    settings = SimulatorSettings(
        seed=seed, speed=100, faults=faults, books=tmp_path / "books", body_bytes=20_000, hang_s=0.5
    )
    done, stopped = run(tmp_path / "out", settings, jobs)
    results, kept = list(done), Books(tmp_path / "books")
    assert Counter(result.state for result in results) == {JobState.SUCCEEDED: 500}, [
        (result.name, result.state, result.error) for result in results if result.error
    ]
    assert stopped is None
    assert max(bought(kept.predictions()).values()) == 1
    assert len(bought(kept.predictions())) == 500
    assert Decimal(done.totals.charged).scaleb(-6) == kept.charged()
    assert (done.totals.reserved, kept.media_credentials()) == (0, 0)
    on_disk(tmp_path / "out", results)
    by_id = {p.id: p for p in kept.predictions()}
    assert all(r.cost == Decimal(by_id[str(r.prediction_id)].price).scaleb(-6) for r in results)
    assert {by_id[str(r.prediction_id)].body["prompt"] for r in results} == {
        job.prompt for job in jobs
    }


@pytest.mark.usefixtures("faster_waits")
def test_lost_answers_end_unknown_and_only_those(tmp_path: Path) -> None:
    """Among all the other faults; their money stays reserved to the cent."""
    lost = {"dropped": 0.05, "server_error_submit": 0.05, "nameless": 0.03}
    faults = every_fault(Random(7), **lost, rate_limited=0.05, overloaded=0.05)
    settings = SimulatorSettings(
        speed=100, faults=faults, books=tmp_path / "books", body_bytes=20_000, hang_s=0.5
    )
    done, _ = run(tmp_path / "out", settings, all_sorts(120))
    results, kept = list(done), Books(tmp_path / "books")
    states = Counter(result.state for result in results)
    assert set(states) == {JobState.SUCCEEDED, JobState.UNKNOWN}
    assert 3 < states[JobState.UNKNOWN] < 60
    told = {result.prediction_id for result in results if result.state is JobState.SUCCEEDED}
    unanswered = [p for p in kept.predictions() if p.id not in told and p.outcome == "completed"]
    assert len(unanswered) <= states[JobState.UNKNOWN]
    charged = sum(p.price for p in kept.predictions() if p.id in told)
    assert done.totals.charged == charged
    assert done.totals.reserved >= sum(p.price for p in unanswered)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_under_faults(tmp_path: Path, seed: int) -> None:
    """The command, kill -9 at random moments, again and again, then to the end: paid once."""
    rng = Random(seed)
    text = "max_workers: 12\nretries: 8\njobs:\n" + "".join(
        f"  - {{name: 杯 {n}, model: {MODELS[n % 2]}, prompt: mug {n}, width: 64, height: 64}}\n"
        for n in range(80)
    )
    write_jobs(tmp_path / "jobs.yaml", text)
    faults = "all=0.1,rate_limited=0.02,overloaded=0.02,hung_poll=0.02,slow=0.02"
    options = ("--simulate", "-o", "out", "--simulate-faults", faults, "--simulate-speed", 60)
    for _ in range(12 if LONG else 4):
        process = subprocess.Popen(
            command("run", "jobs.yaml", *options, "--quiet"), cwd=tmp_path, env=environment()
        )
        time.sleep(rng.uniform(0.8, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    for _ in range(5):
        done = asyncpipe("run", "jobs.yaml", *options, cwd=tmp_path)
        report = manifest(tmp_path / "out")
        if not report["pending"]:
            break
    assert "Traceback" not in done.stderr
    assert (report["pending"], report["failed"], report["total_jobs"]) == (0, 0, 80), done.stdout
    kept = books(tmp_path / "out")
    assert max(bought(kept.predictions()).values()) == 1
    cost, reserved = (Decimal(str(report[name])) for name in ("total_cost", "reserved"))
    assert cost <= kept.charged() <= cost + reserved
    assert report["unknown"] or cost == kept.charged()
    assert done.returncode == (75 if report["unknown"] else 0)
    rows = [row for row in report["results"] if row["status"] == "success"]
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(rows)
    verified = asyncpipe("verify", "out", cwd=tmp_path)
    assert (verified.returncode, json.dumps(report)) != (3, "")
    assert f"{len(rows)} assets checked, all as they were bought" in verified.stdout
