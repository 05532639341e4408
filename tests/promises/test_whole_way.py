"""Every shipped job file to the end, on both wires, over real sockets, judged by the books."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Deadlines, Manifest, Pipeline, Polling, load_jobs
from asyncpipe.jobfile.load import JobFile
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support import CONFIGS

SPEED = 200.0
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def run(
    file: JobFile, folder: Path, settings: SimulatorSettings, **options: Any
) -> tuple[Manifest, Books]:
    async def main() -> tuple[Manifest, Books]:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            async with Pipeline(
                provider,
                folder,
                max_workers=file.settings.max_workers,
                polling=Polling(initial_s=0.02, maximum_s=0.1),
                **options,
            ) as pipeline:
                manifest = await pipeline.batch_generate(file.jobs)
        assert settings.books is not None
        return manifest, Books(settings.books)

    return asyncio.run(main())


@pytest.mark.parametrize("wire", ["canonical", "article"])
@pytest.mark.parametrize("name", NAMES)
def test_every_config_runs_to_the_end_and_only_once(tmp_path: Path, name: str, wire: str) -> None:
    """All jobs succeed, the manifest agrees with the books to the cent, nothing is sold twice."""
    file = load_jobs(CONFIGS / f"{name}.yaml")
    settings = SimulatorSettings(speed=SPEED, wire=wire, books=tmp_path / "books")
    for _ in range(2):
        manifest, books = run(file, tmp_path / "out", settings)
        sold = Counter(prediction.body["prompt"] for prediction in books.predictions())
        assert sold == Counter(job.prompt for job in file.jobs)
        assert manifest.totals.successful == manifest.totals.total == len(file.jobs)
        assert Decimal(manifest.totals.charged).scaleb(-6) == books.charged()
        assert books.peak_in_flight() <= file.settings.max_workers
        assert books.media_credentials() == 0
    written = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert Decimal(str(written["total_cost"])) == books.charged()
    paths = [asset["local_path"] for row in written["results"] for asset in row["assets"]]
    assert len(paths) == len(set(paths)) == len(file.jobs)
    assert all((tmp_path / "out" / path).stat().st_size for path in paths)


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_recoverable_faults_lose_nothing(tmp_path: Path, wire: str) -> None:
    """Refused submits, hidden predictions, failures with retries, broken downloads."""
    file = load_jobs(CONFIGS / "scenario_social.yaml")
    faults = Faults(rate_limited=0.2, not_found_first=0.3, failed=0.2, cut=0.5)
    settings = SimulatorSettings(speed=SPEED, wire=wire, faults=faults, books=tmp_path / "books")
    manifest, books = run(
        file, tmp_path / "out", settings, retries=20, deadlines=Deadlines(image=60, video=60)
    )
    assert manifest.totals.successful == len(file.jobs)
    assert Decimal(manifest.totals.charged).scaleb(-6) == books.charged()


def test_a_dropped_answer_is_unknown_and_stays_so(tmp_path: Path) -> None:
    """Taken, charged, never answered: unknown, reserved, and not bought a second time."""
    file = load_jobs(CONFIGS / "quickstart.yaml")
    settings = SimulatorSettings(speed=SPEED, faults=Faults(dropped=1.0), books=tmp_path / "books")
    for _ in range(2):
        manifest, books = run(file, tmp_path / "out", settings)
        assert manifest.totals.unknown == len(file.jobs) == len(books.predictions())
        assert Decimal(manifest.totals.reserved).scaleb(-6) == books.charged()


def test_moderation_is_final(tmp_path: Path) -> None:
    """Refused input is bought once, costs nothing, and keeps its reason."""
    file = load_jobs(CONFIGS / "quickstart.yaml")
    settings = SimulatorSettings(
        speed=SPEED, faults=Faults(moderated=1.0), books=tmp_path / "books"
    )
    manifest, books = run(file, tmp_path / "out", settings)
    assert manifest.totals.failed == len(file.jobs) == len(books.predictions())
    assert manifest.totals.charged == 0
    assert all("content policy" in str(result.error) for result in manifest)
