"""One job file at every provider there is: faults, kills, and the books that agree."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from tests.support.chaos import LONG
from tests.support.command_line import (
    a_simulator,
    asyncpipe,
    books,
    environment,
    manifest,
    server_books,
    started,
    submitted,
)
from tests.support.crashes import killing

pytestmark = pytest.mark.timeout(600 if LONG else 180)

PROVIDERS = ("atlas", "fal", "replicate")

KEYS = {
    "ATLASCLOUD_API_KEY": "apikey-every",
    "FAL_KEY": "id:secret-of-fal",
    "REPLICATE_API_TOKEN": "r8_of_replicate",
}

JOBS = 24

JOB_FILE = """
max_workers: 8
polling: {initial_s: 0.05, maximum_s: 0.3}
retries: 8
prices:
  black-forest-labs/flux-2-pro: {per_image: 0.05}
  google/imagen4-ultra: {per_image: 0.05}
jobs:
""" + "".join(
    f"  - {{name: 杯 {n}, model: {model}, type: image, prompt: mug {n}, width: 64, height: 64}}\n"
    for n in range(JOBS)
    for model in [("black-forest-labs/flux-2-pro", "google/imagen4-ultra")[n % 2]]
)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_one_job_file_ends_well_at_every_provider(provider: str, tmp_path: Path) -> None:
    """With refusals, lost polls, failures and cut downloads: exit 0, and the same sum in both.

    What fails at Replicate may be charged, nobody knows: it would be unknown.
    """
    (tmp_path / "jobs.yaml").write_text(JOB_FILE, encoding="utf-8")
    faults = "rate_limited=0.1,poll_error=0.1,cut=0.1"
    faults += "" if provider == "replicate" else ",failed=0.1"
    done = asyncpipe(
        *("run", "jobs.yaml", "--provider", provider, "--simulate", "-o", "out", "--no-progress"),
        *("--simulate-faults", faults, "--yes", "--allow-unknown-models"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = manifest(tmp_path / "out")
    assert told["run"]["provider"] == provider
    assert told["successful"] == JOBS
    with closing(books(tmp_path / "out")) as sold:
        charged = sold.charged()
    assert Decimal(str(told["total_cost"])) == charged > 0


@killing
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("seed", range(10 if LONG else 1))
def test_runs_that_are_killed_pay_nothing_twice(provider: str, seed: int, tmp_path: Path) -> None:
    """kill -9 three times, wherever it hits; then to the end: every prediction is somebody's."""
    rng = Random(f"{provider} {seed}")
    (tmp_path / "jobs.yaml").write_text(JOB_FILE, encoding="utf-8")
    out = tmp_path / "out"
    with a_simulator(tmp_path, "--profile", provider, "--speed", 20) as url:
        words: tuple[str, ...] = ("run", "jobs.yaml", "--provider", provider, "--base-url", url)
        words += ("-o", "out")
        words += ("--no-progress", "--yes", "--search-s", "2", "--allow-unknown-models")
        for kill in range(3):
            least = (kill + 1) * JOBS // 4 - rng.randrange(JOBS // 4)
            with started(*words, cwd=tmp_path, env=environment(**KEYS)) as run:
                while run.poll() is None and submitted(out) < least:
                    pass
                run.send_signal(signal.SIGKILL)
        for _ in range(4):
            done = asyncpipe(*words, cwd=tmp_path, **KEYS)
            if done.returncode == 0:
                break
    told = manifest(out)
    sold, charged = server_books(tmp_path)
    twice = {p: n for p, n in Counter(each.body["prompt"] for each in sold).items() if n > 1}
    assert twice == {}, done.stdout + done.stderr
    known = {each["prediction_id"] for each in told["results"]}
    assert {each.id for each in sold} <= known, done.stdout + done.stderr
    unknown = told["unknown"]
    assert done.returncode == (75 if unknown else 0), done.stdout + done.stderr
    assert told["successful"] == len(sold) == JOBS - unknown > JOBS // 4
    assert Decimal(str(told["total_cost"])) == charged
