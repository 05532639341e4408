"""What each event writes: pure, from event to SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import orjson

from asyncpipe.events import (
    EVENTS_VERSION,
    AssetStored,
    Damaged,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Generated,
    Intended,
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


def statements(event: Event) -> Iterator[Statement]:
    """Yield the statements that make ``event`` durable, in order."""
    yield (
        ADD_EVENT,
        (
            event.job_id,
            event.at.isoformat(),
            type(event).__name__,
            EVENTS_VERSION,
            orjson.dumps(
                {name: _plain(getattr(event, name)) for name in _own(type(event))}
            ).decode(),
        ),
    )
    yield from _attempt(event)
    yield from _assets(event)
    if event.target is not None:
        yield SET_STATE, (event.target.value, event.job_id)


def _own(kind: type[Event]) -> tuple[str, ...]:
    """The fields an event has besides the job and the time."""
    if kind not in _OWN:
        _OWN[kind] = tuple(field.name for field in fields(kind)[2:])
    return _OWN[kind]


_OWN: dict[type[Event], tuple[str, ...]] = {}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [INLINE if str(item).startswith(INLINE) else item for item in value]
    return value


def _attempt(event: Event) -> Iterator[Statement]:
    at, job_id = event.at.isoformat(), event.job_id
    match event:
        case Intended():
            yield _intended(event)
        case Submitted():
            yield _latest(
                event,
                prediction_id=event.prediction_id,
                route=event.route,
                request_id=event.request_id,
                submitted_at=at,
            )
        case Generated():
            outputs = orjson.dumps(_plain(event.outputs)).decode()
            yield _charge(event, event.told)
            yield (
                "UPDATE attempts SET outputs=?, polls=polls+?, generation_s=?,"
                " prediction_id=coalesce(?, prediction_id),"
                " route=coalesce(?, route),"
                " request_id=coalesce(?, request_id), error=NULL, ended_at=?,"
                f" submitted_at=coalesce(submitted_at, ?) WHERE {_LATEST}",
                (
                    outputs,
                    event.polls,
                    event.generation_s,
                    event.prediction_id,
                    event.route,
                    event.request_id,
                    at,
                    at,
                    job_id,
                    job_id,
                ),
            )
        case Succeeded():
            yield _latest(event, error=None, ended_at=at)
        case PolledAgain():
            yield _latest(event, error=None, resumed_at=at)
        case NotBought() | FetchFailed() | Lost() | Unknown() | Expired() | Released() | Failed():
            yield from _ended(event)
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


def _intended(event: Intended) -> Statement:
    # A submit that surely bought nothing leaves its attempt open: the same number again.
    return (
        "INSERT OR REPLACE INTO attempts"
        "(job_id, n, reserved, booked, estimated, price_source, assumed, intended_at)"
        " VALUES(?,?,?,?,?,?,?,?)",
        (
            event.job_id,
            event.attempt,
            event.reserved,
            event.reserved if event.booked is None else event.booked,
            int(event.estimated),
            event.price_source,
            event.assumed,
            event.at.isoformat(),
        ),
    )


def _assets(event: Event) -> Iterator[Statement]:
    job_id = event.job_id
    match event:
        case AssetStored():
            yield (
                "INSERT OR REPLACE INTO assets(job_id, n, position, path, size, sha256)"
                " SELECT ?, used+1, ?, ?, ?, ? FROM jobs WHERE id=?",
                (job_id, event.index, event.path, event.size, event.sha256, job_id),
            )
        case Damaged():
            yield _latest(event, error=event.error)
            for index in event.indexes:
                yield f"DELETE FROM assets WHERE {_LATEST} AND position=?", (*_ids(event), index)


def _ended(
    event: NotBought | FetchFailed | Lost | Unknown | Expired | Released | Failed,
) -> Iterator[Statement]:
    """Yield what an event with an error writes; money is settled by the kind of event."""
    values: dict[str, Any] = {"error": event.error}
    if isinstance(event, NotBought | Released | Failed | Lost):
        values["ended_at"] = event.at.isoformat()
    if getattr(event, "request_id", None):
        values["request_id"] = getattr(event, "request_id", None)
    if isinstance(event, Released | Failed):
        values["error_code"] = event.error_code
    if isinstance(event, Failed):
        values["moderated"] = int(event.moderated)
    if isinstance(event, Released | Failed) and event.prediction_id:
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
        "UPDATE attempts SET charged=coalesce(?, booked, reserved),"
        " overrun=max(coalesce(?, booked, reserved)-reserved, 0), told=?, reserved=0,"
        f" settled='{CHARGED}' WHERE {_LATEST} AND settled IS NULL",
        (told, told, told, *_ids(event)),
    )


def _ids(event: Event) -> tuple[int, int]:
    return event.job_id, event.job_id


def _latest(event: Event, **values: Any) -> Statement:
    columns = ", ".join(f"{column}=?" for column in values)
    return f"UPDATE attempts SET {columns} WHERE {_LATEST}", (*values.values(), *_ids(event))
