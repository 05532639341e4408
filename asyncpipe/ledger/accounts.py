"""What a folder came to: the queries behind totals, status, manifest, export and reconcile."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import orjson

from asyncpipe.jobs import JobState
from asyncpipe.ledger.errors import rows_of
from asyncpipe.ledger.rows import (
    AssetRow,
    AttemptRow,
    MoneyRow,
    OpenWork,
    Released,
    ResultRow,
    RunRow,
    Sums,
)


def by_name(cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    """The rows of a query as mappings from the names of its columns."""
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


_LATEST = "jobs j JOIN attempts a ON a.job_id=j.id AND a.n=j.used+1"

# Only the last session's jobs are listed; what was never submitted and is named no more is not.
_LISTED = (
    "j.state<>'cancelled' AND (j.state<>'pending' OR j.used>0"
    " OR j.seen_run >= (SELECT coalesce(max(session), 0) FROM runs))"
)

_CHARGED_BEFORE = "EXISTS(SELECT 1 FROM attempts e WHERE e.job_id=j.id AND e.settled='charged')"

_LOST_BEFORE = (
    "EXISTS(SELECT 1 FROM attempts e WHERE e.job_id=j.id AND e.n<=j.used AND e.settled IS NULL)"
)


def removed(connection: sqlite3.Connection) -> int:
    """Jobs that were never submitted and that the last session did not name any more."""
    (count,) = connection.execute(
        "SELECT count(*) FROM jobs WHERE state='pending' AND used=0"
        " AND seen_run < (SELECT coalesce(max(session), 0) FROM runs)"
    ).fetchone()
    return int(count)


def sums(connection: sqlite3.Connection) -> Sums:
    """Count everything."""
    with rows_of("a total"):
        states = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        in_doubt, failed_charged = connection.execute(
            f"SELECT coalesce(sum(a.settled IS NOT 'charged' AND {_LOST_BEFORE}), 0),"
            f" coalesce(sum(a.settled='charged' OR ({_CHARGED_BEFORE} AND NOT {_LOST_BEFORE})), 0)"
            f" FROM {_LATEST} WHERE j.state='failed'"
        ).fetchone()
        causes = connection.execute(
            f"SELECT j.state, coalesce(a.error, ''), count(*) FROM {_LATEST}"
            " WHERE j.state IN ('failed', 'lost') GROUP BY 1, 2"
        )
        assets = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM assets")
        count, size = assets.fetchone()
        return Sums(
            states={JobState(state): number for state, number in states},
            removed=removed(connection),
            in_doubt=in_doubt,
            failed_charged=failed_charged,
            money=[cast(MoneyRow, row) for row in by_name(connection.execute(_MONEY))],
            causes=[(JobState(state), error, number) for state, error, number in causes],
            assets=count,
            bytes=size,
        )


_MONEY = """
SELECT j.model AS model, j.state AS state, a.n<=j.used AS earlier, sum(a.charged) AS charged,
  sum(CASE WHEN a.estimated AND a.told IS NULL THEN a.charged ELSE 0 END) AS estimated,
  sum(a.reserved) AS reserved, sum(a.overrun) AS overrun,
  count(nullif(a.overrun, 0)) AS overruns,
  count(CASE WHEN a.n<=j.used AND a.settled IS NULL THEN 1 END) AS lost
