"""Any order of events: the table decides, and fold, ledger and totals agree after each of them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe import Job, JobState
from asyncpipe.errors import IllegalTransition
from asyncpipe.jobs.events import Event, Failed, now
from asyncpipe.jobs.record import Attempt, JobRecord, fold
from asyncpipe.jobs.states import TRANSITIONS
from asyncpipe.ledger import accounts, queries
from asyncpipe.pricing.money import to_micro
from asyncpipe.report.results import result_of
from asyncpipe.report.totals import Totals
from tests.support.events import (
    AMOUNTS,
    MODELS,
    S,
    check_same,
    event,
    few,
    found_out,
    ledger_in_memory,
    with_jobs,
    with_settling,
    write,
)


@pytest.mark.parametrize("seed", range(30))
def test_the_fold_the_ledger_and_the_totals_agree_after_any_history(seed: int) -> None:
    """Three jobs, any legal events: one truth three times, no money below zero or out of thin air.

    After every single event, since a run may end after any.
    """
    random = Random(seed)
    jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(3)]
    with closing(ledger_in_memory()) as connection:
        records = with_jobs(connection, jobs)
        totals = Totals.of(accounts.sums(connection))
        for _ in range(80):
            which, amount = random.randrange(3), random.choice([0, 1, random.randrange(10**9)])
            before = records[which]
            kinds = with_settling(before)
            if not kinds:
                continue
            kind = random.choice(kinds)
            if kind.startswith("Lost") and kind != "Lost":
                happened: Event = found_out(before, random, charged=kind == "LostCharged")
            else:
                happened = event(kind, before, amount)
            after = records[which] = fold(before, happened)
            totals.fold(before, after)
            if happened.stored:
                write(connection, after)
                check_same(after, queries.records(connection, [after.id])[0])
            check_money(connection, records, totals)


def check_money(connection: sqlite3.Connection, records: list[JobRecord], totals: Totals) -> None:
    assert all(min(r.attempt.reserved, r.charged, r.held) >= 0 for r in records)
    assert not any(r.attempt.reserved and r.attempt.charged for r in records)
    assert not any(r.attempt.reserved and r.attempt.paid for r in records)
    rows = connection.execute("SELECT reserved, charged FROM attempts").fetchall()
    assert all(min(row) >= 0 for row in rows)
    assert totals.reserved_micro == sum(r.attempt.reserved + r.held for r in records)
    assert (totals.reserved_micro, totals.charged_micro) == (
        sum(row[0] for row in rows), sum(row[1] for row in rows)
    )  # fmt: skip
    again = Totals.of(accounts.sums(connection))
    for name in MONEY:
        assert getattr(totals, name) == getattr(again, name), name
    assert totals.charged_micro == sum(totals.cost_by_model_micro.values())
    assert totals.in_doubt == sum(r.in_doubt for r in records)
    assert (+totals.failures, +totals.losses) == (+again.failures, +again.losses)
    results = [result_of(row, None) for row in accounts.results(connection, started=True)]
    outcomes = Counter(result.status for result in results)
    assert outcomes["unknown"] == totals.unknown
    assert outcomes["failed"] == totals.failed
    assert outcomes["success"] == totals.successful
    listed = sum(result.cost + result.reserved for result in results)
    cancelled = sum(r.committed for r in records if r.state is S.CANCELLED)
    assert to_micro(Decimal(listed)) + cancelled == totals.charged_micro + totals.reserved_micro
    assert sum(r.lost_answers for r in results if r.state is not S.CANCELLED) <= totals.lost_answers
    assert +totals.cost_by_model_micro == +again.cost_by_model_micro
    assert +totals.jobs == +again.jobs


MONEY = (
    *("charged", "estimated", "overrun", "overruns", "reserved", "held", "lost_answers"),
    *("in_doubt", "removed", "assets", "bytes"),
)
KINDS = [
    "Intended", "Submitted", "Generated", "Failed", "Charged", "NotBought", "Released", "Unknown",
    "Expired", "Polled", "PolledAgain", "Resubmitted", "AssetStored", "FetchFailed", "Succeeded",
    "Lost", "RetryAsked", "AskedAgain", "Withdrawn", "FoundFree", "Damaged",
]  # fmt: skip


@few(max_examples=300)
@given(
    state=st.sampled_from(S),
    kind=st.sampled_from(KINDS),
    reserved=AMOUNTS,
    held=AMOUNTS,
    amount=AMOUNTS,
)
def test_an_illegal_event_raises_and_changes_nothing(
    state: JobState, kind: str, reserved: int, held: int, amount: int
) -> None:
    """The table decides, whatever else the event says."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    fields: Any = {"id": 1, "key": "k", "name": "杯子", "job": job, "state": state}
    fields["attempt"] = Attempt(n=2, reserved=reserved)
    fields["earlier"] = (Attempt(n=1, reserved=held, booked=held),)
    record, twin = JobRecord(**fields, used=1), JobRecord(**fields, used=1)
    happened = event(kind, record, amount)
    if happened.target is None or happened.target in TRANSITIONS[state]:
        assert fold(record, happened).state is (happened.target or state)
    else:
        with pytest.raises(IllegalTransition):
            fold(record, happened)
    assert record == twin


def test_an_asset_that_has_to_be_fetched_again_keeps_its_price() -> None:
    """The table leads from succeeded back to generated; what was charged stays charged."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    record = JobRecord(id=1, key="k", name="杯子", job=job)
    for kind in ("Intended", "Submitted", "Generated", "Succeeded", "Generated"):
        record = fold(record, event(kind, record, 40_000))
    assert record.charged == 40_000


def test_a_failed_answer_to_a_submit_keeps_its_prediction_id() -> None:
    """The ledger's row has it; the record in memory, and so hooks, do not."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    record = JobRecord(id=1, key="k", name="杯子", job=job, state=JobState.SUBMITTING)
    failed = Failed(job_id=1, at=now(), error="no", prediction_id="late")
    assert fold(record, failed).attempt.prediction_id == "late"


def test_a_success_after_a_failed_download_has_no_error() -> None:
    """The ledger's row has none; the record that hooks get still has."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    record = JobRecord(id=1, key="k", name="杯子", job=job)
    for kind in ("Intended", "Generated", "FetchFailed", "Succeeded"):
        record = fold(record, event(kind, record, 40_000))
    assert record.attempt.error is None
