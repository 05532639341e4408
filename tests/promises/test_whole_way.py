"""The whole way over real sockets: every shipped job file, every dialect, every final fault."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import (
    AtlasCloud,
    Deadlines,
    Job,
    JobState,
    Manifest,
    Pipeline,
    Polling,
    Result,
    load_jobs,
)
from asyncpipe.errors import BalanceExhausted, KeyRefused, Rejected
from asyncpipe.jobfile.file import JobFile
from asyncpipe.jobs.job import JobType
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import SAMPLES
from tests.support import CONFIGS
from tests.support.clock import Clock
from tests.support.faulty import run_faulty
from tests.support.pipelines import a_pipeline
from tests.support.servers import DIALECTS, PNG, Foreign, serving

MODEL = "black-forest-labs/flux-2-pro/text-to-image"

SPEED = 200.0
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def run(
    file: JobFile, folder: Path, settings: SimulatorSettings, clock: Clock, **options: Any
) -> tuple[Manifest, Books]:
    async def main() -> tuple[Manifest, Books]:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            async with a_pipeline(
                provider,
                folder,
                max_workers=file.settings.max_workers,
                polling=Polling(initial_s=0.02, maximum_s=0.1),
                **options,
            ) as pipeline:
                manifest = await pipeline.batch_generate(file.jobs)
        assert settings.books is not None
        return manifest, Books(settings.books)

    return clock.run(main())


@pytest.mark.parametrize("wire", ["canonical", "article"])
@pytest.mark.parametrize("name", NAMES)
def test_every_config_runs_to_the_end_and_only_once(
    tmp_path: Path, one_clock: Clock, name: str, wire: str
) -> None:
    """All jobs succeed, the manifest agrees with the books to the cent, nothing is sold twice."""
    file = load_jobs(CONFIGS / f"{name}.yaml")
    size = None if wire == "canonical" else 20_000  # None: drawn, and the same on either wire
    settings = SimulatorSettings(speed=SPEED, wire=wire, books=tmp_path / "books", body_bytes=size)
    for _ in range(2):
        manifest, books = run(file, tmp_path / "out", settings, one_clock)
        sold = Counter(prediction.body["prompt"] for prediction in books.predictions())
        assert sold == Counter(job.prompt for job in file.jobs)
        assert manifest.totals.successful == manifest.totals.total == len(file.jobs)
        assert Decimal(manifest.totals.charged_micro).scaleb(-6) == books.charged()
        assert books.peak_in_flight() <= file.settings.max_workers
        assert books.media_credentials() == 0
    written = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert Decimal(str(written["total_cost"])) == books.charged()
    paths = [asset["local_path"] for row in written["results"] for asset in row["assets"]]
    assert len(paths) == len(set(paths)) == len(file.jobs)
    assert all((tmp_path / "out" / path).stat().st_size for path in paths)


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_recoverable_faults_lose_nothing(tmp_path: Path, one_clock: Clock, wire: str) -> None:
    """Refused submits, hidden predictions, failures with retries, broken downloads."""
    file = load_jobs(CONFIGS / "scenario_social.yaml")
    faults = Faults(rate_limited=0.2, not_found_first=0.3, failed=0.2, cut=0.5)
    settings = SimulatorSettings(speed=SPEED, wire=wire, faults=faults, books=tmp_path / "books")
    manifest, books = run(
        file,
        tmp_path / "out",
        settings,
        one_clock,
        retries=20,
        deadlines=Deadlines(image=60, video=60),
    )
    assert manifest.totals.successful == len(file.jobs)
    assert Decimal(manifest.totals.charged_micro).scaleb(-6) == books.charged()


def test_a_dropped_answer_is_unknown_and_stays_so(tmp_path: Path, one_clock: Clock) -> None:
    """Taken, charged, never answered nor listed: unknown, reserved, not bought a second time."""
    file = load_jobs(CONFIGS / "quickstart.yaml")
    faults = Faults(dropped=1.0, no_history=1.0)
    settings = SimulatorSettings(speed=SPEED, faults=faults, books=tmp_path / "books")
    for _ in range(2):
        manifest, books = run(file, tmp_path / "out", settings, one_clock)
        assert manifest.totals.unknown == len(file.jobs) == len(books.predictions())
        assert Decimal(manifest.totals.reserved_micro).scaleb(-6) == books.charged()


def test_moderation_is_final(tmp_path: Path, one_clock: Clock) -> None:
    """Refused input is bought once, costs nothing, and keeps its reason."""
    file = load_jobs(CONFIGS / "quickstart.yaml")
    settings = SimulatorSettings(
        speed=SPEED, faults=Faults(moderated=1.0), books=tmp_path / "books"
    )
    manifest, books = run(file, tmp_path / "out", settings, one_clock)
    assert manifest.totals.failed == len(file.jobs) == len(books.predictions())
    assert manifest.totals.charged_micro == 0
    assert all("content policy" in str(result.error) for result in manifest)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [("firewall", KeyRefused, "firewall"), ("no_balance", BalanceExhausted, "top it up")],
)
def test_what_no_submit_survives_stops_the_run(
    tmp_path: Path, fault: str, kind: type[Exception], said: str
) -> None:
    """Nothing sold, everything still to do; then, without the fault, all is done.

    One submit says it, and a second where a refused key may be one slip of a gateway.
    """
    manifest, stopped, books = run_faulty(tmp_path, 3, **{fault: 1.0})
    assert isinstance(stopped, kind)
    assert said in str(stopped)
    assert (len(books.predictions()), manifest.totals.pending) == (0, 3)
    assert books.submits() == (2 if kind is KeyRefused else 1)
    assert manifest.totals.charged_micro == manifest.totals.reserved_micro == 0
    assert run_faulty(tmp_path)[0].totals.successful == 3


def test_refusals_are_final_until_the_model_is_stopped(tmp_path: Path) -> None:
    """400: failed, free, with the reason and the trace id; the 21st job is not tried."""
    manifest, stopped, books = run_faulty(tmp_path, count=25, refused=1.0)
    assert isinstance(stopped, Rejected)
    assert (manifest.totals.failed, manifest.totals.pending, books.submits()) == (20, 5, 20)
    assert manifest.totals.charged_micro == 0
    failed = [result for result in manifest if result.state is JobState.FAILED]
    assert all(result.request_id and "400" in str(result.error) for result in failed)


def test_moderation_is_final_free_and_never_asked_again(tmp_path: Path) -> None:
    """Also not by ``retry_failed``; its reason and code are kept."""
    manifest, _, books = run_faulty(tmp_path, moderated=1.0)
    assert (manifest.totals.failed, manifest.totals.charged_micro) == (3, 0)
    assert len(books.predictions()) == 3
    assert all("content policy" in str(result.error) for result in manifest)


def test_media_that_is_gone_for_good_is_lost_and_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for anew first; then counted as failed, charged, with the reason."""
    monkeypatch.setattr("asyncpipe.engine.chase.backoff_s", lambda *_, **__: 0.01)
    monkeypatch.setattr(AtlasCloud, "retention_s", 0.0)
    manifest, _, books = run_faulty(tmp_path, lost_media=1.0)
    assert {result.state for result in manifest} == {JobState.LOST}
    assert manifest.totals.failed == 3
    assert Decimal(manifest.totals.charged_micro).scaleb(-6) == books.charged()
    assert all("404" in str(result.error) for result in manifest)