FROM attempts a JOIN jobs j ON j.id=a.job_id GROUP BY 1, 2, 3
"""


def released(connection: sqlite3.Connection) -> Released:
    """What came back; an attempt forgets what was reserved for it: the events know."""
    rows = connection.execute(
        "SELECT e.job_id, e.kind, e.fields, j.model FROM events e JOIN jobs j ON j.id=e.job_id"
        " WHERE e.kind IN"
        " ('Intended', 'Submitted', 'Generated', 'Released', 'Failed', 'NotBought')"
        " AND e.job_id IN (SELECT job_id FROM events"
        "  WHERE kind IN ('Released', 'Failed', 'NotBought')) ORDER BY e.id"
    )
    intended: dict[int, int] = {}
    bought: set[int] = set()
    by_model: Counter[str] = Counter()
    returned = refusals = 0
    with rows_of("a total"):
        for job_id, kind, text, model in rows:
            fields = orjson.loads(text)
            if kind == "Submitted":
                bought.add(job_id)
                continue
            if kind == "Intended":
                intended[job_id] = fields["booked"]
                bought.discard(job_id)
                continue
            amount = intended.pop(job_id, 0)
            was_bought = job_id in bought or bool(fields.get("prediction_id"))
            bought.discard(job_id)
            if kind == "Generated" or fields.get("charged"):
                continue
            if kind == "Released" or was_bought:
                by_model[model] += amount
                returned += 1
            else:
                refusals += 1
    return Released(by_model=by_model, returned=returned, refusals=refusals)


def _over_all(sum_: str, of_one: str, where: str = "") -> str:
    """A sum over a job's attempts; nearly all have one, which is the row at hand."""
    every = f"(SELECT {sum_} FROM attempts WHERE job_id=j.id{where})"
    return f"CASE WHEN a.n=1 THEN {of_one} ELSE {every} END"


_ESTIMATED = "estimated AND told IS NULL AND settled IS NOT 'released'"

_LOST = "n<=j.used AND settled IS NULL"

_RESULTS = f"""
SELECT j.id AS id, j.name AS name, j.key AS key, j.type AS type, j.model AS model, j.spec AS spec,
  j.state AS state, a.n AS n,
  {_over_all("sum(charged)", "a.charged")} AS cost,
  {_over_all("sum(reserved)", "a.reserved")} AS reserved,
  {_over_all("sum(overrun)", "a.overrun")} AS overrun,
  {_over_all("sum(polls)", "a.polls")} AS polls,
  {_over_all("count(*)", "1")} AS attempts,
  {_over_all("count(*)", "a.settled IS 'charged'", " AND settled='charged'")} AS charged,
  {_over_all("count(*)", _ESTIMATED, f" AND {_ESTIMATED}")} AS estimated,
  {_over_all("count(*)", "a." + _LOST, f" AND {_LOST}")} AS lost,
  a.settled IS 'charged' AS paid, a.told IS NOT NULL AS told, a.price_source AS price_source,
  a.assumed AS assumed, a.generation_s AS generation_s, a.prediction_id AS prediction_id,
  a.request_id AS request_id, a.outputs AS outputs, a.error AS error,
  a.submitted_at AS submitted_at, a.ended_at AS ended_at,
  s.path AS path, s.size AS size, s.sha256 AS sha256,
  (SELECT count(*) FROM assets WHERE job_id=j.id AND n=a.n) AS files
FROM jobs j LEFT JOIN attempts a ON a.job_id=j.id
  AND a.n=(SELECT max(n) FROM attempts WHERE job_id=j.id)
  LEFT JOIN assets s ON s.job_id=j.id AND s.n=a.n AND s.position=0
"""


def results(connection: sqlite3.Connection, *, started: bool) -> Iterator[ResultRow]:
    """Every listed job, or those that were ever ``started``: the last run's first, in its order."""
    only = "AND a.n IS NOT NULL" if started else ""
    query = f"{_RESULTS} WHERE {_LISTED} {only} ORDER BY j.seen_run DESC, j.position"
    for row in by_name(connection.execute(query)):
        yield _with_assets(connection, row)


def result(connection: sqlite3.Connection, job_id: int) -> ResultRow | None:
    """One job; None if it was never started."""
    rows = by_name(connection.execute(f"{_RESULTS} WHERE j.id=? AND a.n IS NOT NULL", (job_id,)))
    return next((_with_assets(connection, row) for row in rows), None)


