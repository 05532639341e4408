"""What is asked of a ledger; every query takes a connection and is synchronous."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from asyncpipe.jobs import (
    NO_ATTEMPT,
    NO_NOTES,
    STOOD,
    Attempt,
    Job,
    JobRecord,
    JobState,
    JobType,
    LocalFile,
    Sent,
    Settled,
    StoredAsset,
    Terms,
    made,
    terms_of,
)
from asyncpipe.ledger.asset_names import FolderNames, claim_stems, has_namesake
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.errors import MADE_NO_SENSE, makes_no_sense, rows_of
from asyncpipe.ledger.rows import Added, AddedOne, Counted, Drawn, Located, Named
from asyncpipe.ledger.schema import ALONE, NAMED_BY, UNENDED
from asyncpipe.ledger.write import ATTEMPT_COLUMNS, TIMES, text_of

_JOB_COLUMNS = ("id", "key", "name", "spec", "state", "version", "stem", "used", "failures")

_JOBS = f"SELECT {', '.join(_JOB_COLUMNS)}, attempt FROM jobs "

_ATTEMPTS = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE job_id=? AND n"

_STATES = {state.value: state for state in JobState}  # a look-up costs less than asking JobState


def read_records(connection: Connection, where: str, values: Sequence[Any]) -> list[JobRecord]:
    """The jobs that a condition holds for; raises LedgerError for a row that no ledger wrote."""
    return [
        _record(connection, row) for row in connection.execute(_JOBS + where, values).fetchall()
    ]


def _record(connection: Connection, row: tuple[Any, ...]) -> JobRecord:
    """Make a record of a row; raises LedgerError for one that no ledger wrote."""
    *values, attempt = row
    fields = dict(zip(_JOB_COLUMNS, values, strict=True))
    job_id, used = fields["id"], fields["used"]
    try:
        fields["job"] = job_from_spec(orjson.loads(fields.pop("spec")))
        fields["state"] = _STATES.get(fields["state"]) or JobState(fields["state"])
        fields["attempt"], fields["earlier"] = NO_ATTEMPT, ()
        if attempt:
            (fields["attempt"],) = _attempts(connection, "=?", job_id, attempt)
        if used:
            fields["earlier"] = tuple(
                _attempts(connection, "<? ORDER BY n", job_id, attempt or used + 1)
            )
    except MADE_NO_SENSE as exc:
        raise makes_no_sense(f"job {job_id}", exc) from exc
    return made(JobRecord, fields)


def _attempts(connection: Connection, which: str, *values: int) -> list[Attempt]:
    rows = connection.execute(_ATTEMPTS + which, values).fetchall()
    return [_attempt(connection, values[0], row) for row in rows]


def _attempt(connection: Connection, job_id: int, row: tuple[Any, ...]) -> Attempt:
    fields = dict(zip(ATTEMPT_COLUMNS, row, strict=True))
    fields["estimated"] = bool(fields["estimated"])
    fields["settled"] = Settled(fields["settled"]) if fields["settled"] else None
    fields["terms"] = terms_of(*map(fields.pop, Terms._fields))
    uploads = fields.pop("uploads")
    files = tuple(orjson.loads(uploads)) if uploads else ()
    fields["sent"] = Sent(fields.pop("body"), files, fields.pop("submit_key"), fields.pop("trace"))
    fields["notes"] = orjson.loads(fields["notes"]) if fields["notes"] else NO_NOTES
    fields["outputs"] = tuple(orjson.loads(fields["outputs"])) if fields["outputs"] else ()
    fields["stored"] = ()
    if fields["outputs"]:
        rows = connection.execute(f"{_ASSETS} WHERE job_id=? AND n=?", (job_id, fields["n"]))
        fields["stored"] = tuple(map(StoredAsset._make, rows))
    for name in TIMES:
        fields[name] = datetime.fromisoformat(fields[name]) if fields[name] else None
    return made(Attempt, fields)


def record_by_key(connection: Connection, key: str) -> JobRecord | None:
    """The job with this key, or None."""
    return next(iter(read_records(connection, "WHERE key=?", (key,))), None)


def record_by_idempotency_key(connection: Connection, key: str) -> JobRecord | None:
    """The job that an idempotency key stands for, or None."""
    where = "WHERE id=(SELECT job_id FROM idempotency WHERE key=?)"
    return next(iter(read_records(connection, where, (key,))), None)


_FOUND_BY = {
    "id": "SELECT ?",
    "key": "SELECT id FROM jobs WHERE key=?",
    "name": "SELECT max(id) FROM jobs WHERE name=?",
    "prediction_id": "SELECT max(job_id) FROM attempts WHERE prediction_id=?",
    "idempotency_key": "SELECT job_id FROM idempotency WHERE key=?",
}


def find(connection: Connection, by: str, value: str | int) -> Located | None:
    """The newest job by what ``by`` says, or None."""
    row = connection.execute(_FOUND_BY[by], (value,)).fetchone()
    if row is None or row[0] is None:
        return None
    found = read_records(connection, "WHERE id=?", (row[0],))
    if not found:
        return None
    query = f"SELECT count(*) FROM jobs WHERE id=? AND {ALONE}"
    (alone,) = connection.execute(query, (row[0],)).fetchone()
    return Located(record=found[0], alone=bool(alone))


def records(connection: Connection, ids: Iterable[int]) -> list[JobRecord]:
    """The jobs with these ids, in that order."""
    return [record for i in ids for record in read_records(connection, "WHERE id=?", (i,))]


def records_in(connection: Connection, states: Collection[JobState]) -> list[JobRecord]:
    """Every job in one of ``states``, oldest first."""
    marks = ",".join("?" * len(states))
    words = [state.value for state in states]
    return read_records(connection, f"WHERE state IN ({marks}) ORDER BY id", words)


def _again(*, retry_failed: bool, resubmit: bool) -> str:
    """The states whose jobs a run asks for again."""
    return ", ".join(["'cancelled'", *["'failed'"] * retry_failed, *["'unknown'"] * resubmit])


def _bought(states: str) -> str:
    """The one rule for what a run buys: of jobs in ``states``, not those it must leave alone."""
    return f"(state IN ({states}) AND (state NOT IN ('failed', 'unknown') OR retryable=1))"


def to_buy(connection: Connection, run: int, *, retry_failed: bool, resubmit: bool) -> list[int]:
    """Those jobs of ``run`` that it buys besides the pending ones, oldest first."""
    again = _again(retry_failed=retry_failed, resubmit=resubmit)
    query = f"SELECT id FROM outcomes WHERE {_bought(again)} AND seen_run=? ORDER BY id"
    return [row[0] for row in connection.execute(query, (run,))]


def left_alone(
    connection: Connection, keys: Iterable[str], *, retry_failed: bool, resubmit: bool
) -> set[str]:
    """Those of ``keys`` whose jobs are here, and a run that names them does not buy."""
    again = _again(retry_failed=retry_failed, resubmit=resubmit)
    bought = _bought(f"'pending', {again}")
    query = f"SELECT 1 FROM outcomes WHERE key=? AND NOT {bought}"
    return {key for key in keys if connection.execute(query, (key,)).fetchone()}


def unresolved(connection: Connection) -> list[JobRecord]:
    """Jobs that are unknown, or have an earlier attempt of unknown outcome, oldest first."""
    lost = "SELECT 1 FROM attempts e WHERE e.job_id=id AND e.n<=used AND e.settled IS NULL"
    return read_records(connection, f"WHERE state='unknown' OR EXISTS({lost}) ORDER BY id", ())


def sought(connection: Connection) -> list[JobRecord]:
    """Jobs with a submit whose prediction may be at the provider under an unknown id, by id."""
    lost = (
        "SELECT job_id FROM attempts WHERE lost_at IS NOT NULL AND prediction_id IS NULL"
        " AND (settled IS NULL OR settled='absent')"
    )
    return read_records(connection, f"WHERE id IN ({lost}) ORDER BY id", ())


_AT_ONCE = 500
"""So many values go into one query."""


def owners_of(connection: Connection, prediction_ids: Collection[str]) -> dict[str, int]:
    """The jobs whose predictions these are, by the prediction's id; others are left out."""
    ids, owners = list(prediction_ids), dict[str, int]()
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"SELECT prediction_id, job_id FROM attempts WHERE prediction_id IN ({marks})"
        owners.update(connection.execute(query, some).fetchall())
    return owners


