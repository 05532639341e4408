"""The fold's short ways say what the long ways say."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from asyncpipe import events
from asyncpipe.events import Event, now
from asyncpipe.jobs import Job
from asyncpipe.ledger import base
from asyncpipe.ledger.base import PARTS, JobRecord, changed
from asyncpipe.states import JobState

ALL = (base._way_changes, base._asset_changes, base._money_changes)
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
def test_no_part_that_is_left_out_had_anything_to_say(event: Event, paid: bool) -> None:
    """Leaving one out would lose money, or an id, without a word."""
    before = record(JobState.SUBMITTED, reserved=5, booked=4, lost=1, held=3, paid=paid)
    said = {part for part in ALL if part(before, event)}
    assert said <= set(PARTS.get(type(event), ()))
    for part in said:
        changes = part(before, event)
        assert changed(before, changes) == replace(before, **changes)  # which knows the names


def test_a_copy_leaves_the_original() -> None:
    """Records are frozen; a copy shares nothing that could change."""
    before = record(JobState.PENDING)
    after = changed(before, {"state": JobState.SUBMITTING, "polls": 2})
    assert (before.state, before.polls) == (JobState.PENDING, 0)
    assert (after.state, after.polls, after.key) == (JobState.SUBMITTING, 2, "k")
    with pytest.raises(AttributeError):
        after.polls = 3  # type: ignore[misc]
