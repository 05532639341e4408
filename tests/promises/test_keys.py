"""Where submits have keys nothing is bought twice and nothing is unknown in the end: kill -9."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe import read_manifest
from asyncpipe.simulator.books import Books
from tests.support.crashes import FLUX, Runner, against_simulator, killing, patient

JOBS = [{"name": f"杯 {n}", "model": FLUX, "prompt": f"杯 {n}"} for n in range(2)]


@killing
@patient
@pytest.mark.parametrize(
    ("faults", "stops"),
    [("", range(62, 82, 3)), ("dropped=0.5,server_error_submit=0.3", range(62, 102, 20))],
    ids=["sound", "lossy"],
)
def test_killed_when_it_submits_every_job_is_bought_once_and_known(
    tmp_path: Path, faults: str, stops: range
) -> None:
    """Two runs over a folder, the first killed; also where most answers are lost."""

    def steps(runner: Runner, books: Books) -> None:
        before = killed = 0
        for stop_at in stops:
            folder = tmp_path / f"{stop_at}"
            killed += runner.run(folder, JOBS, stop_at=stop_at, what="keyed")
            runner.run(folder, JOBS, stop_at=None, what="keyed")
            totals, sold = read_manifest(folder).totals, len(books.predictions())
            assert (totals.successful, totals.unknown, sold - before) == (2, 0, 2), stop_at
            assert totals.reserved == 0
            before = sold
        assert killed > 0
        assert books.counter("replayed") > 0

    against_simulator(tmp_path, steps, profile="keyed", faults=faults)
