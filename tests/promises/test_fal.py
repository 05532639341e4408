"""fal, simulated, with everything that can go wrong: paid once, nothing lost, the books agree."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe import Deadlines, Fal, Job, JobType, Manifest, Pipeline, Polling
from asyncpipe.jobs.settings import Limits
from asyncpipe.pricing import from_micro
from asyncpipe.simulator import BookedPrediction, Books, Faults, Simulator, SimulatorSettings
from tests.support.chaos import LONG, bought, every_fault, on_disk
from tests.support.clock import Clock
from tests.support.command_line import a_simulator, asyncpipe, books, manifest, write_jobs
from tests.support.servers import PNG

IMAGE, VIDEO = "fal-ai/flux/dev", "fal-ai/kling-video/v2/master/text-to-video"
OTHERS = ("fal-ai/flux-pro/v1.1-ultra", "workflows/me/mugs", "fal-ai/anybody/compute")
SEEDS = range(10 if LONG else 1)
JOBS = 60
SMALL = {"width": 64, "height": 64}


def all_sorts(count: int) -> list[Job]:
    """Jobs of five models, pictures and clips: billed by megapixel, second, image and compute."""
    models = (IMAGE, VIDEO, *OTHERS)
    return [
        Job(
            name=f"杯 {n}",
            model=model,
            prompt=f"mug {n}",
            type=JobType.VIDEO if model == VIDEO else JobType.IMAGE,
            params={"duration": 5}
            if model == VIDEO
            else {"image_size": {"width": 64, "height": 64}},
        )
        for n in range(count)
        for model in [models[n % len(models)]]
    ]


def run(
    folder: Path,
    clock: Clock,
    jobs: list[Job],
    *,
    faults: Faults,
    seed: int = 0,
    times: int = 1,
    key: str = "id:secret-of-fal",
    **options: Any,
) -> tuple[Manifest, Exception | None, list[BookedPrediction]]:
    """Run a batch ``times`` times into one folder, beside one set of books."""
    settings = SimulatorSettings(
        profile="fal",
        faults=faults,
        seed=seed,
        books=folder / "books.sqlite3",
        history_lag_s=2.0,
        body_bytes=2000,
        **options,
    )

    async def main() -> tuple[Manifest, Exception | None, list[BookedPrediction]]:
        async with Simulator(settings) as simulator:
            for _ in range(times):
                async with Pipeline(
                    Fal(key, base_url=simulator.base_url, simulated=True),
                    folder / "out",
                    max_workers=24,
                    polling=Polling(initial_s=0.05, maximum_s=0.5),
                    deadlines=Deadlines(image=300, video=300),
                    limits=Limits(window="fixed", downloads=16),
                    recovery={"retries": 8, "search_s": 20.0},
                    storage={"min_free_bytes": 0},
                ) as pipeline:
                    done = await pipeline.batch_generate(jobs)
            return done, pipeline.stopped, simulator.books.predictions()

    return clock.run(main())


def charged(folder: Path) -> Any:
    books = Books(folder / "books.sqlite3")
    try:
        return books.charged()
    finally:
        books.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_every_job_is_bought_once(
    tmp_path: Path, one_clock: Clock, seed: int
) -> None:
    """Lost answers, too: they are found in the list, which shows what has ended, and late."""
    faults = every_fault(Random(seed), dropped=0.1, nameless=0.05, server_error_submit=0.05)
    done, stopped, sold = run(tmp_path, one_clock, all_sorts(JOBS), faults=faults, seed=seed)
    assert stopped is None
    assert (done.totals.successful, done.totals.unknown) == (JOBS, 0), done.totals
    assert Counter(bought(sold).values()) == {1: JOBS}
    assert done.totals.charged == charged(tmp_path)
    on_disk(tmp_path / "out", list(done))


def test_a_refusal_that_may_be_charged_is_nobodys_money(tmp_path: Path, one_clock: Clock) -> None:
    """Answered 422 for its result, a job is unknown: its money stays reserved, it is not resent."""
    faults = Faults(late_refusal=0.4, moderated=0.2)
    done, _, sold = run(tmp_path, one_clock, all_sorts(30), faults=faults, times=3)
    ends = Counter(each.outcome for each in sold)
    assert ends.keys() == {"charged", "refused", "moderated", "completed"}
    assert len(sold) == 30
    assert done.totals.successful == ends["completed"]
    assert done.totals.unknown == 30 - ends["completed"]
    kept = sum(each.price for each in sold if each.outcome == "charged")
    assert from_micro(done.totals.charged_micro + kept) == charged(tmp_path)
    assert done.totals.reserved_micro >= kept


def test_an_error_of_the_server_is_submitted_again(tmp_path: Path, one_clock: Clock) -> None:
    """It is not charged, and says so."""
    done, _, sold = run(tmp_path, one_clock, all_sorts(20), faults=Faults(failed=0.5))
    assert done.totals.successful == 20
    assert len(sold) > 20
    assert set(bought(sold).values()) == {1}
    assert done.totals.charged == charged(tmp_path)


def test_a_locked_account_stops_the_run_and_loses_nothing(tmp_path: Path, one_clock: Clock) -> None:
    """403 on submits; what was bought is polled to its end."""
    done, stopped, sold = run(
        tmp_path, one_clock, all_sorts(40), faults=Faults(), balance_usd=from_micro(1_000_000)
    )
    assert "no money left" in str(stopped)
    assert done.totals.successful == len(sold) > 0
    assert done.totals.pending == 40 - len(sold)
    assert done.totals.charged == charged(tmp_path)


def test_requests_listed_under_other_ids_are_taken_for_no_other_job(
    tmp_path: Path, one_clock: Clock
) -> None:
    """Of one body a lost submit takes none that may be its twin's; of another it is found."""
    twins = [
        Job(model=IMAGE, prompt=f"mug {n // 2}", name=f"twin {n}", type=JobType.IMAGE)
        for n in range(40)
    ]
    faults = Faults(dropped=0.3, retried=1.0)
    # Some are listed long before their twins, which are still worked on.
    wide: dict[str, Any] = {"faults": faults, "generation_s": (2.0, 600.0)}
    done, _, sold = run(tmp_path, one_clock, twins, times=2, **wide)
    assert len(sold) == 40
    assert done.totals.successful + done.totals.unknown == 40
    told = [result.prediction_id for result in done if result.prediction_id]
    mine = [each if each in {p.id for p in sold} else each[::-1] for each in told]
    assert len(set(mine)) == len(mine), "one prediction for two jobs"
    # Lost ones whose twin was not: their row may be the twin's by a new id.
    assert done.totals.unknown > 0
    single = [Job(model=IMAGE, prompt=f"jug {n}", type=JobType.IMAGE) for n in range(20)]
    alone = tmp_path / "alone"
    alone.mkdir()
    done, _, sold = run(alone, one_clock, single, **wide)
    assert (done.totals.successful, done.totals.unknown, len(sold)) == (20, 0, 20)


