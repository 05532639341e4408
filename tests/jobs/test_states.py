"""The transition table and the fold of events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asyncpipe.errors import IllegalTransition
from asyncpipe.jobs.events import (
    AssetStored,
    Failed,
    Generated,
    Intended,
    NotBought,
    Released,
    Submitted,
    Succeeded,
    Unknown,
)
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.jobs.states import ENDED, PAID_OPEN, TRANSITIONS, JobState, advance

AT = datetime(2026, 11, 24, tzinfo=UTC)
JOB = Job(name="杯子", model="m/text-to-image", prompt="a mug")


def record(state: JobState = JobState.PENDING, **fields: object) -> JobRecord:
    return JobRecord(id=1, key="k" * 32, name="杯子", job=JOB, state=state, **fields)  # type: ignore[arg-type]


def intended() -> Intended:
    return Intended(job_id=1, at=AT, attempt=1, reserved=40_000, booked=40_000, price_source="test")


def generated() -> Generated:
    return Generated(job_id=1, at=AT, outputs=("https://x/a.png",), generation_s=9.5)


def test_every_state_has_a_row_and_every_target_is_a_state() -> None:
    """The table is whole."""
    assert set(TRANSITIONS) == set(JobState)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("target", JobState)
def test_only_the_table_moves_a_job(state: JobState, target: JobState) -> None:
    """What the table does not connect raises."""
    if target in TRANSITIONS[state]:
        assert advance(state, target) is target
    else:
        with pytest.raises(IllegalTransition, match=f"no way from {state} to {target}"):
            advance(state, target)


def test_paid_states_never_lead_back_to_submitting_without_pending() -> None:
    """A paid prediction cannot be submitted again by any single move."""
    for state in PAID_OPEN | {JobState.SUCCEEDED, JobState.LOST}:
        assert JobState.SUBMITTING not in TRANSITIONS[state]
    assert JobState.PENDING not in TRANSITIONS[JobState.GENERATED]
    assert not ENDED & PAID_OPEN


def test_money_is_reserved_then_charged() -> None:
    """Reserved at intent, charged when generated."""
    submitted = Submitted(job_id=1, at=AT, prediction_id="p1", route="canonical")
    after = fold(fold(record(), intended()), submitted)
    assert (after.attempt.reserved, after.charged) == (40_000, 0)
    after = fold(after, generated())
    assert (after.attempt.reserved, after.charged) == (0, 40_000)
    stored = AssetStored(job_id=1, at=AT, index=0, path="images/a.png", size=3, sha256="0")
    after = fold(fold(after, stored), Succeeded(job_id=1, at=AT))
    assert after.state is JobState.SUCCEEDED
    assert [asset.position for asset in after.attempt.assets] == [0]


def test_a_refusal_uses_up_no_attempt_and_a_release_does() -> None:
    """429 and the like leave the attempt's number; a provider's failure raises it."""
    refused = fold(fold(record(), intended()), NotBought(job_id=1, at=AT, error="429"))
    assert (refused.next_attempt, refused.attempt.reserved, refused.state) == (
        1,
        0,
        JobState.PENDING,
    )
    submitted = fold(fold(refused, intended()), Submitted(job_id=1, at=AT, prediction_id="p"))
    released = fold(submitted, Released(job_id=1, at=AT, error="gpu"))
    assert (released.next_attempt, released.failures, released.attempt.reserved) == (2, 1, 0)


def test_unknown_keeps_its_money_reserved() -> None:
    """What may have been bought stays reserved."""
    unknown = fold(fold(record(), intended()), Unknown(job_id=1, at=AT, error="reset"))
    assert (unknown.state, unknown.attempt.reserved) == (JobState.UNKNOWN, 40_000)


@pytest.mark.parametrize("charged", [True, False])
def test_failed_says_whether_it_was_charged(charged: bool) -> None:
    """Failed and charged, or failed and released."""
    failed = fold(fold(record(), intended()), Failed(job_id=1, at=AT, error="no", charged=charged))
    assert (failed.attempt.reserved, failed.charged) == (0, 40_000 if charged else 0)