def _with_assets(connection: sqlite3.Connection, row: dict[str, Any]) -> ResultRow:
    """Add a job's files; one, or none, stands in its row."""
    first = AssetRow(path=row.pop("path"), size=row.pop("size"), sha256=row.pop("sha256"))
    count = row.pop("files")
    if count == (first["path"] is not None):
        row["assets"] = (first,) if count else ()
    else:
        query = "SELECT path, size, sha256 FROM assets WHERE job_id=? AND n=? ORDER BY position"
        row["assets"] = tuple(by_name(connection.execute(query, (row["id"], row["n"]))))
    return cast(ResultRow, row)


def label_names(connection: sqlite3.Connection, most: int) -> list[str]:
    """The labels that any listed job has, by their first job; at most so many."""
    found: dict[str, None] = {}
    for job_id, spec in connection.execute(
        f"SELECT id, spec FROM jobs j WHERE {_LISTED} ORDER BY id"
    ):
        with rows_of(f"job {job_id}"):
            found.update(dict.fromkeys(orjson.loads(spec).get("labels", {})))
        if len(found) >= most:
            break
    return list(found)[:most]


_ATTEMPTS = """
SELECT j.id AS id, j.name AS name, j.key AS key, j.type AS type, j.model AS model,
  j.state AS state, a.n AS n, a.n<=j.used AS earlier, a.settled AS settled, a.charged AS charged,
  a.reserved AS reserved, a.booked AS booked, a.overrun AS overrun,
  a.estimated AND a.told IS NULL AND a.settled IS NOT 'released' AS estimated,
  a.told IS NOT NULL AS told, a.price_source AS price_source, a.assumed AS assumed,
  a.prediction_id AS prediction_id, a.request_id AS request_id, a.intended_at AS intended_at,
  a.submitted_at AS submitted_at, a.ended_at AS ended_at, a.error AS error
FROM attempts a JOIN jobs j ON j.id=a.job_id ORDER BY j.seen_run DESC, j.position, a.n
"""


def attempts(connection: sqlite3.Connection) -> Iterator[AttemptRow]:
    """Every attempt of every job, in job-file order; one that surely bought nothing, too."""
    return cast(Iterator[AttemptRow], by_name(connection.execute(_ATTEMPTS)))


def settled_free(connection: sqlite3.Connection, given_up: str) -> dict[str, int]:
    """By model: lost answers that somebody said were not charged, by the error of such jobs."""
    rows = connection.execute(
        "SELECT j.model, count(*) FROM events e JOIN jobs j ON j.id=e.job_id"
        " WHERE (e.kind='LostSettled' AND e.fields LIKE '%\"charged\":false%')"
        " OR (e.kind='Failed' AND e.fields LIKE ?) GROUP BY 1",
        (f"%{given_up}%",),
    )
    return dict(rows.fetchall())


def open_work(connection: sqlite3.Connection) -> OpenWork:
    """Count what has not ended; reads a part of an index, and the few rows that are under way."""
    waiting = connection.execute(
        "SELECT model, count(*) FROM jobs WHERE state='pending' GROUP BY 1"
    )
    under_way = connection.execute(
        f"SELECT j.model, a.submitted_at FROM {_LATEST} WHERE j.state='submitted'"
    )
    return OpenWork(waiting=dict(waiting.fetchall()), under_way=tuple(under_way.fetchall()))


def times(connection: sqlite3.Connection, model: str, latest: int) -> list[float]:
    """How many seconds the ``latest`` predictions of ``model`` took in this folder."""
    rows = connection.execute(
        f"SELECT a.generation_s FROM {_LATEST} WHERE j.state='succeeded' AND j.model=?"
        " AND a.generation_s IS NOT NULL ORDER BY j.id DESC LIMIT ?",
        (model, latest),
    )
    return [row[0] for row in rows]


def last_run(connection: sqlite3.Connection) -> RunRow | None:
    """The folder's last run, or None."""
    rows = connection.execute("SELECT id, started_at, job_file FROM runs ORDER BY id DESC LIMIT 1")
    return cast(RunRow | None, next(by_name(rows), None))


def job_file(connection: sqlite3.Connection) -> str | None:
    """The job file of the last run that had one."""
    row = connection.execute(
        "SELECT job_file FROM runs WHERE job_file IS NOT NULL ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return row[0] if row else None
