"""What each event writes: pure, from event to SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import orjson

from asyncpipe.jobs import (
    EVENTS_VERSION,
    AssetStored,
    Damaged,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Generated,
    Intended,
    JobState,
    Lost,
    LostSettled,
    NotBought,
    PolledAgain,
    Released,
    Resubmitted,
    RetryAsked,
    Submitted,
    Succeeded,
    Unknown,
)

Statement = tuple[str, tuple[Any, ...]]

ADD_EVENT = "INSERT INTO events(job_id, at, kind, version, fields) VALUES(?,?,?,?,?)"

SET_STATE = "UPDATE jobs SET state=? WHERE id=?"

INLINE = "data:"
"""Prefix of outputs that carry the media themselves; only the prefix is stored, polling again
brings the rest."""

CHARGED, RELEASED = "charged", "released"
"""How an attempt is settled; NULL: its money is reserved, or nobody knows."""

_LATEST = "job_id=? AND n=(SELECT used+1 FROM jobs WHERE id=?)"

Row = tuple[Any, ...]


def statements(event: Event) -> Iterator[Statement]:
    """Yield the statements that make ``event`` durable, in order."""
    at = text_of(event.at)
    yield ADD_EVENT, event_row(event, at)
    common = COMMON.get(type(event))
    if common is not None:
        sql, row = common
        yield sql, row(event, at)
    else:
        yield from others(event, at)
    if event.target is not None:
        yield SET_STATE, (WORDS[event.target], event.job_id)


def text_of(at: datetime) -> str:
    """The same text as isoformat, three times as fast."""
    return orjson.dumps(at)[1:-1].decode()


def event_row(event: Event, at: str) -> Row:
    """What ADD_EVENT writes; ``at`` is the event's time as text."""
    kind = type(event)
    own = {name: getattr(event, name) for name in _own(kind)}
    if "outputs" in own:
        own["outputs"] = _shown(own["outputs"])
    return event.job_id, at, kind.__name__, EVENTS_VERSION, orjson.dumps(own).decode()


def _own(kind: type[Event]) -> tuple[str, ...]:
    """The fields an event has besides the job and the time."""
    if kind not in _OWN:
        _OWN[kind] = tuple(field.name for field in fields(kind)[2:])
    return _OWN[kind]


_OWN: dict[type[Event], tuple[str, ...]] = {}

WORDS = {state: state.value for state in JobState}
"""A state's word, without asking the enumeration every time."""


def _shown(outputs: tuple[str, ...]) -> list[str]:
    return [INLINE if url.startswith(INLINE) else url for url in outputs]


# A submit that surely bought nothing leaves its attempt open: the same number again.
_INTEND = (
    "INSERT OR REPLACE INTO attempts"
    "(job_id, n, reserved, booked, estimated, price_source, assumed, intended_at)"
    " VALUES(?,?,?,?,?,?,?,?)"
)

_SUBMIT = (
    f"UPDATE attempts SET prediction_id=?, route=?, request_id=?, submitted_at=? WHERE {_LATEST}"
)

# An attempt is charged once.
_GENERATE = (
    "UPDATE attempts SET outputs=?, polls=polls+?, generation_s=?,"
    " prediction_id=coalesce(?, prediction_id), route=coalesce(?, route),"
    " request_id=coalesce(?, request_id), error=NULL, ended_at=?,"
    " submitted_at=coalesce(submitted_at, ?),"
    " charged=iif(settled IS NULL, coalesce(?, booked), charged),"
    " overrun=iif(settled IS NULL, max(coalesce(?, booked)-reserved, 0), overrun),"
    " told=iif(settled IS NULL, ?, told), reserved=iif(settled IS NULL, 0, reserved),"
    f" settled=coalesce(settled, '{CHARGED}') WHERE {_LATEST}"
)

_STORE = (
    "INSERT OR REPLACE INTO assets(job_id, n, position, path, size, sha256)"
    " SELECT ?, used+1, ?, ?, ?, ? FROM jobs WHERE id=?"
)

_SUCCEED = f"UPDATE attempts SET error=NULL, ended_at=? WHERE {_LATEST}"


def _intended(event: Intended, at: str) -> Row:
    head = (event.job_id, event.attempt, event.reserved, event.booked, int(event.estimated))
    return *head, event.price_source, event.assumed, at


def _submitted(event: Submitted, at: str) -> Row:
    return event.prediction_id, event.route, event.request_id, at, event.job_id, event.job_id


def _generated(event: Generated, at: str) -> Row:
    told = event.told
    return (
        orjson.dumps(_shown(event.outputs)).decode(),
        event.polls,
        event.generation_s,
        event.prediction_id,
        event.route,
        event.request_id,
        at,
        at,
        told,
        told,
        told,
        event.job_id,
        event.job_id,
    )


def _stored(event: AssetStored, at: str) -> Row:
    job_id = event.job_id
    return job_id, event.index, event.path, event.size, event.sha256, job_id


def _succeeded(event: Succeeded, at: str) -> Row:
    return at, event.job_id, event.job_id


