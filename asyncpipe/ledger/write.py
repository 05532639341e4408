"""What one commit writes: of every job, and of every attempt, how it stands at last."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson

from asyncpipe.errors import LedgerError
from asyncpipe.jobs import Attempt, JobRecord, JobState, Settled, StoredAsset, Terms
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.rows import NotReserved

INLINE = "data:"
"""Prefix of outputs that carry the media themselves; only the prefix is stored, polling again
brings the rest."""

_OPEN = ("prediction_id", "route", "request_id", "polls", "error")
_OPEN_COLUMNS = (*_OPEN, "submitted_at", "resumed_at", "lost_at", "notes")
"""What may change of an attempt as long as its money is not settled."""

_SETTLED = ("reserved", "charged", "told", "overrun", "refusals", "generation_s", "error_code")
_SETTLED_COLUMNS = (
    *(*_OPEN_COLUMNS, *_SETTLED, "settled_at", "ended_at"),
    *("settled", "estimated", "outputs"),
)
"""What may change of it at all."""

_INTENT = ("n", "booked", "body", "submit_key", "trace")

_TERMS = Terms._fields

ATTEMPT_COLUMNS = (*_SETTLED_COLUMNS, *_INTENT, *_TERMS, "intended_at", "uploads")
"""Those of a row of attempts that are an attempt's fields: all but the job's id."""

TIMES = ("submitted_at", "resumed_at", "lost_at", "settled_at", "ended_at", "intended_at")

_INTEND = (
    f"INSERT INTO attempts({', '.join(ATTEMPT_COLUMNS)}, job_id)"
    f" VALUES({', '.join('?' * len(ATTEMPT_COLUMNS))}, ?) ON CONFLICT(job_id, n) DO UPDATE SET "
    + ", ".join(f"{name}=excluded.{name}" for name in ATTEMPT_COLUMNS if name != "n")
)


def _set(*columns: str) -> str:
    return f"UPDATE attempts SET {', '.join(f'{c}=?' for c in columns)} WHERE job_id=? AND n=?"


_SET_OPEN, _SET_SETTLED = _set(*_OPEN_COLUMNS), _set(*_SETTLED_COLUMNS)

_JOB = "UPDATE jobs SET state=?, used=?, failures=?, attempt=?, version=? WHERE id=? AND version<?"

_ASSET = (
    f"INSERT INTO assets(n, {', '.join(StoredAsset._fields)}) VALUES(?,?,?,?,?,?,?,?)"
    " ON CONFLICT(job_id, n, position) DO UPDATE SET"
    " path=excluded.path, size=excluded.size, sha256=excluded.sha256, missing=excluded.missing,"
    " store=excluded.store"
)

_SUBMITTING = JobState.SUBMITTING

_STATES = {state: state.value for state in JobState}  # a look-up costs less than ``value``

_WORDS: dict[Settled | None, str | None] = {settled: settled.value for settled in Settled}
_WORDS[None] = None

Row = tuple[Any, ...]


class Batch:
    """The last record of every job, which one commit writes: each of its attempts, and its files.

    Of an attempt whose intent is on disk already only what may have changed since is written.
    """

    def __init__(self, store: str = "") -> None:
        self._store = store
        self._records: dict[int, JobRecord] = {}
        self._intended: set[tuple[int, int]] = set()

    def __bool__(self) -> bool:
        return bool(self._records)

    def add(self, record: JobRecord, *, held: bool = False) -> None:
        """Take a record in place of an older one; raises LedgerError for one that is older.

        ``held`` matters where others write, too.
        """
        before = self._records.get(record.id)
        if before is not None and before.version >= record.version:
            raise outdated(record, before.version)
        self._records[record.id] = record
        if record.state is _SUBMITTING:
            self._intended.add((record.id, record.attempt.n))

    def write(self, connection: Connection) -> None:
        """Write them; raises LedgerError where a row is newer than its record, or not there."""
        records = self._records.values()
        written = connection.executemany(_JOB, map(job_row, records)).rowcount
        if written != len(records):
            raise _find_outdated(connection, records) or LedgerError(f"a job {_OUTDATED}")
        self._write_attempts(connection, records)
        self._write_assets(connection, records)

    def _write_assets(self, connection: Connection, records: Collection[JobRecord]) -> None:
        """Write the files of jobs."""
        assets = [(record.attempt.n, *each) for record in records for each in record.attempt.stored]
        if assets and self._store:
            assets = [(*each[:-1], each[-1] or self._store) for each in assets]
        if assets:
            connection.executemany(_ASSET, assets)

    def _write_attempts(self, connection: Connection, records: Collection[JobRecord]) -> None:
        """Write what there is of the attempts of jobs."""
        intended, still_open, settled = [], [], []
        for record in records:
            job_id, earlier = record.id, record.earlier
            for attempt in (record.attempt, *earlier) if earlier else (record.attempt,):
                place = job_id, attempt.n
                if place in self._intended:
                    intended.append((*_settled_row(attempt), *_intent_row(attempt), job_id))
                elif attempt.settled is not None:
                    settled.append((*_settled_row(attempt), *place))
                elif attempt.n:
                    still_open.append((*_open_row(attempt), *place))
        if intended:
            connection.executemany(_INTEND, intended)
        for query, rows in ((_SET_OPEN, still_open), (_SET_SETTLED, settled)):
            if rows and connection.executemany(query, rows).rowcount != len(rows):
                raise LedgerError("an attempt is not in this ledger, though its job says so")

    def tell(self) -> None:
        """Hear in the loop that it is written."""

    def fail(self, error: LedgerError) -> None:
        """Hear in the loop that it could not be written."""


def reserve(connection: Connection, record: JobRecord, cap: int) -> NotReserved | None:
    """Write an intent, unless more than ``cap`` micro-dollars would be charged or reserved."""
    query = "SELECT coalesce(sum(charged + reserved), 0) FROM attempts"
    (committed,) = connection.execute(query).fetchone()
    if committed + record.attempt.reserved > cap:
        return NotReserved.CAP
    batch = Batch()
    batch.add(record)
    batch.write(connection)
    return None


_OUTDATED = (
    "has been written since by somebody else: does another program write into this folder? "
    "Let it end, then run the same command again"
)


def outdated(record: JobRecord, version: int) -> LedgerError:
    """Say that a row is newer than its record."""
    return LedgerError(f"job {record.id} {_OUTDATED} (version {version}, not {record.version})")


def _find_outdated(connection: Connection, records: Iterable[JobRecord]) -> LedgerError | None:
    for record in records:
        row = connection.execute("SELECT version FROM jobs WHERE id=?", (record.id,)).fetchone()
        if row is None:
            return LedgerError(f"there is no job {record.id} in this ledger")
        if row[0] > record.version:
            return outdated(record, row[0])
    return None


def text_of(at: datetime) -> str:
    """The same text as isoformat, three times as fast."""
    return orjson.dumps(at)[1:-1].decode()


def job_row(record: JobRecord) -> Row:
    """The values of ``_JOB``."""
    state, version = _STATES[record.state], record.version
    return state, record.used, record.failures, record.attempt.n, version, record.id, version


_open, _settled, _intent = attrgetter(*_OPEN), attrgetter(*_SETTLED), attrgetter(*_INTENT)


def _open_row(attempt: Attempt) -> Row:
    submitted_at, resumed_at = attempt.submitted_at, attempt.resumed_at
    lost_at = attempt.lost_at
    return (
        *_open(attempt),
        submitted_at and text_of(submitted_at),
        resumed_at and text_of(resumed_at),
        lost_at and text_of(lost_at),
        orjson.dumps(attempt.notes).decode() if attempt.notes else None,
    )


def _settled_row(attempt: Attempt) -> Row:
    settled_at, ended_at, outputs = attempt.settled_at, attempt.ended_at, attempt.outputs
    ended = ended_at and text_of(ended_at)
    return (
        *_open_row(attempt),
        *_settled(attempt),
        ended if settled_at is ended_at else settled_at and text_of(settled_at),
        ended,
        _WORDS[attempt.settled],
        +attempt.estimated,
        orjson.dumps([*map(_shown, outputs)]).decode() if outputs else None,
    )


def _intent_row(attempt: Attempt) -> Row:
    intended_at, uploads = attempt.intended_at, attempt.uploads
    assert intended_at is not None, "an intent knows when"
    urls = orjson.dumps(uploads).decode() if uploads else None
    return *_intent(attempt), *attempt.terms, text_of(intended_at), urls


def _shown(url: str) -> str:
    return INLINE if url.startswith(INLINE) else url
