"""What a folder came to: the queries behind totals, status, manifest, export and reconcile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import orjson

from asyncpipe.jobs import JobState, Noted, count_notes
from asyncpipe.ledger.connection import Connection, Cursor, streamed
from asyncpipe.ledger.errors import rows_of
from asyncpipe.ledger.queries import labelled
from asyncpipe.ledger.rows import (
    AssetRow,
    AttemptRow,
    MoneyRow,
    OpenWork,
    ResultRow,
    RunRow,
    Sums,
)


def by_name(cursor: Cursor) -> Iterator[dict[str, Any]]:
    """The rows of a query as mappings from the names of its columns."""
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


# Only the last session's jobs are listed; what was never submitted and is named no more is not.
# What callers asked for one by one bears a session's own run: no job file could name it again.
NAMED_STILL = (
    "(seen_run >= (SELECT coalesce(max(session), 0) FROM runs)"
    " OR seen_run IN (SELECT id FROM runs WHERE digest IS NULL))"
)

_LISTED = f"state<>'cancelled' AND (state<>'pending' OR used>0 OR {NAMED_STILL})"


def removed(connection: Connection) -> int:
    """Jobs that were never submitted and that the last session did not name any more."""
    (count,) = connection.execute(
        f"SELECT count(*) FROM jobs WHERE state='pending' AND used=0 AND NOT {NAMED_STILL}"
    ).fetchone()
    return int(count)


def sums(connection: Connection) -> Sums:
    """Count everything."""
    with rows_of("a total"):
        states = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        failed = dict(
            connection.execute(
                "SELECT outcome, count(*) FROM outcomes WHERE state='failed' GROUP BY outcome"
            ).fetchall()
        )
        causes = connection.execute(
            "SELECT state, coalesce(error, ''), count(*) FROM latest"
            " WHERE state IN ('failed', 'lost', 'unknown')"
            " OR (state='generated' AND error IS NOT NULL)"
            " GROUP BY 1, 2"
        )
        assets = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM assets WHERE missing=0"
        )
        count, size = assets.fetchone()
        return Sums(
            states={JobState(state): number for state, number in states},
            removed=removed(connection),
            in_doubt=failed.get("unknown", 0),
            failed_charged=failed.get("failed, charged", 0),
            money=[_money(row) for row in by_name(connection.execute(_MONEY))],
            causes=[(JobState(state), error, number) for state, error, number in causes],
            noted=_noted(connection),
            assets=count,
            bytes=size,
        )


def _money(row: dict[str, Any]) -> MoneyRow:
    """The row with its sums as numbers, which a damaged file may not have."""
    sums = {name: int(value) for name, value in row.items() if name not in ("model", "state")}
    return cast(MoneyRow, {**row, **sums})


def _noted(connection: Connection) -> dict[str, Noted]:
    """What is said beside the outputs of jobs."""
    counted: dict[str, Noted] = {}
    rows = connection.execute(
        "SELECT j.name, a.notes FROM attempts a JOIN jobs j ON j.id=a.job_id"
        " AND a.n=CASE WHEN j.attempt>0 THEN j.attempt ELSE j.used END"
        " WHERE a.notes IS NOT NULL AND a.outputs IS NOT NULL ORDER BY a.job_id"
    )
    for name, notes in rows:
        count_notes(counted, name, orjson.loads(notes))
    return counted


# A lost answer that was found free was a prediction's where one is known.
_RETURNED = "a.settled='released' OR (a.settled='free' AND a.prediction_id IS NOT NULL)"

_MONEY = f"""
SELECT j.model AS model, j.state AS state, CASE WHEN a.n<=j.used THEN 1 ELSE 0 END AS earlier,
  sum(a.charged) AS charged, sum(CASE WHEN a.estimated=1 THEN a.charged ELSE 0 END) AS estimated,
  sum(a.reserved) AS reserved, sum(a.overrun) AS overrun,
  count(CASE WHEN a.overrun>0 THEN 1 END) AS overruns,
  count(CASE WHEN a.n<=j.used AND a.settled IS NULL THEN 1 END) AS lost,
  sum(CASE WHEN {_RETURNED} THEN a.booked ELSE 0 END) AS released,
  count(CASE WHEN {_RETURNED} THEN 1 END) AS returned,
  count(CASE WHEN a.settled='free' THEN 1 END) AS free, sum(a.refusals) AS refusals
FROM attempts a JOIN jobs j ON j.id=a.job_id GROUP BY 1, 2, 3
"""

_RESULTS = """
SELECT o.id AS id, o.name AS name, o.key AS key, o.type AS type, o.model AS model, o.spec AS spec,
  o.state AS state, o.outcome AS outcome, o.n AS n,
  coalesce(o.cost, 0) AS cost, coalesce(o.all_reserved, 0) AS reserved,
  coalesce(o.all_overrun, 0) AS overrun, coalesce(o.all_polls, 0) AS polls,
  o.attempts AS attempts,
  o.charged_attempts AS charged, o.estimated_attempts AS estimated, o.lost AS lost,
  o.told AS told, o.price_source AS price_source, o.assumed AS assumed,
  o.provider AS provider, o.bought_as AS bought_as,
  o.generation_s AS generation_s, o.prediction_id AS prediction_id, o.request_id AS request_id,
  o.outputs AS outputs, o.notes AS notes, o.settled AS settled, o.error AS error,
  o.error_code AS error_code, o.submitted_at AS submitted_at,
  o.ended_at AS ended_at,
  s.path AS path, s.size AS size, s.sha256 AS sha256, s.store AS store,
  (SELECT count(*) FROM assets WHERE job_id=o.id AND n=o.n AND missing=0) AS files
