"""How the events of one commit are written: as few statements as their order allows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from asyncpipe.jobs.events import Event
from asyncpipe.ledger.statements import (
    ADD_EVENT,
    COMMON,
    SET_STATE,
    WORDS,
    Row,
    event_row,
    others,
    text_of,
)


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
