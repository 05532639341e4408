"""The fold writes fields by name, and leaves out what a kind of event cannot change."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from asyncpipe.jobs import events
from asyncpipe.jobs.events import Event, now
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import MOVES_MONEY, JobRecord, changed, fold
from asyncpipe.jobs.states import TRANSITIONS, JobState

MONEY = ("reserved", "charged", "booked", "overrun", "paid", "estimated", "held", "lost", "spent")
VALUES: dict[str, Any] = {
    "int": 3, "str": "x", "bool": True, "float": 1.5, "tuple[int, ...]": (0,),
    "tuple[str, ...]": ("https://h/1",), "int | None": 7, "str | None": "y",
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


def record(state: JobState, **fields: Any) -> JobRecord:
    job = Job(model="m/text-to-image", prompt="x")
    return JobRecord(id=1, key="k", name="n", job=job, state=state, **fields)


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("paid", [False, True])
def test_every_event_leaves_a_whole_record_and_its_own_fields_in_it(
    event: Event, paid: bool
) -> None:
    """A field of another name, polls that are not counted: nobody else would notice."""
    states = [state for state, targets in TRANSITIONS.items() if event.target in targets]
    for state in states or [JobState.GENERATED]:
        before = record(state, reserved=5, booked=4, lost=1, held=3, paid=paid, error="before")
        after = fold(before, event)
        assert after == replace(before, **after.__dict__)  # which knows the names
        names = {field.name for field in fields(event)}
        if "polls" in names:
            assert after.polls == before.polls + getattr(event, "polls")  # noqa: B009
        if "error" in names and event.stored:
            assert after.error == getattr(event, "error")  # noqa: B009
        if type(event) not in MOVES_MONEY:
            assert [getattr(after, n) for n in MONEY] == [getattr(before, n) for n in MONEY]


def test_a_copy_leaves_the_original() -> None:
    """Records are frozen; a copy shares nothing that could change."""
    before = record(JobState.PENDING)
    after = changed(before, {"state": JobState.SUBMITTING, "polls": 2})
    assert (before.state, before.polls) == (JobState.PENDING, 0)
    assert (after.state, after.polls, after.key) == (JobState.SUBMITTING, 2, "k")
    with pytest.raises(AttributeError):
        after.polls = 3  # type: ignore[misc]
