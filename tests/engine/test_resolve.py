"""Lost submits that a person finds: by an id known otherwise, or by looking now."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from asyncpipe import Job, JobState
from asyncpipe.engine import Decision, find_lost, resolve, take_prediction
from asyncpipe.errors import HistoryUnavailable, UsageError
from asyncpipe.report import read_status
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, collect, run_counted

JOBS = [Job(name=f"杯子 {n}", model=FLUX, prompt=f"杯子 {n}") for n in range(2)]


def held(folder: Path) -> FakeProvider:
    """Two jobs whose answers are lost: p1 and p2 are bought."""
    provider = FakeProvider(default=Script(lost=1), shows_history=True)
    assert run_counted(folder, provider, JOBS, ambiguous="hold")[0].totals.unknown == 2
    for made in provider._made.values():
        made.ready = 0.0
    return provider


def killed(folder: Path) -> None:
    """What a kill -9 between the submits and their answers leaves."""
    with sqlite3.connect(folder / ".asyncpipe" / "ledger.sqlite3") as ledger:
        ledger.execute("UPDATE jobs SET state='submitting'")
        ledger.execute("UPDATE attempts SET lost_at=NULL, error=NULL")


@pytest.mark.parametrize("after_kill", [False, True])
def test_an_id_is_taken_by_hand_and_polled_by_collect(tmp_path: Path, after_kill: bool) -> None:
    """Once, for one job; the id of another job's prediction is refused."""
    provider = held(tmp_path)
    if after_kill:
        killed(tmp_path)
    one = run_virtual(take_prediction(tmp_path, "杯子 0", "p1"))
    assert (one.before.state, one.after.state) == (JobState.UNKNOWN, JobState.SUBMITTED)
    with pytest.raises(UsageError, match="p1 is that of '杯子 0' already"):
        run_virtual(take_prediction(tmp_path, "杯子 1", "p1"))
    with pytest.raises(UsageError, match="no unknown job called 杯子 0"):
        run_virtual(take_prediction(tmp_path, "杯子 0", "p9"))
    provider.shows_history = False
    totals = collect(tmp_path, provider).totals
    assert (totals.successful, totals.unknown, len(provider.sold)) == (1, 1, 2)


@pytest.mark.parametrize("after_kill", [False, True])
def test_looking_now_finds_what_the_provider_lists(tmp_path: Path, after_kill: bool) -> None:
    """For all jobs at once; the next run brings them home."""
    provider = held(tmp_path)
    if after_kill:
        killed(tmp_path)
    found = run_virtual(find_lost(tmp_path, provider))
    assert {one.after.attempt.prediction_id for one in found} == {"p1", "p2"}
    assert run_virtual(find_lost(tmp_path, provider)) == []
    assert run_counted(tmp_path, provider, JOBS)[0].totals.successful == 2
    assert len(provider.sold) == 2


def test_looking_now_says_where_there_is_no_list(tmp_path: Path) -> None:
    """Nothing changes."""
    provider = held(tmp_path)
    provider.shows_history = False
    with pytest.raises(HistoryUnavailable, match="no history"):
        run_virtual(find_lost(tmp_path, provider))
    assert read_status(tmp_path).jobs[JobState.UNKNOWN] == 2


def test_what_was_submitted_anew_is_booked_when_it_is_found(tmp_path: Path) -> None:
    """The user had the job submitted again; the first one was bought as well."""
    provider = held(tmp_path)
    run_virtual(resolve(tmp_path, ["杯子 0"], Decision(resubmit=True)))
    (found, booked) = sorted(
        run_virtual(find_lost(tmp_path, provider)), key=lambda one: one.charged
    )
    assert found.after.state is JobState.SUBMITTED
    assert (booked.charged, booked.after.state) == (Decimal("0.04"), JobState.PENDING)


def test_status_and_resolve_know_right_after_a_kill_what_was_being_submitted(
    tmp_path: Path,
) -> None:
    """They may have been bought: unknown, and not in flight; their money is for unknown jobs."""
    held(tmp_path)
    killed(tmp_path)
    status = read_status(tmp_path)
    assert status.counts["unknown"] == 2
    assert status.counts["pending"] == 0
    assert status.money.reserved == {"unknown": 80_000}
    resolved = run_virtual(resolve(tmp_path, [], Decision(resubmit=False)))
    assert [one.after.state for one in resolved] == [JobState.FAILED] * 2
