"""What is asked of a ledger; every query takes a connection and is synchronous."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from asyncpipe.jobs import PAID_OPEN, Job, JobRecord, JobState, JobType, LocalFile
from asyncpipe.ledger.asset_names import claim_stems
from asyncpipe.ledger.errors import MADE_NO_SENSE, makes_no_sense, rows_of
from asyncpipe.ledger.runs import Named


def _earlier(sum_: str) -> str:
    """A sum over a job's earlier attempts; most jobs have none."""
    every = f"(SELECT {sum_} FROM attempts e WHERE e.job_id=j.id AND e.n<=j.used)"
    return f"CASE WHEN j.used THEN {every} ELSE 0 END"


_RECORD = (
    "SELECT j.id, j.key, j.name, j.spec, j.state, j.stem, j.used, j.failures,"
    " a.reserved, a.charged, a.prediction_id, a.route, a.outputs, a.polls, a.submitted_at, a.error,"
    " a.resumed_at,"
    " (SELECT group_concat(s.position) FROM assets s WHERE s.job_id=j.id AND s.n=j.used+1),"
    f" {_earlier('total(e.reserved)')}, {_earlier('count(*)-count(e.settled)')},"
    f" {_earlier('total(e.charged)')},"
    " a.booked, a.overrun, a.settled='charged',"
    " a.estimated AND a.told IS NULL"
    " FROM jobs j LEFT JOIN attempts a ON a.job_id=j.id AND a.n=j.used+1 "
)


def _record(row: Sequence[Any]) -> JobRecord:
    try:
        return _read(row)
    except MADE_NO_SENSE as exc:
        raise makes_no_sense(f"job {row[0]}", exc) from exc


_STATES = {state.value: state for state in JobState}  # a look-up costs less than asking JobState


def _read(row: Sequence[Any]) -> JobRecord:
    stored = frozenset(int(index) for index in row[17].split(",")) if row[17] else frozenset()
    return JobRecord(
        id=row[0],
        key=row[1],
        name=row[2],
        job=job_from_spec(orjson.loads(row[3])),
        state=_STATES.get(row[4]) or JobState(row[4]),
        stem=row[5],
        used=row[6],
        failures=row[7],
        reserved=row[8] or 0,
        charged=row[9] or 0,
        prediction_id=row[10],
        route=row[11] or "",
        outputs=tuple(orjson.loads(row[12])) if row[12] else (),
        polls=row[13] or 0,
        submitted_at=datetime.fromisoformat(row[14]) if row[14] else None,
        error=row[15],
        resumed_at=datetime.fromisoformat(row[16]) if row[16] else None,
        stored=stored,
        held=int(row[18]),
        lost=row[19],
        spent=int(row[20]),
        booked=row[21] or 0,
        overrun=row[22] or 0,
        paid=bool(row[23]),
        estimated=bool(row[24]),
    )


def record_by_key(connection: sqlite3.Connection, key: str) -> JobRecord | None:
    """The job with this key, or None."""
    row = connection.execute(_RECORD + "WHERE j.key=?", (key,)).fetchone()
    return _record(row) if row else None


def records_by_id(connection: sqlite3.Connection, ids: Iterable[int]) -> list[JobRecord]:
    """The jobs with these ids, in that order."""
    return [_record(connection.execute(_RECORD + "WHERE j.id=?", (i,)).fetchone()) for i in ids]


def paid_open(connection: sqlite3.Connection) -> list[JobRecord]:
    """Every job whose prediction was bought and is not on disk yet, oldest first."""
    states = [state.value for state in PAID_OPEN]
    marks = ",".join("?" * len(states))
    rows = connection.execute(_RECORD + f"WHERE j.state IN ({marks}) ORDER BY j.id", states)
    return [_record(row) for row in rows]


def ids_in_state(connection: sqlite3.Connection, state: JobState) -> list[int]:
    """The ids of all jobs in ``state``."""
    rows = connection.execute("SELECT id FROM jobs WHERE state=? ORDER BY id", (state.value,))
    return [row[0] for row in rows]


def bought(connection: sqlite3.Connection, keys: Sequence[str]) -> set[str]:
    """Those of ``keys`` whose jobs were submitted before, and are not to be again."""
    query = "SELECT 1 FROM jobs WHERE key=? AND state NOT IN ('pending', 'cancelled')"
    return {key for key in keys if connection.execute(query, (key,)).fetchone()}


