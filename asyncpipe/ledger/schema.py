"""The tables of a ledger and how older ones become today's."""

from __future__ import annotations

import sqlite3

from asyncpipe.errors import LedgerError

SCHEMA_VERSION = 3

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs(
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL, started_at TEXT NOT NULL, ended_at TEXT,
  job_file TEXT, digest TEXT, jobs INTEGER, seen INTEGER);
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL, type TEXT NOT NULL, model TEXT NOT NULL, spec BLOB NOT NULL,
  seen_run INTEGER NOT NULL, position INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending', used INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0, stem TEXT);
CREATE INDEX jobs_by_state ON jobs(state, model, id);
CREATE TABLE stems(folded TEXT PRIMARY KEY, job_id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts(
  job_id INTEGER NOT NULL, n INTEGER NOT NULL,
  reserved INTEGER NOT NULL, charged INTEGER NOT NULL DEFAULT 0,
  booked INTEGER, estimated INTEGER NOT NULL DEFAULT 0,
  settled TEXT, told INTEGER, overrun INTEGER NOT NULL DEFAULT 0,
  price_source TEXT NOT NULL, assumed TEXT,
  prediction_id TEXT, route TEXT NOT NULL DEFAULT '', request_id TEXT,
  outputs TEXT, polls INTEGER NOT NULL DEFAULT 0, generation_s REAL,
  error TEXT, error_code INTEGER, moderated INTEGER NOT NULL DEFAULT 0,
  intended_at TEXT NOT NULL, submitted_at TEXT, resumed_at TEXT, ended_at TEXT,
  PRIMARY KEY(job_id, n)) WITHOUT ROWID;
CREATE TABLE assets(
  job_id INTEGER NOT NULL, n INTEGER NOT NULL, position INTEGER NOT NULL,
  path TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
  PRIMARY KEY(job_id, n, position)) WITHOUT ROWID;
CREATE TABLE uploads(
  sha256 TEXT PRIMARY KEY, url TEXT NOT NULL, size INTEGER NOT NULL,
  uploaded_at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events(
  id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, at TEXT NOT NULL,
  kind TEXT NOT NULL, version INTEGER NOT NULL, fields TEXT NOT NULL);
"""

# `jobs` keeps its rowid and a UNIQUE key beside it: WITHOUT ROWID on a text key triples the cost
# of the first pass over a million rows.

SETTINGS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA busy_timeout=5000",
    "PRAGMA cache_size=-8000",
)

# Whether an attempt was charged is a fact of its own: its price may be nothing.
_SETTLED = """CASE
 WHEN charged>0 THEN 'charged'
 WHEN reserved>0 THEN NULL
 WHEN n<=(SELECT used FROM jobs WHERE id=job_id) THEN 'released'
 ELSE (SELECT CASE
  WHEN state IN ('generated', 'succeeded', 'lost') THEN 'charged'
  WHEN state IN ('submitting', 'submitted', 'expired', 'unknown') THEN NULL
  WHEN (SELECT fields FROM events e WHERE e.job_id=jobs.id AND e.kind='Failed'
   ORDER BY e.id DESC LIMIT 1) LIKE '%"charged":true%' THEN 'charged'
  ELSE 'released' END FROM jobs WHERE id=job_id)
END"""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    # An expired job's second deadline used to overwrite when it was bought, which bills go by.
    1: ("ALTER TABLE attempts ADD COLUMN resumed_at TEXT",),
    # What is charged for a delivered prediction may be less than what was reserved for it; local
    # files are uploaded once; a first pass over unchanged jobs is not made again.
    2: (
        "ALTER TABLE attempts ADD COLUMN booked INTEGER",
        "ALTER TABLE attempts ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE attempts ADD COLUMN settled TEXT",
        "ALTER TABLE attempts ADD COLUMN told INTEGER",
        "ALTER TABLE attempts ADD COLUMN overrun INTEGER NOT NULL DEFAULT 0",
        f"UPDATE attempts SET settled={_SETTLED}",
        "ALTER TABLE runs ADD COLUMN digest TEXT",
        "ALTER TABLE runs ADD COLUMN jobs INTEGER",
        "ALTER TABLE runs ADD COLUMN seen INTEGER",
        "CREATE TABLE uploads("
        " sha256 TEXT PRIMARY KEY, url TEXT NOT NULL, size INTEGER NOT NULL,"
        " uploaded_at TEXT NOT NULL) WITHOUT ROWID",
    ),
}
"""What turns a ledger of each older version into the next one's."""

_AS_TODAY = (
    "CREATE TEMP VIEW attempts AS SELECT *, NULL AS booked, 0 AS estimated,"
    f" {_SETTLED} AS settled, NULL AS told, 0 AS overrun FROM main.attempts"
)
"""Shows a reader an older ledger's attempts as today's, without changing the file."""


def show_as_today(connection: sqlite3.Connection) -> None:
    """Let ``connection``, which may only read, read a ledger of any version like today's.

    Raises LedgerError for a ledger of a newer asyncpipe.
    """
    check_version(connection)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if 0 < version < SCHEMA_VERSION:
        connection.execute(_AS_TODAY)


def check_version(connection: sqlite3.Connection) -> None:
    """Raise LedgerError for a ledger of a newer asyncpipe."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"this output folder's ledger is of version {version}, this asyncpipe knows "
            f"{SCHEMA_VERSION}: install the asyncpipe that wrote it, or a newer one"
        )


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new ledger, or bring an existing one to today's version.

    Runs inside the caller's transaction: a ledger is of the old version or of the new one.

    Raises LedgerError for a ledger of a newer asyncpipe.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        return
    check_version(connection)
    for older in range(version, SCHEMA_VERSION):
        for statement in MIGRATIONS[older]:
            connection.execute(statement)
    if version < SCHEMA_VERSION:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