COMMON: dict[type[Event], tuple[str, Callable[[Any, str], Row]]] = {
    Intended: (_INTEND, _intended),
    Submitted: (_SUBMIT, _submitted),
    Generated: (_GENERATE, _generated),
    AssetStored: (_STORE, _stored),
    Succeeded: (_SUCCEED, _succeeded),
}
"""The events of a job that goes well, in the order in which they come: one statement each."""


def others(event: Event, at: str) -> Iterator[Statement]:
    """Yield what the other events write besides themselves and the state, in order."""
    job_id = event.job_id
    match event:
        case PolledAgain():
            yield _latest(event, error=None, resumed_at=at)
        case NotBought() | FetchFailed() | Lost() | Unknown() | Expired() | Released() | Failed():
            yield from _ended(event, at)
        case RetryAsked() | Resubmitted():
            failures = event.failures if isinstance(event, Resubmitted) else 0
            yield "UPDATE jobs SET used=used+1, failures=? WHERE id=?", (failures, job_id)
        case LostSettled():
            charged = event.booked if event.charged else 0
            yield (
                "UPDATE attempts SET reserved=0, charged=?, settled=?, ended_at=?"
                " WHERE job_id=? AND n=?",
                (charged, CHARGED if event.charged else RELEASED, at, job_id, event.attempt),
            )
        case Damaged():
            yield _latest(event, error=event.error)
            for index in event.indexes:
                yield f"DELETE FROM assets WHERE {_LATEST} AND position=?", (*_ids(event), index)


def _ended(
    event: NotBought | FetchFailed | Lost | Unknown | Expired | Released | Failed, at: str
) -> Iterator[Statement]:
    """Yield what an event with an error writes; money is settled by the kind of event."""
    values: dict[str, Any] = {"error": event.error}
    if isinstance(event, NotBought | Released | Failed | Lost):
        values["ended_at"] = at
    if getattr(event, "request_id", None):
        values["request_id"] = getattr(event, "request_id", None)
    if isinstance(event, Released | Failed):
        values["error_code"] = event.error_code
    if isinstance(event, Failed):
        values["moderated"] = int(event.moderated)
    if isinstance(event, Released | Failed | Unknown) and event.prediction_id:
        values["prediction_id"] = event.prediction_id
    polls = getattr(event, "polls", 0)
    if polls:
        yield f"UPDATE attempts SET polls=polls+? WHERE {_LATEST}", (polls, *_ids(event))
    yield _latest(event, **values)
    if isinstance(event, Failed) and event.charged:
        yield _charge(event, event.told)
    elif isinstance(event, NotBought | Released | Failed):
        yield _latest(event, reserved=0, settled=RELEASED)
    if isinstance(event, Released):
        yield "UPDATE jobs SET used=used+1, failures=failures+1 WHERE id=?", (event.job_id,)


def _charge(event: Event, told: int | None) -> Statement:
    """Charge the latest attempt once: what the provider says, or else what is booked."""
    return (
        "UPDATE attempts SET charged=coalesce(?, booked),"
        " overrun=max(coalesce(?, booked)-reserved, 0), told=?, reserved=0,"
        f" settled='{CHARGED}' WHERE {_LATEST} AND settled IS NULL",
        (told, told, told, *_ids(event)),
    )


def _ids(event: Event) -> tuple[int, int]:
    return event.job_id, event.job_id


def _latest(event: Event, **values: Any) -> Statement:
    columns = ", ".join(f"{column}=?" for column in values)
    return f"UPDATE attempts SET {columns} WHERE {_LATEST}", (*values.values(), *_ids(event))


def write(batch: Sequence[Event], connection: sqlite3.Connection) -> None:
    """Write events: for every job the same as one after the other, and half as dear.

    The common ones wait and are written kind by kind, in the order in which a job goes through
    them; what goes another way is written after what waits for its job. Of several states that a
    job passed through only the last is written: no statement here reads states.
    """
    events: list[Row] = []
    states: dict[int, Row] = {}
    waiting: list[list[Row]] = [[] for _ in COMMON]
    reached: dict[int, int] = {}  # by job: the place of its last event that waits
    for event in batch:
        kind, job_id, at = type(event), event.job_id, text_of(event.at)
        events.append(event_row(event, at))
        if event.target is not None:
            states[job_id] = (WORDS[event.target], job_id)
        place = _PLACES.get(kind, -1)
        if place < reached.get(job_id, -1):
            _flush(waiting, connection)
            reached.clear()
        if place >= 0:
            waiting[place].append(COMMON[kind][1](event, at))
            reached[job_id] = place
        else:
            for sql, values in others(event, at):
                connection.execute(sql, values)
    _flush(waiting, connection)
    connection.executemany(ADD_EVENT, events)
    connection.executemany(SET_STATE, states.values())


_PLACES = {kind: place for place, kind in enumerate(COMMON)}

_STATEMENTS = [sql for sql, _ in COMMON.values()]


def _flush(waiting: list[list[Row]], connection: sqlite3.Connection) -> None:
    for sql, rows in zip(_STATEMENTS, waiting, strict=True):
        if rows:
            connection.executemany(sql, rows)
            rows.clear()
