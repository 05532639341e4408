"""The fold writes fields by name, and leaves out what a kind of event cannot change."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from typing import Any

import pytest

from asyncpipe.errors import IllegalTransition
from asyncpipe.jobs import events
from asyncpipe.jobs.events import (
    Absent,
    Event,
    Failed,
    Generated,
    Intended,
    LostSettled,
    NotBought,
    PassedOn,
    Polled,
    Released,
    Resubmitted,
    RetryAsked,
    TurnedUp,
    Unknown,
    now,
)
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import (
    NO_ATTEMPT,
    Attempt,
    JobRecord,
    Settled,
    changed,
    fold,
    made,
)
from asyncpipe.jobs.states import TRANSITIONS, JobState

MONEY = ("reserved", "charged", "booked", "told", "overrun", "estimated", "settled")
MOVES_MONEY = {
    Intended,
    NotBought,
    PassedOn,
    Generated,
    Released,
    Failed,
    RetryAsked,
    Resubmitted,
    LostSettled,
    Absent,
    TurnedUp,
}
KEPT_ELSEWHERE = {"job_id", "at", "charged", "found_free", "said", "indexes", "index", "path"} | {
    "size", "sha256", "attempt", "created", "stops", "closed_at"
}  # fmt: skip
"""Fields of events that a record has under another name or in its money, or that are the run's."""
LOST = Attempt(n=3, reserved=3, booked=2, lost_at=now())
VALUES: dict[str, Any] = {
    "int": 3, "str": "x", "bool": True, "float": 1.5, "tuple[int, ...]": (0,),
    "tuple[str, ...]": ("https://h/1",), "int | None": 7, "str | None": "y",
    "Notes": {"error": "z", "moderated": True},
}  # fmt: skip


def every_event() -> list[Event]:
    """One of each kind, every field of it set."""
    found = []
    kinds = {kind.__name__ for kind in Event.__subclasses__()}
    for kind in (getattr(events, name) for name in sorted(kinds)):
        own = fields(kind)[2:]
        told = {f.name: VALUES.get(str(f.type), None if f.default is MISSING else f.default)
                for f in own}  # fmt: skip
        found.append(kind(job_id=1, at=now(), **told))
    return found


def money(attempt: Attempt) -> list[Any]:
    return [getattr(attempt, name) for name in MONEY]


def leaves_behind(event: Event) -> bool:
    """Whether what it says is of an earlier attempt afterwards."""
    return isinstance(event, Absent | TurnedUp)


def record(state: JobState, **fields: Any) -> JobRecord:
    job = Job(model="m/text-to-image", prompt="x")
    return JobRecord(id=1, key="k", name="n", job=job, state=state, **fields)


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("paid", [False, True])
def test_every_event_leaves_a_whole_record_and_its_own_fields_in_it(
    event: Event, paid: bool
) -> None:
    """A field of another name, or one that is left out: nobody else would notice."""
    states = [state for state, targets in TRANSITIONS.items() if event.target in targets]
    settled = Settled.CHARGED if paid else None
    for state in states or [JobState.GENERATED]:
        before = record(
            state,
            attempt=Attempt(n=4, reserved=5, booked=4, polls=2, error="before", settled=settled),
            used=3,
            version=8,
            earlier=(LOST,),
        )
        after = fold(before, event)
        assert after == replace(before, **after.__dict__)  # which knows the names
        assert after.attempt == replace(before.attempt, **after.attempt.__dict__)
        assert after.version == 9
        for field in fields(event):
            said = getattr(event, field.name)
            if field.name not in KEPT_ELSEWHERE | ({"told"} if paid else set()) and event.stored:
                attempt = after.earlier[-1] if leaves_behind(event) else after.attempt
                kept = after if hasattr(after, field.name) else attempt
                if isinstance(event, PassedOn) and field.name == "notes":
                    said = {**said, "passed_on": True}
                assert getattr(kept, field.name) == said, field.name
        blank = isinstance(event, Intended | RetryAsked | Resubmitted | Absent)
        assert after.attempt.polls == (0 if blank else 2 + isinstance(event, Polled))
        if type(event) not in MOVES_MONEY:
            assert after.earlier == before.earlier
            assert money(after.attempt) == money(before.attempt)