def predictions(connection: Connection, since: datetime) -> list[tuple[str, datetime]]:
    """The ids of predictions whose submit was intended since then, and when."""
    query = (
        "SELECT prediction_id, intended_at FROM attempts"
        " WHERE prediction_id IS NOT NULL AND intended_at>=?"
    )
    with rows_of("a prediction"):
        rows = connection.execute(query, (text_of(since),))
        return [(found, datetime.fromisoformat(at)) for found, at in rows]


def absence_failed(connection: Connection) -> bool:
    """Whether a submit that was taken for absent has turned up after all."""
    # What is absent has nothing reserved: found, and charged, all of it goes beyond that.
    query = (
        "SELECT EXISTS(SELECT 1 FROM attempts a JOIN jobs j ON j.id=a.job_id"
        " WHERE lost_at IS NOT NULL AND n<=used AND settled='charged' AND overrun>=booked"
        " AND booked>0 AND prediction_id IS NOT NULL)"
    )
    return bool(connection.execute(query).fetchone()[0])


NAMED = f" {NAMED_BY} >=? AND seen_run<>? AND id<=? "


def named_of(connection: Connection, ids: Iterable[int], named: Named) -> set[int]:
    """Those of ``ids`` that a run names."""
    query = f"SELECT id FROM jobs WHERE id=? AND {NAMED}"
    which = (named.run, named.single, named.last)
    return {i for i in ids if connection.execute(query, (i, *which)).fetchone()}


