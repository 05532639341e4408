"""What budgets of labels and of days have come to: summed in SQL, and kept by those who share it.

A shared ledger keeps a row for each budget that anybody has, a day's under its date. Who changes
what is spent holds the row of ``spent``, so that no other reads or changes these meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import orjson

from asyncpipe.jobs import (
    Job,
    JobRecord,
    committed_against,
    counts_against,
    days_of,
    label_of_budget,
)
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.queries import labelled

_SUM = "SELECT coalesce(sum(a.charged + a.reserved), 0) FROM attempts a"

Caps = Mapping[str, int]
"""Budgets by name, in micro-dollars."""


def spent_on(connection: Connection, budgets: Collection[str], day: date) -> dict[str, int]:
    """Micro-dollars charged or reserved against budgets, by their names; a day's on ``day``."""
    return {name: _sum(connection, _SUM, name, day) for name in budgets}


def _sum(connection: Connection, query: str, name: str, day: date, more: str = "1=1") -> int:
    label = label_of_budget(name)
    if label is None:
        where = "a.intended_at>=? AND a.intended_at<?"
        values = [day.isoformat(), (day + timedelta(days=1)).isoformat()]
    else:
        where, needle = labelled(*label)
        where, values = f"labels IS NOT NULL AND {where}", [needle]
    query = f"{query} JOIN jobs j ON j.id=a.job_id WHERE {more} AND {where}"
    (micro,) = connection.execute(query, values).fetchone()
    return int(micro)


# -- where others spend as well -----------------------------------------------------------------


def written(caps: Caps) -> str:
    """A worker's budgets as it tells them to others."""
    return orjson.dumps(dict(caps)).decode()


def lowest(told: Iterable[str]) -> dict[str, int]:
    """The lowest cap of each budget that any of the workers has."""
    caps: dict[str, int] = {}
    for text in told:
        for name, cap in _caps(text).items():
            caps[name] = min(cap, caps.get(name, cap))
    return caps


@lru_cache(maxsize=1000)
def _caps(text: str) -> Caps:
    caps: dict[str, int] = orjson.loads(text)
    return caps


def _row(name: str, day: date) -> str:
    """The name of a budget's row."""
    return name if label_of_budget(name) is not None else f"{name}:{day}"


def _of_row(row: str) -> tuple[str, date]:
    """The budget that a row is of, and its day."""
    name, _, day = row.rpartition(":")
    if name == "day":
        return name, date.fromisoformat(day)
    return row, date.min


def _share(record: JobRecord, row: str) -> int:
    name, day = _of_row(row)
    return committed_against(record, label_of_budget(name), day)


@dataclass(frozen=True, slots=True)
class Before:
    """What a job had come to before it is written, in micro-dollars: in all, and by day."""

    committed: int
    by_day: Mapping[str, int]

    def against(self, job: Job, row: str) -> int:
        """The part of it that counts against a budget's row."""
        name, day = _of_row(row)
        label = label_of_budget(name)
        if label is None:
            return self.by_day.get(f"{day}", 0)
        return self.committed if counts_against(job, label) else 0


class Weighing:
    """Says which intents fit the budgets; while it is used the row of ``spent`` is held."""

    def __init__(self, connection: Connection, caps: Caps) -> None:
        self._connection, self._caps = connection, caps
        self._sums: dict[str, int] = {}

    def count(self, had: Before, record: JobRecord) -> None:
        """Count a record that is about to be written."""
        for row in self._rows(record.job, days_of(record)):
            added = _share(record, row) - had.against(record.job, row)
            self._sums[row] = self._committed(row) + added

    def fits(self, had: Before, record: JobRecord) -> bool:
        """Whether all budgets of an intent have room for it."""
        at = record.attempt.intended_at
        assert at is not None, "an intent knows when"
        for row in self._rows(record.job, [at.date()]):
            added = _share(record, row) - had.against(record.job, row)
            if self._committed(row) + added > self._caps[_of_row(row)[0]]:
                return False
        return True

    def _committed(self, row: str) -> int:
        if row not in self._sums:
            self._sums[row] = _begun(self._connection, row)
        return self._sums[row]

    def _rows(self, job: Job, days: Sequence[date]) -> list[str]:
        rows = []
        for name in self._caps:
            label = label_of_budget(name)
            if label is None:
                rows += [_row(name, day) for day in days]
            elif counts_against(job, label):
                rows.append(name)
        return rows


def _begun(connection: Connection, row: str) -> int:
    """What a budget has come to; its row is made if there is none."""
    query = "SELECT committed FROM purses WHERE name=?"
    if (kept := connection.execute(query, (row,)).fetchone()) is not None:
        return int(kept[0])
    name, day = _of_row(row)
    micro = _sum(connection, _SUM, name, day)
    connection.execute("INSERT INTO purses(name, committed) VALUES(?, ?)", (row, micro))
    connection.execute("UPDATE spent SET purses=purses+1")
    return micro


def before(
    connection: Connection, records: Iterable[JobRecord], committed: Mapping[int, int]
) -> dict[int, Before]:
    """What jobs had come to before they are written; ``committed`` is that in all, by job."""
    # Nearly all have one day: then all is of that.
    days = {record.id: days_of(record) for record in records}
    mixed = [job_id for job_id, each in days.items() if len(each) > 1]
    by_day: dict[int, dict[str, int]] = {
        job_id: {f"{each[0]}": committed[job_id]} for job_id, each in days.items() if each
    }
    if mixed:
        by_day |= {job_id: {f"{day}": 0 for day in days[job_id]} for job_id in mixed}
        rows = connection.execute(
            "SELECT job_id, substr(intended_at, 1, 10), sum(charged + reserved) FROM attempts"
            " WHERE job_id = ANY(?) GROUP BY 1, 2",
            (mixed,),
        )
        for job_id, day, micro in rows.fetchall():
            by_day[job_id][day] = int(micro)
    return {job_id: Before(committed[job_id], by_day.get(job_id, {})) for job_id in days}


def keep(connection: Connection, records: Iterable[JobRecord], had: Mapping[int, Before]) -> None:
    """Bring the rows of budgets up to what was written; the row of ``spent`` is held."""
    rows = [row[0] for row in connection.execute("SELECT name FROM purses").fetchall()]
    added = dict.fromkeys(rows, 0)
    for record in records:
        for row in rows:
            added[row] += _share(record, row) - had[record.id].against(record.job, row)
    changes = [(micro, row) for row, micro in added.items() if micro]
    if changes:
        connection.executemany("UPDATE purses SET committed=committed+? WHERE name=?", changes)


def forget_labels(connection: Connection) -> None:
    """Let the budgets of labels be summed anew: jobs may have got others."""
    connection.execute("SELECT committed FROM spent FOR UPDATE")
    gone = connection.execute("DELETE FROM purses WHERE name LIKE 'label:%'").rowcount
    if gone:
        connection.execute("UPDATE spent SET purses=purses-?", (gone,))


def standing(connection: Connection, caps: Caps, day: date) -> dict[str, tuple[int, int, int]]:
    """Of every budget its cap, what is committed, and what of that may come back."""
    reserved = "SELECT coalesce(sum(a.reserved), 0) FROM attempts a"
    open_ = "a.reserved>0 AND j.attempt=a.n AND j.state IN ('submitting', 'submitted')"
    found = {}
    for name, cap in caps.items():
        query = "SELECT committed FROM purses WHERE name=?"
        kept = connection.execute(query, (_row(name, day),)).fetchone()
        micro = int(kept[0]) if kept else _sum(connection, _SUM, name, day)
        found[name] = cap, micro, _sum(connection, reserved, name, day, open_)
    return found