def test_an_attempt_that_is_left_behind_keeps_its_money_and_the_next_begins_blank() -> None:
    """Whatever the record had of it; a refused submit leaves nothing behind, only its count."""
    first = fold(record(JobState.PENDING), intended(1))
    unknown = fold(first, Unknown(job_id=1, at=now(), error="reset"))
    again = fold(unknown, Resubmitted(job_id=1, at=now()))
    assert (again.held, again.lost, again.next_attempt) == (5, 1, 2)
    assert (again.attempt, again.earlier) == (NO_ATTEMPT, (unknown.attempt,))
    intent = intended(2)
    refused = fold(fold(again, intent), NotBought(job_id=1, at=now(), error="429"))
    taken = fold(refused, intent)
    assert taken.attempt == replace(fold(again, intent).attempt, refusals=1)
    assert taken.held == 5
    free = fold(taken, LostSettled(job_id=1, at=now(), attempt=1, charged=False))
    assert (free.held, free.lost, free.charged) == (0, 0, 0)
    assert free.earlier[0].settled is Settled.FREE
    with pytest.raises(IllegalTransition, match="attempt 1 of n has no lost answer"):
        fold(free, LostSettled(job_id=1, at=now(), attempt=1, charged=True))


@pytest.mark.parametrize(
    ("bought", "found_free", "settled", "refusals"),
    [
        (False, False, Settled.ABSENT, 1),
        (True, False, Settled.RELEASED, 0),
        (True, True, Settled.FREE, 0),
        (False, True, Settled.FREE, 1),
    ],
)
def test_a_failure_that_is_not_charged_says_why(
    bought: bool, found_free: bool, settled: Settled, refusals: int
) -> None:
    """Refused, returned by the provider, or found free by the user."""
    named = "p" if bought else None
    event = Failed(job_id=1, at=now(), error="no", found_free=found_free, prediction_id=named)
    after = fold(fold(record(JobState.PENDING), intended(1)), event)
    now_ = after.attempt
    assert (now_.settled, now_.refusals, now_.reserved) == (settled, refusals, 0)
    assert now_.settled_at == event.at


def intended(attempt: int) -> Intended:
    price: Any = {"reserved": 5, "booked": 4, "price_source": "t"}
    return Intended(job_id=1, at=now(), attempt=attempt, **price)


def test_a_copy_leaves_the_original() -> None:
    """Records are frozen; a copy shares nothing that could change."""
    before = record(JobState.PENDING)
    after = changed(before, state=JobState.SUBMITTING, used=2)
    assert (before.state, before.used) == (JobState.PENDING, 0)
    assert (after.state, after.used, after.key) == (JobState.SUBMITTING, 2, "k")
    with pytest.raises(AttributeError):
        after.used = 3  # type: ignore[misc]


def test_records_share_their_keys() -> None:
    """However a record was made and whatever happened to it: each takes a quarter of the memory."""
    first = fold(record(JobState.PENDING), intended(1))
    after = fold(first, Unknown(job_id=1, at=now(), error="reset"))
    read = made(JobRecord, {**after.__dict__, "attempt": made(Attempt, {**after.attempt.__dict__})})
    for each in (first, after, fold(read, Resubmitted(job_id=1, at=now())), changed(read, used=1)):
        assert sys.getsizeof(each.__dict__) < 300
        assert sys.getsizeof(each.attempt.__dict__) < 400


def test_a_submit_is_lost_when_its_connection_is_closed_at_the_latest() -> None:
    """Where nobody can tell before: absence is counted from then."""
    first = record(JobState.SUBMITTING, attempt=Attempt(n=1, reserved=3, booked=3))
    later = now() + timedelta(minutes=5)
    after = fold(first, Unknown(job_id=1, at=now(), error="gone", closed_at=later))
    assert after.attempt.lost_at == later