FROM outcomes o LEFT JOIN assets s ON s.job_id=o.id AND s.n=o.n AND s.position=0
  AND s.missing=0
"""


def results(connection: Connection, *, started: bool) -> Iterator[ResultRow]:
    """Every listed job, or those that were ever ``started``: the last run's first, in its order."""
    only = "AND o.n IS NOT NULL" if started else ""
    query = f"{_RESULTS} WHERE {_LISTED} {only} ORDER BY o.seen_run DESC, o.position"
    for row in by_name(streamed(connection, query)):
        yield _with_assets(connection, row)


def result(connection: Connection, job_id: int) -> ResultRow | None:
    """One job; None if there is none."""
    rows = by_name(connection.execute(f"{_RESULTS} WHERE o.id=?", (job_id,)))
    return next((_with_assets(connection, row) for row in rows), None)


def results_page(
    connection: Connection,
    *,
    before: int,
    limit: int,
    outcome: str | None = None,
    label: tuple[str, str] | None = None,
) -> list[ResultRow]:
    """The next ``limit`` listed jobs below id ``before``, newest first."""
    conditions, values = [f"o.id<? AND {_LISTED}"], list[Any]([before])
    if outcome is not None:
        conditions.append("o.outcome=?")
        values.append(outcome)
    if label is not None:
        condition, value = labelled(*label)
        conditions.append(f"o.id IN (SELECT id FROM jobs WHERE {condition})")
        values.append(value)
    query = f"{_RESULTS} WHERE {' AND '.join(conditions)} ORDER BY o.id DESC LIMIT ?"
    rows = by_name(connection.execute(query, (*values, limit)))
    return [_with_assets(connection, row) for row in rows]


def _with_assets(connection: Connection, row: dict[str, Any]) -> ResultRow:
    """Add a job's files; one, or none, stands in its row."""
    first = AssetRow(
        path=row.pop("path"),
        size=row.pop("size"),
        sha256=row.pop("sha256"),
        store=row.pop("store"),
    )
    count = row.pop("files")
    if count == (first["path"] is not None):
        row["assets"] = (first,) if count else ()
    else:
        query = (
            "SELECT path, size, sha256, store FROM assets WHERE job_id=? AND n=? AND missing=0"
            " ORDER BY position"
        )
        row["assets"] = tuple(by_name(connection.execute(query, (row["id"], row["n"]))))
    return cast(ResultRow, row)


def label_names(connection: Connection, most: int) -> list[str]:
    """The labels that any listed job has, by their first job; at most so many."""
    found: dict[str, None] = {}
    query = f"SELECT id, labels FROM jobs WHERE labels IS NOT NULL AND {_LISTED} ORDER BY id"
    for job_id, labels in streamed(connection, query):
        with rows_of(f"job {job_id}"):
            found.update(dict.fromkeys(orjson.loads(labels)))
        if len(found) >= most:
            break
    return list(found)[:most]


_ATTEMPTS = """
SELECT j.id AS id, j.name AS name, j.key AS key, j.type AS type, j.model AS model,
  j.state AS state, a.n AS n, CASE WHEN a.n<=j.used THEN 1 ELSE 0 END AS earlier,
  a.settled AS settled, a.charged AS charged, a.reserved AS reserved, a.booked AS booked,
  a.overrun AS overrun, a.estimated AS estimated, a.told AS told, a.price_source AS price_source,
  a.assumed AS assumed, a.provider AS provider, a.model AS bought_as,
  a.prediction_id AS prediction_id, a.request_id AS request_id,
  a.intended_at AS intended_at, a.submitted_at AS submitted_at, a.ended_at AS ended_at,
  a.error AS error, a.notes AS notes
FROM attempts a JOIN jobs j ON j.id=a.job_id ORDER BY j.seen_run DESC, j.position, a.n
"""


def attempts(connection: Connection) -> Iterator[AttemptRow]:
    """Every attempt of every job, in job-file order; one that surely bought nothing, too."""
    return cast(Iterator[AttemptRow], by_name(streamed(connection, _ATTEMPTS)))


def open_work(connection: Connection) -> OpenWork:
    """Count what has not ended; reads a part of an index, and the few rows that are under way."""
    waiting = connection.execute(
        "SELECT model, count(*) FROM jobs WHERE state='pending' GROUP BY 1"
    )
    under_way = connection.execute("SELECT model, submitted_at FROM latest WHERE state='submitted'")
    return OpenWork(waiting=dict(waiting.fetchall()), under_way=tuple(under_way.fetchall()))


def times(connection: Connection, model: str, latest: int) -> list[float]:
    """How many seconds the ``latest`` predictions of ``model`` took in this folder."""
    rows = connection.execute(
        "SELECT generation_s FROM latest WHERE state='succeeded' AND model=?"
        " AND generation_s IS NOT NULL ORDER BY id DESC LIMIT ?",
        (model, latest),
    )
    return [row[0] for row in rows]


def last_run(connection: Connection) -> RunRow | None:
    """The folder's last run, or None."""
    rows = connection.execute("SELECT id, started_at, job_file FROM runs ORDER BY id DESC LIMIT 1")
    return cast(RunRow | None, next(by_name(rows), None))


def job_file(connection: Connection) -> str | None:
    """The job file of the last run that had one."""
    row = connection.execute(
        "SELECT job_file FROM runs WHERE job_file IS NOT NULL ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return row[0] if row else None
