"""What is asked of a ledger; every query takes a connection and is synchronous."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from asyncpipe.jobs import Job, JobRecord, JobState, JobType, LocalFile
from asyncpipe.ledger.asset_names import claim_stems
from asyncpipe.ledger.errors import MADE_NO_SENSE, makes_no_sense, rows_of
from asyncpipe.ledger.rows import Added, AddedOne, Counted, LostAnswer, Named, StoredAsset


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


def records(connection: sqlite3.Connection, ids: Iterable[int]) -> list[JobRecord]:
    """The jobs with these ids, in that order."""
    return [_record(connection.execute(_RECORD + "WHERE j.id=?", (i,)).fetchone()) for i in ids]


def records_in(connection: sqlite3.Connection, states: Collection[JobState]) -> list[JobRecord]:
    """Every job in one of ``states``, oldest first."""
    marks = ",".join("?" * len(states))
    query = f"{_RECORD} WHERE j.state IN ({marks}) ORDER BY j.id"
    return [_record(row) for row in connection.execute(query, [s.value for s in states])]


def _again(*, retry_failed: bool, resubmit: bool) -> str:
    """The states whose jobs a run asks for again."""
    return ", ".join(["'cancelled'", *["'failed'"] * retry_failed, *["'unknown'"] * resubmit])


# Of failed jobs those that no attempt was charged for, that no lost answer may have been bought
# for, and that moderation let pass.
_RETRYABLE = (
    "NOT EXISTS(SELECT 1 FROM attempts e WHERE e.job_id=j.id AND"
    " (e.settled='charged' OR e.settled IS NULL OR (e.n=j.used+1 AND e.moderated)))"
)


def _bought(states: str) -> str:
    """The one rule for what a run buys: of jobs in ``states``, not those it must leave alone."""
    return f"(j.state IN ({states}) AND (j.state<>'failed' OR {_RETRYABLE}))"


def to_buy(
    connection: sqlite3.Connection, run: int, *, retry_failed: bool, resubmit: bool
) -> list[int]:
    """Those jobs of ``run`` that it buys besides the pending ones, oldest first."""
    again = _again(retry_failed=retry_failed, resubmit=resubmit)
    query = f"SELECT j.id FROM jobs j WHERE {_bought(again)} AND j.seen_run=? ORDER BY j.id"
    return [row[0] for row in connection.execute(query, (run,))]


def left_alone(
    connection: sqlite3.Connection, keys: Iterable[str], *, retry_failed: bool, resubmit: bool
) -> set[str]:
    """Those of ``keys`` whose jobs are here, and a run that names them does not buy."""
    again = _again(retry_failed=retry_failed, resubmit=resubmit)
    bought = _bought(f"'pending', {again}")
    query = f"SELECT 1 FROM jobs j WHERE j.key=? AND NOT {bought}"
    return {key for key in keys if connection.execute(query, (key,)).fetchone()}


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


def unresolved(connection: sqlite3.Connection) -> list[JobRecord]:
    """Jobs that are unknown, or have an earlier attempt of unknown outcome, oldest first."""
    rows = connection.execute(
        _RECORD + "WHERE j.state='unknown' OR EXISTS(SELECT 1 FROM attempts e"
        " WHERE e.job_id=j.id AND e.n<=j.used AND e.settled IS NULL) ORDER BY j.id"
    )
    return [_record(row) for row in rows]


_NAMED = " seen_run>=? AND seen_run<>? AND id<=? "


def named_of(connection: sqlite3.Connection, ids: Iterable[int], named: Named) -> set[int]:
    """Those of ``ids`` that a run names."""
    query = f"SELECT id FROM jobs WHERE id=? AND {_NAMED}"
    which = (named.run, named.single, named.last)
    return {i for i in ids if connection.execute(query, (i, *which)).fetchone()}


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


def add_one(
    connection: sqlite3.Connection, key: str, job: Job, *, run: int, since: int, folder: Path
) -> AddedOne:
    """Write one job unless it is there already, and fix its stem.

    Rows that bear ``since`` or a later run are named by this session; ``run`` is its own.
    """
    known = record_by_key(connection, key)
    counted = Counted.NOWHERE if known is None else Counted.ALREADY
    if known is None or known.state in (JobState.PENDING, JobState.CANCELLED):
        if known is not None and known.state is JobState.PENDING:
            seen = "SELECT seen_run, used FROM jobs WHERE id=?"
            seen_run, used = connection.execute(seen, (known.id,)).fetchone()
            if seen_run >= since and seen_run != run:
                (record,) = claim_stems(connection, [known], folder)
                return AddedOne(record=record, counted=Counted.IN_A_BATCH)
            counted = Counted.AS_REMOVED if seen_run < since and not used else counted
        add_jobs(connection, [(key, job)], run=run, position=0)
        known = record_by_key(connection, key)
    assert known is not None
    (record,) = claim_stems(connection, [known], folder)
    return AddedOne(record=record, counted=counted)


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
    named: Named,
    after: Mapping[str, int],
    *,
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
    connection: sqlite3.Connection,
    named: Named,
    model: str,
    *,
    after: int,
    limit: int,
) -> list[JobRecord]:
    """Pending jobs of ``model`` that a run names, above id ``after``, by id."""
    rows = connection.execute(
        _RECORD + f"WHERE j.state='pending' AND j.model=? AND j.id>? AND {_NAMED}"
        " ORDER BY j.id LIMIT ?",
        (model, after, named.run, named.single, named.last, limit),
    )
    return [_record(row) for row in rows]


_ASSETS = (
    "SELECT s.job_id, s.position, s.path, s.size, s.sha256 FROM jobs j"
    " JOIN assets s ON s.job_id=j.id AND s.n=j.used+1"
)


def assets(
    connection: sqlite3.Connection, *, run: int | None, after: int, limit: int
) -> list[StoredAsset]:
    """The assets of the next ``limit`` jobs above id ``after`` that succeeded, by job.

    Of those that bear ``run``, or of all.
    """
    rows = connection.execute(
        f"{_ASSETS} WHERE j.id IN (SELECT id FROM jobs WHERE id>? AND +state='succeeded'"
        " AND seen_run=coalesce(?, seen_run) ORDER BY id LIMIT ?) ORDER BY j.id, s.position",
        (after, run, limit),
    )
    return [_asset(row) for row in rows]


def assets_of(connection: sqlite3.Connection, job_id: int) -> list[StoredAsset]:
    """The assets of one job."""
    return [_asset(row) for row in connection.execute(f"{_ASSETS} WHERE j.id=?", (job_id,))]


def _asset(row: Sequence[Any]) -> StoredAsset:
    return StoredAsset(**dict(zip(StoredAsset.__slots__, row, strict=True)))


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