def retryable(connection: sqlite3.Connection, run: int) -> list[int]:
    """Failed jobs of ``run`` that no attempt was charged for, and not refused by moderation.

    Nor one whose earlier answer was lost: nobody knows whether that was charged.
    """
    rows = connection.execute(
        "SELECT j.id FROM jobs j JOIN attempts a ON a.job_id=j.id AND a.n=j.used+1"
        " WHERE j.state='failed' AND j.seen_run=? AND a.moderated=0 AND NOT EXISTS(SELECT 1 FROM"
        " attempts e WHERE e.job_id=j.id AND (e.settled='charged' OR e.settled IS NULL))"
        " ORDER BY j.id",
        (run,),
    )
    return [row[0] for row in rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class LostAnswer:
    """An earlier attempt of a job whose outcome nobody knows; amounts in micro-dollars."""

    attempt: int
    reserved: int
    booked: int
    estimated: bool


def lost_answers(connection: sqlite3.Connection, job_id: int) -> list[LostAnswer]:
    """The earlier attempts of a job whose outcome nobody knows, oldest first."""
    rows = connection.execute(
        "SELECT a.n, a.reserved, a.booked, a.estimated FROM attempts a"
        " JOIN jobs j ON j.id=a.job_id WHERE j.id=? AND a.n<=j.used AND a.settled IS NULL"
        " ORDER BY a.n",
        (job_id,),
    )
    return [
        LostAnswer(attempt=n, reserved=reserved, booked=booked, estimated=bool(estimated))
        for n, reserved, booked, estimated in rows
    ]


def with_lost_answers(connection: sqlite3.Connection) -> list[int]:
    """The ids of jobs that have such attempts."""
    rows = connection.execute(
        "SELECT DISTINCT j.id FROM attempts a JOIN jobs j ON j.id=a.job_id"
        " WHERE a.n<=j.used AND a.settled IS NULL ORDER BY j.id"
    )
    return [row[0] for row in rows]


def unknown(connection: sqlite3.Connection, run: int) -> list[int]:
    """Unknown jobs that ``run`` names."""
    rows = connection.execute("SELECT id FROM jobs WHERE state='unknown' AND seen_run=?", (run,))
    return [row[0] for row in rows]


_NAMED = " seen_run>=? AND seen_run<>? AND id<=? "


def named_of(connection: sqlite3.Connection, ids: Iterable[int], named: Named) -> set[int]:
    """Those of ``ids`` that a run names."""
    query = f"SELECT id FROM jobs WHERE id=? AND {_NAMED}"
    which = (named.run, named.single, named.last)
    return {i for i in ids if connection.execute(query, (i, *which)).fetchone()}


def withdrawn(connection: sqlite3.Connection, run: int) -> list[int]:
    """Withdrawn jobs that ``run`` names again."""
    rows = connection.execute("SELECT id FROM jobs WHERE state='cancelled' AND seen_run=?", (run,))
    return [row[0] for row in rows]


def start_run(
    connection: sqlite3.Connection, at: datetime, *, session: int | None, job_file: str | None
) -> int:
    """Note a new run and return its id; ``session`` is the first run of the same process."""
    cursor = connection.execute(
        "INSERT INTO runs(session, started_at, job_file) VALUES(?,?,?)",
        (session or 0, at.isoformat(), job_file),
    )
    run = cursor.lastrowid
    assert run is not None
    if session is None:
        connection.execute("UPDATE runs SET session=id WHERE id=?", (run,))
    return run


def end_run(connection: sqlite3.Connection, run: int, at: datetime) -> None:
    """Note that a run is over."""
    connection.execute("UPDATE runs SET ended_at=? WHERE id=?", (at.isoformat(), run))


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What a pass over jobs found: how many rows are new, and names seen before in this pass."""

    new: int
    twice: tuple[str, ...]


def add_jobs(
    connection: sqlite3.Connection,
    rows: Sequence[tuple[str, Job]],
    *,
    run: int,
    position: int,
) -> Added:
    """Write (key, job) rows as pending, or mark those that are there as seen by ``run``.

    ``position`` is the place of the first row in the job file.
    """
    before = connection.total_changes
    (count,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    connection.executemany(
        "INSERT INTO jobs(key, name, type, model, spec, seen_run, position) VALUES(?,?,?,?,?,?,?)"
        " ON CONFLICT(key) DO UPDATE SET seen_run=excluded.seen_run, position=excluded.position,"
        " spec=excluded.spec"
        " WHERE seen_run<>excluded.seen_run",
        (
            (
                key,
                job.title(key),
                job.kind.value,
                job.model,
                orjson.dumps(job_to_spec(job)),
                run,
                position + offset,
            )
            for offset, (key, job) in enumerate(rows)
        ),
    )
    written = connection.total_changes - before
    (new,) = connection.execute("SELECT count(*) FROM jobs WHERE id>?", (count,)).fetchone()
    return Added(new=new, twice=() if written == len(rows) else _twice(connection, rows, position))


def _twice(
    connection: sqlite3.Connection, rows: Sequence[tuple[str, Job]], position: int
) -> tuple[str, ...]:
    """Name the jobs whose row was written by an earlier twin: it stands at another position."""
    names = []
    for expected, (key, job) in enumerate(rows, start=position):
        query = "SELECT position FROM jobs WHERE key=?"
        if connection.execute(query, (key,)).fetchone() != (expected,):
            names.append(job.title(key))
    return tuple(names)


def pending_models(connection: sqlite3.Connection, named: Named) -> list[str]:
    """The models that have pending jobs of a run, in job-file order of their first."""
    rows = connection.execute(
        f"SELECT model FROM jobs WHERE state='pending' AND {_NAMED}"
        " GROUP BY model ORDER BY min(position)",
        (named.run, named.single, named.last),
    )
    return [row[0] for row in rows]


def draw(
    connection: sqlite3.Connection,
    *,
    named: Named,
    after: Mapping[str, int],
    limit: int,
    folder: Path,
) -> dict[str, list[JobRecord]]:
    """The next pending jobs of a run, at most ``limit`` of each model, their stems fixed.

    ``after`` has the models, each with the id that was drawn last.
    """
    pages = {
        model: pending(connection, named, model, after=last, limit=limit)
        for model, last in after.items()
    }
    records = iter(claim_stems(connection, list(chain.from_iterable(pages.values())), folder))
    return {model: list(islice(records, len(page))) for model, page in pages.items()}


def pending(
    connection: sqlite3.Connection, named: Named, model: str, *, after: int, limit: int
) -> list[JobRecord]:
    """Pending jobs of ``model`` that a run names, above id ``after``, by id."""
    rows = connection.execute(
        _RECORD + f"WHERE j.state='pending' AND j.model=? AND j.id>? AND {_NAMED}"
        " ORDER BY j.id LIMIT ?",
        (model, after, named.run, named.single, named.last, limit),
    )
    return [_record(row) for row in rows]


def job_to_spec(job: Job) -> dict[str, Any]:
    """Everything of a job the ledger must keep to submit it later; JSON types only.

    Of the files it takes in, what is written, path, size, time and sha256; never their bytes.
    """
    spec = {
        "name": job.name,
        "type": job.kind.value,
        "model": job.model,
        "prompt": job.prompt,
        "params": dict(job.params),
        "occurrence": job.occurrence,
        "retries": job.retries,
        "deadline_s": job.deadline_s,
    }
    if job.labels:
        spec["labels"] = dict(job.labels)
    if job.inputs:
        files = job.inputs.items()
        spec["inputs"] = {text: [f.path, f.size, f.mtime_ns, f.sha256] for text, f in files}
    return spec


def job_from_spec(spec: dict[str, Any]) -> Job:
    """Rebuild the job that ``job_to_spec`` wrote."""
    inputs = {
        text: LocalFile(path=path, size=size, mtime_ns=mtime_ns, sha256=sha256)
        for text, (path, size, mtime_ns, sha256) in spec.get("inputs", {}).items()
    }
    return Job(**{**spec, "type": JobType(spec["type"]), "inputs": inputs})


def find_upload(connection: sqlite3.Connection, sha256: str) -> tuple[str, datetime] | None:
    """The URL of a file and when it was uploaded, or None."""
    query = "SELECT url, uploaded_at FROM uploads WHERE sha256=?"
    row = connection.execute(query, (sha256,)).fetchone()
    with rows_of(f"the upload {sha256[:12]}"):
        return (str(row[0]), datetime.fromisoformat(row[1])) if row else None


def keep_upload(
    connection: sqlite3.Connection, sha256: str, *, url: str, size: int, at: datetime
) -> None:
    """Keep the URL of a file, in place of an older one."""
    connection.execute(
        "INSERT OR REPLACE INTO uploads(sha256, url, size, uploaded_at) VALUES(?,?,?,?)",
        (sha256, url, size, at.isoformat()),
    )


def forget_uploads(connection: sqlite3.Connection, digests: Iterable[str]) -> None:
    """Forget the URLs of files: they lead nowhere any more."""
    connection.executemany("DELETE FROM uploads WHERE sha256=?", ((each,) for each in digests))
