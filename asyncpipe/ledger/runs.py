"""Runs whose jobs were taken whole, so that the same ones need not be taken again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

_UNENDED = ""
"""The digest of a run whose pass over its jobs has not ended; of a session's own row it is NULL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Which rows a run names: those that bear ``run`` or a later one, up to the id ``last``.

    Rows above ``last`` were written since, for others. Rows that bear ``single`` are jobs that
    callers of the same process asked for one by one, and are theirs.
    """

    run: int
    last: int = 2**63 - 1
    single: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """The last run that jobs were taken for: ``seen`` is what its jobs bear as seen_run."""

    seen: int
    jobs: int


def taken(connection: sqlite3.Connection, digest: str) -> Taken | None:
    """Whether the folder's last pass ended, and was over the jobs of ``digest``.

    A pass that broke off, and one over other jobs in between, have left their own marks on the
    rows: then the pass has to be made again. So has a job that was asked for singly since: it may
    be none of theirs, or one of theirs that is to be looked at like the others.
    """
    row = connection.execute(
        "SELECT digest, seen, jobs FROM runs WHERE digest IS NOT NULL ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None or row[0] != digest or digest == _UNENDED:
        return None
    query = "SELECT EXISTS(SELECT 1 FROM jobs WHERE seen_run>?)"
    (others,) = connection.execute(query, (row[1],)).fetchone()
    return None if others else Taken(seen=row[1], jobs=row[2])


def last_row(connection: sqlite3.Connection) -> int:
    """The id of the newest job; 0 if there is none."""
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    return int(last)


def replaced(connection: sqlite3.Connection, run: int) -> int:
    """How many jobs of ``run`` wait to be bought under the name of a finished one it lacks."""
    finished = "SELECT name, type FROM jobs WHERE state='succeeded' AND seen_run<?"
    if connection.execute(finished + " LIMIT 1", (run,)).fetchone() is None:
        return 0
    (count,) = connection.execute(
        "SELECT count(*) FROM jobs WHERE state='pending' AND used=0 AND seen_run=?"
        f" AND (name, type) IN ({finished})",
        (run, run),
    ).fetchone()
    return int(count)


def begin_pass(connection: sqlite3.Connection, run: int) -> None:
    """Note that ``run`` begins to mark rows."""
    connection.execute("UPDATE runs SET digest=? WHERE id=?", (_UNENDED, run))


def end_pass(connection: sqlite3.Connection, run: int, *, digest: str | None, jobs: int) -> None:
    """Note that all rows of ``run`` are written; without a digest they are read again next time."""
    connection.execute(
        "UPDATE runs SET digest=?, seen=id, jobs=? WHERE id=?", (digest or _UNENDED, jobs, run)
    )


def repeat(
    connection: sqlite3.Connection,
    at: datetime,
    *,
    since: int,
    job_file: str | None,
    digest: str,
    before: Taken,
) -> int:
    """Note a run over the same jobs as ``before`` and return its id.

    Rows are not touched: they go on to bear the earlier run, and this session, like others that
    began since and named nothing, counts as naming whatever bears ``since`` or a later one.
    """
    cursor = connection.execute(
        "INSERT INTO runs(session, started_at, job_file, digest, seen, jobs) VALUES(?,?,?,?,?,?)",
        (since, at.isoformat(), job_file, digest, before.seen, before.jobs),
    )
    connection.execute("UPDATE runs SET session=? WHERE session>?", (since, since))
    assert cursor.lastrowid is not None
    return cursor.lastrowid