def run_against(server: Foreign, folder: Path, jobs: list[Job]) -> tuple[Manifest, list[Result]]:
    async def main() -> tuple[Manifest, list[Result]]:
        async with serving(server) as base_url:
            provider = AtlasCloud("apikey-x", base_url=base_url)
            polling = Polling(initial_s=0.01, maximum_s=0.02)
            async with Pipeline(provider, folder, polling=polling) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
                return manifest, list(manifest)

    return asyncio.run(main())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_understood(tmp_path: Path, dialect: str) -> None:
    """Each job is bought once, its body is what the job says, and its media stand."""
    server = Foreign(*DIALECTS[dialect])
    jobs = [Job(name=f"图 {n}", model=MODEL, prompt="杯子", params={"width": 8}) for n in range(4)]
    manifest, results = run_against(server, tmp_path, jobs)
    assert manifest.totals.successful == 4, [result.error for result in results]
    assert server.bodies == [{"model": MODEL, "prompt": "杯子", "width": 8}] * 4
    assert all((tmp_path / r.assets[0].path).read_bytes() == PNG for r in results)
    assert server.authorized_media == 0
    if dialect == "request_id, canonical polls":
        assert server.wrong_paths <= 2 * 3, "the path that works is remembered"


def test_a_job_of_another_type_goes_to_its_endpoint(tmp_path: Path) -> None:
    """Video jobs are submitted to generateVideo."""
    server = Foreign(*DIALECTS["documented"])
    server.picture = base64.b64decode(SAMPLES[JobType.VIDEO].partition(",")[2])
    clip = Job(name="clip", model="google/veo3.1/text-to-video", prompt="x", params={"duration": 8})
    run_against(server, tmp_path, [clip])
    submits = [path for path in server.paths if path.startswith("/api/v1/model/generate")]
    assert submits == ["/api/v1/model/generateVideo"]
    assert (tmp_path / "videos" / "clip.mp4").exists()
