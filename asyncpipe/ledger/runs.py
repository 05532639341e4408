"""Runs and sessions; whose jobs were taken whole need not be taken again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from asyncpipe.ledger.accounts import removed
from asyncpipe.ledger.connection import Connection, insert
from asyncpipe.ledger.rows import Repeated, Session, Taken
from asyncpipe.ledger.schema import ALONE, NAMED_BY

_UNENDED = ""
"""The digest of a run whose pass over its jobs has not ended; of a session's own row it is NULL."""


def _new_run(connection: Connection, **columns: object) -> int:
    marks = ",".join("?" * len(columns))
    query = f"INSERT INTO runs({','.join(columns)}) VALUES({marks})"
    return insert(connection, query, tuple(columns.values()))


def begin_session(connection: Connection, at: datetime) -> Session:
    """Note that a process begins to work here; what it does not name counts as removed."""
    session = _new_run(connection, session=0, started_at=at.isoformat())
    connection.execute("UPDATE runs SET session=id WHERE id=?", (session,))
    return Session(id=session, since=session, removed=removed(connection))


def start_run(connection: Connection, at: datetime, *, session: int, job_file: str | None) -> int:
    """Note a run whose jobs are about to be written, and return its id."""
    at_text = at.isoformat()
    return _new_run(
        connection, session=session, started_at=at_text, job_file=job_file, digest=_UNENDED
    )


def end_pass(connection: Connection, run: int, *, digest: str | None, jobs: int) -> int:
    """Note that all rows of ``run`` are written; without a digest they are read again next time.

    Returns how many of them wait to be bought under the name of a finished job it lacks.
    """
    connection.execute(
        "UPDATE runs SET digest=?, seen=id, jobs=? WHERE id=?", (digest or _UNENDED, jobs, run)
    )
    return _replaced(connection, run)


def end_run(connection: Connection, run: int, at: datetime) -> None:
    """Note that a run, or a session, is over."""
    connection.execute("UPDATE runs SET ended_at=? WHERE id=?", (at.isoformat(), run))


def taken(connection: Connection, digest: str) -> Taken | None:
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


def take_up(
    connection: Connection, at: datetime, *, session: int, but: Collection[int] = ()
) -> int | None:
    """Let a new run name the pending jobs that callers asked for, but for one session's.

    Nor those whose ids are in ``but``. Returns the run; None where there is no such job.
    """
    query = f"SELECT id FROM jobs WHERE state='pending' AND {ALONE} AND seen_run<>?"
    held = frozenset(but)
    found = [row[0] for row in connection.execute(query, (session,)) if row[0] not in held]
    if not found:
        return None
    # As a session's own its digest is NULL: taken up, and killed, they are taken up once more.
    (last,) = connection.execute("SELECT coalesce(max(session), 0) FROM runs").fetchone()
    run = _new_run(connection, session=last, started_at=at.isoformat())
    move = f"UPDATE jobs SET seen_before={NAMED_BY}, seen_run=? WHERE id=?"
    connection.executemany(move, [(run, job_id) for job_id in found])
    return run


def last_row(connection: Connection) -> int:
    """The id of the newest job; 0 if there is none."""
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    return int(last)


def _replaced(connection: Connection, run: int) -> int:
    finished = "SELECT name, type FROM jobs WHERE state='succeeded' AND seen_run<?"
    if connection.execute(finished + " LIMIT 1", (run,)).fetchone() is None:
        return 0
    (count,) = connection.execute(
        "SELECT count(*) FROM jobs WHERE state='pending' AND used=0 AND seen_run=?"
        f" AND (name, type) IN ({finished})",
        (run, run),
    ).fetchone()
    return int(count)


def repeat_run(
    connection: Connection, at: datetime, *, since: int, job_file: str | None, digest: str
) -> Repeated | None:
    """Note a run over the jobs of the folder's last one, if those were of the same ``digest``.

    Rows are not touched: they go on to bear the earlier run, and this session, like others that
    began since and named nothing, counts as naming whatever bears that or a later one.
    """
    before = taken(connection, digest)
    if before is None:
        return None
    since = min(since, before.seen)
    run = _new_run(
        connection,
        session=since,
        started_at=at.isoformat(),
        job_file=job_file,
        digest=digest,
        seen=before.seen,
        jobs=before.jobs,
    )
    connection.execute("UPDATE runs SET session=? WHERE session>?", (since, since))
    return Repeated(run=run, seen=before.seen)
