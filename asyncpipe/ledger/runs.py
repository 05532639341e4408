"""Runs whose jobs were taken whole, so that the same ones need not be taken again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

_UNENDED = ""
"""The digest of a run whose pass over its jobs has not ended; of a session's own row it is NULL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """The last run that jobs were taken for: ``seen`` is what its jobs bear as seen_run."""

    seen: int
    jobs: int


def taken(connection: sqlite3.Connection, digest: str) -> Taken | None:
    """Whether the folder's last pass ended, and was over the jobs of ``digest``.

    A pass that broke off, and one over other jobs in between, have left their own marks on the
    rows: then the pass has to be made again.
    """
    row = connection.execute(
        "SELECT digest, seen, jobs FROM runs WHERE digest IS NOT NULL ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None or row[0] != digest or digest == _UNENDED:
        return None
    return Taken(seen=row[1], jobs=row[2])


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
    session: int,
    since: int,
    job_file: str | None,
    digest: str,
    before: Taken,
) -> int:
    """Note a run over the same jobs as ``before`` and return its id.

    Rows are not touched: they go on to bear the earlier run, and ``session`` now names whatever
    bears ``since`` or a later one.
    """
    cursor = connection.execute(
        "INSERT INTO runs(session, started_at, job_file, digest, seen, jobs) VALUES(?,?,?,?,?,?)",
        (since, at.isoformat(), job_file, digest, before.seen, before.jobs),
    )
    connection.execute("UPDATE runs SET session=? WHERE id=?", (since, session))
    assert cursor.lastrowid is not None
    return cursor.lastrowid