JOB_FILE = """\
provider: fal
output_dir: out
polling: {initial_s: 0.05, maximum_s: 0.2}
jobs:
  - {name: 杯, type: image, model: fal-ai/flux/dev, prompt: a mug, params: {num_images: 2}}
  - {name: film, type: video, model: fal-ai/kling-video/v2/master/text-to-video, prompt: steam,
     duration: 5}
  - {name: word, type: audio, model: fal-ai/minimax/speech-02-hd, params: {text: one mug of tea}}
  - {name: made, type: image, model: fal-ai/any/editor, prompt: blue, image: mug.png}
"""


def test_a_job_file_of_fals_runs_from_the_command_line(tmp_path: Path) -> None:
    """Priced, uploaded, bought once, delivered; the second run buys nothing, the books agree."""
    write_jobs(tmp_path / "fal.yaml", JOB_FILE)
    (tmp_path / "mug.png").write_bytes(PNG)
    for _ in range(2):
        done = asyncpipe("run", "fal.yaml", "--simulate", "--simulate-speed", 60, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    with closing(books(tmp_path / "out")) as sold:
        report = manifest(tmp_path / "out")
        assert len(sold.predictions()) == report["successful"] == 4
        assert Decimal(str(report["total_cost"])) == sold.charged()
        assert (sum(sold.uploads().values()), sold.media_credentials()) == (1, 0)
        (made,) = (p for p in sold.predictions() if p.model == "fal-ai/any/editor")
        assert "/uploads/" in made.body["image"]
    assert asyncpipe("verify", "out", cwd=tmp_path).returncode == 0
    other = asyncpipe("run", "fal.yaml", "--simulate", "--provider", "atlas", cwd=tmp_path)
    assert other.returncode == 2, other.stderr
    assert "fal" in other.stderr


def test_an_admins_key_compares_the_ledger_with_the_bill(tmp_path: Path) -> None:
    """Request by request; to another key fal tells none, and that is said."""
    write_jobs(tmp_path / "fal.yaml", JOB_FILE.rpartition("  - {name: made")[0])
    with a_simulator(tmp_path, "--profile", "fal") as url:
        done = asyncpipe("run", "fal.yaml", "--base-url", url, cwd=tmp_path, FAL_KEY="admin:a")
        assert done.returncode == 0, done.stdout + done.stderr
        agrees, refused = (
            asyncpipe("reconcile", "out", "--base-url", url, cwd=tmp_path, FAL_KEY=key)
            for key in ("admin:a", "user:b")
        )
    assert (agrees.returncode, "Ledger and bill agree" in agrees.stdout) == (0, True)
    assert (refused.returncode, "ADMIN keys only" in refused.stderr) == (3, True)
