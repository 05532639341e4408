"""The tables of a ledger."""

from __future__ import annotations

import sqlite3

from asyncpipe.errors import LedgerError

SCHEMA_VERSION = 4

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
  booked INTEGER NOT NULL, estimated INTEGER NOT NULL DEFAULT 0,
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


def check_version(connection: sqlite3.Connection) -> int:
    """Return a ledger's version, 0 where it has no tables yet.

    Raises LedgerError for one that is not this asyncpipe's.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version in (0, SCHEMA_VERSION):
        return int(version)
    remedy = (
        "finish the folder with the asyncpipe that wrote it, or choose another one with "
        "--output-dir, which would buy everything again"
        if version < SCHEMA_VERSION
        else "install the asyncpipe that wrote it, or a newer one"
    )
    raise LedgerError(
        f"this output folder's ledger is of version {version}, this asyncpipe knows "
        f"{SCHEMA_VERSION}: {remedy}"
    )


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new ledger, in the caller's transaction; look at an existing one.

    Raises LedgerError for a ledger of another version.
    """
    if check_version(connection) == 0:
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
