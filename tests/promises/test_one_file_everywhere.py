"""One job file, run at every provider there is, simulated: exit 0, and the books agree."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.command_line import asyncpipe, books, manifest, write_jobs

FILE = """\
polling: {initial_s: 0.05, maximum_s: 0.2}
prices: {acme/mug-maker: {per_image: 0.05}}
jobs:
  - {name: 杯, count: 4, type: image, model: acme/mug-maker, prompt: a mug, width: 64, height: 64}
"""


@pytest.mark.parametrize("provider", ["atlas", "fal", "replicate"])
def test_one_job_file_runs_at_every_provider(tmp_path: Path, provider: str) -> None:
    """Beside faults that a client can recover from; the second run buys nothing."""
    write_jobs(tmp_path / "jobs.yaml", FILE)
    options = ("--simulate", "--simulate-speed", 60, "--simulate-faults", "all=0.1", "-o", "out")
    for _ in range(2):
        command = ("run", "jobs.yaml", "--provider", provider, "--allow-unknown-models", *options)
        done = asyncpipe(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    with closing(books(tmp_path / "out")) as sold:
        report = manifest(tmp_path / "out")
        kept = [each for each in sold.predictions() if each.outcome == "completed"]
        assert len(kept) == report["successful"] == 4
        assert Decimal(str(report["total_cost"])) == sold.charged() == Decimal("0.2")
    assert asyncpipe("status", "out", cwd=tmp_path).returncode == 0
