"""Nothing paid is given up while it can be had: no fault of polling or downloading loses it."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from asyncpipe import JobState
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.chaos import SEEDS, all_sorts, bought, every_fault, on_disk, run_simulated


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("faster_waits")
def test_500_jobs_with_every_recoverable_fault_all_succeed(tmp_path: Path, seed: int) -> None:
    """All succeeded, the manifest equal to the books to the cent, nothing paid for twice."""
    jobs, faults = all_sorts(500), every_fault(Random(seed))
    settings = SimulatorSettings(
        seed=seed, speed=100, faults=faults, books=tmp_path / "books", body_bytes=20_000, hang_s=0.5
    )
    done, stopped = run_simulated(tmp_path / "out", settings, jobs)
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