def add_jobs(
    connection: Connection,
    rows: Sequence[tuple[str, Job]],
    *,
    run: int,
    position: int,
) -> Added:
    """Write (key, job) rows as pending, or mark those that are there as seen by ``run``.

    ``position`` is the place of the first row in the job file.
    """
    (count,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    unended = ",".join(str(row[0]) for row in connection.execute(UNENDED)) or "NULL"
    cursor = connection.executemany(
        "INSERT INTO jobs(key, name, type, model, spec, priority, labels, seen_run, position)"
        " VALUES(?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT(key) DO UPDATE SET seen_before="
        f"CASE WHEN jobs.seen_run IN ({unended}) THEN jobs.seen_before"
        " ELSE jobs.seen_run END, seen_run=excluded.seen_run, position=excluded.position,"
        " spec=excluded.spec, priority=excluded.priority, labels=excluded.labels, pruned_at=NULL"
        f" WHERE jobs.seen_run<excluded.seen_run OR (jobs.seen_run IN ({unended})"
        " AND jobs.seen_run<>excluded.seen_run)",
        (
            (
                key,
                job.title(key),
                job.kind.value,
                job.model,
                orjson.dumps(job_to_spec(job)),
                job.priority,
                labels_text(job.labels),
                run,
                position + offset,
            )
            for offset, (key, job) in enumerate(rows)
        ),
    )
    (new,) = connection.execute("SELECT count(*) FROM jobs WHERE id>?", (count,)).fetchone()
    return Added(
        new=new, twice=() if cursor.rowcount == len(rows) else _twice(connection, rows, position)
    )


def _twice(
    connection: Connection, rows: Sequence[tuple[str, Job]], position: int
) -> tuple[str, ...]:
    """Name the jobs whose row was written by an earlier twin: it stands at another position."""
    names = []
    for expected, (key, job) in enumerate(rows, start=position):
        query = "SELECT position FROM jobs WHERE key=?"
        if connection.execute(query, (key,)).fetchone() != (expected,):
            names.append(job.title(key))
    return tuple(names)


def add_one(
    connection: Connection,
    key: str,
    job: Job,
    *,
    run: int,
    since: int,
    folder: Path | FolderNames,
) -> AddedOne:
    """Write one job unless it is there already, and fix its stem.

    Rows that bear ``since`` or a later run are named by this session; ``run`` is its own.
    """
    same = job.idempotency_key and record_by_idempotency_key(connection, job.idempotency_key)
    if same and same.key != key:
        return AddedOne(record=same, counted=Counted.ALREADY, conflict=True)
    known = record_by_key(connection, key)
    counted = Counted.NOWHERE if known is None else Counted.ALREADY
    if known is None or known.state in (JobState.PENDING, JobState.CANCELLED):
        if known is not None and known.state is JobState.PENDING:
            seen = (
                f"SELECT seen_run, used, {NAMED_BY},"
                " seen_run IN (SELECT id FROM runs WHERE digest IS NULL) FROM jobs WHERE id=?"
            )
            seen_run, used, named, single = connection.execute(seen, (known.id,)).fetchone()
            if named >= since and named != run:
                _keep_idempotency_key(connection, job, known.id)
                (record,) = claim_stems(connection, [known], folder)
                return AddedOne(record=record, counted=Counted.IN_A_BATCH)
            removed = seen_run < since and not used and not single
            counted = Counted.AS_REMOVED if removed else counted
        add_jobs(connection, [(key, job)], run=run, position=0)
        known = record_by_key(connection, key)
    assert known is not None
    _keep_idempotency_key(connection, job, known.id)
    (record,) = claim_stems(connection, [known], folder)
    new = counted is Counted.NOWHERE and job.name is not None
    namesake = new and has_namesake(connection, record)
    return AddedOne(record=record, counted=counted, namesake=namesake)


def _keep_idempotency_key(connection: Connection, job: Job, job_id: int) -> None:
    if job.idempotency_key is not None:
        query = "INSERT INTO idempotency(key, job_id) VALUES(?, ?) ON CONFLICT DO NOTHING"
        connection.execute(query, (job.idempotency_key, job_id))


def pending_models(connection: Connection, named: Named) -> list[str]:
    """The models that have pending jobs of a run, in job-file order of their first."""
    rows = connection.execute(
        f"SELECT model FROM jobs WHERE state='pending' AND {NAMED}"
        " GROUP BY model ORDER BY min(position)",
        (named.run, named.single, named.last),
    )
    return [row[0] for row in rows]


def draw(
    connection: Connection,
    named: Named,
    after: Mapping[str, Drawn],
    *,
    limit: int,
    folder: Path | FolderNames,
) -> dict[str, list[JobRecord]]:
    """The next pending jobs of a run, at most ``limit`` of each model, their stems fixed.

    ``after`` has the models, each with the place of what was drawn last.
    """
    pages = {
        model: pending(connection, named, model, after=last, limit=limit)
        for model, last in after.items()
    }
    records = iter(claim_stems(connection, list(chain.from_iterable(pages.values())), folder))
    return {model: list(islice(records, len(page))) for model, page in pages.items()}


def pending(
    connection: Connection,
    named: Named,
    model: str,
    *,
    after: Drawn,
    limit: int,
) -> list[JobRecord]:
    """Pending jobs of ``model`` that a run names, in the order of draws, from a place on."""
    # Two walks along the index: in one, past jobs of that priority, it would be gone through.
    found: list[JobRecord] = []
    for which, order, places in _AFTER:
        if len(found) < limit:
            values = (*after[:places], named.run, named.single, named.last, limit - len(found))
            where = f"WHERE state='pending' AND model=? AND {which} AND {NAMED}"
            found += read_records(connection, f"{where} ORDER BY {order} LIMIT ?", (model, *values))
    return found


_AFTER = (("priority=? AND id>?", "id", 2), ("priority<?", "priority DESC, id", 1))
"""What comes after a place in the order of draws: conditions, their orders, how much they take."""


_ASSETS = f"SELECT {', '.join(StoredAsset._fields)} FROM assets"


def assets(
    connection: Connection,
    *,
    run: int | None,
    after: int,
    limit: int,
    states: Collection[JobState] = STOOD,
) -> list[StoredAsset]:
    """The assets of the next ``limit`` jobs in ``states`` above id ``after``, by job.

    Of those that bear ``run``, or of all; also those that are missing.
    """
    # By id, not by the index on states: the next page is near.
    marks = ",".join("?" * len(states))
    jobs = f"SELECT id FROM jobs WHERE id>? AND coalesce(state, '') IN ({marks})"
    jobs += " AND EXISTS(SELECT 1 FROM assets WHERE job_id=id)"
    jobs += " AND seen_run=coalesce(?, seen_run)"
    rows = connection.execute(
        f"{_ASSETS} JOIN ({jobs} ORDER BY id LIMIT ?) j ON j.id=job_id ORDER BY job_id, position",
        (after, *(state.value for state in states), run, limit),
    )
    return [StoredAsset._make(row) for row in rows]


def job_to_spec(job: Job) -> dict[str, Any]:
    """Everything of a job the ledger must keep to submit it later; JSON types only.

    Of the files it takes in, what is written, path, size, time and sha256; never their bytes.
    """
    spec: dict[str, Any] = {
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
    if job.priority:
        spec["priority"] = job.priority
    if job.fallback:
        spec["fallback"] = list(job.fallback)
    if job.max_cost is not None:
        spec["max_cost"] = f"{job.max_cost:f}"
    if not job.store:
        spec["store"] = False
    if job.idempotency_key is not None:
        spec["idempotency_key"] = job.idempotency_key
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
    fields = {**spec, "type": JobType(spec["type"]), "inputs": inputs}
    if "fallback" in spec:
        fields["fallback"] = tuple(spec["fallback"])
    if "max_cost" in spec:
        fields["max_cost"] = Decimal(spec["max_cost"])
    return Job(**fields)


def providers(connection: Connection) -> list[str]:
    """The names of those that anything was bought from, or was to be."""
    rows = connection.execute("SELECT DISTINCT provider FROM attempts ORDER BY 1").fetchall()
    return [row[0] for row in rows if row[0]]


def labels_text(labels: Mapping[str, str]) -> str | None:
    """A job's labels as the ledger keeps them for queries; None where it has none."""
    return orjson.dumps(dict(labels)).decode() if labels else None


def labelled(name: str, value: str) -> tuple[str, str]:
    """A condition on rows of jobs, that they bear a label, and the value it takes."""
    # In JSON nothing but this label reads so: within names and values quotes are escaped.
    needle = "," + orjson.dumps({name: value}).decode()[1:-1]
    return "replace(',' || substr(labels, 2), ?, '')<>',' || substr(labels, 2)", needle


def find_upload(connection: Connection, sha256: str) -> tuple[str, datetime] | None:
    """The URL of a file and when it was uploaded, or None."""
    query = "SELECT url, uploaded_at FROM uploads WHERE sha256=?"
    row = connection.execute(query, (sha256,)).fetchone()
    with rows_of(f"the upload {sha256[:12]}"):
        return (str(row[0]), datetime.fromisoformat(row[1])) if row else None


def keep_upload(connection: Connection, sha256: str, *, url: str, size: int, at: datetime) -> None:
    """Keep the URL of a file, in place of an older one."""
    connection.execute(
        "INSERT INTO uploads(sha256, url, size, uploaded_at) VALUES(?,?,?,?) ON CONFLICT(sha256)"
        " DO UPDATE SET url=excluded.url, size=excluded.size, uploaded_at=excluded.uploaded_at",
        (sha256, url, size, at.isoformat()),
    )


def forget_uploads(connection: Connection, digests: Iterable[str]) -> None:
    """Forget the URLs of files: they lead nowhere any more."""
    connection.executemany("DELETE FROM uploads WHERE sha256=?", ((each,) for each in digests))
