"""The tables of a ledger, and the two views that most is read from."""

from __future__ import annotations

import sqlite3

from asyncpipe.errors import LedgerError

SCHEMA_VERSION = 8

# `jobs` keeps its rowid and a UNIQUE key beside it: WITHOUT ROWID on a text key triples the cost
# of the first pass over a million rows. `spec` comes last: it may be long.
TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs(
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL, started_at TEXT NOT NULL, ended_at TEXT,
  job_file TEXT, digest TEXT, jobs INTEGER, seen INTEGER);
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL, type TEXT NOT NULL, model TEXT NOT NULL,
  seen_run INTEGER NOT NULL, seen_before INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending', used INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 0, stem TEXT, priority INTEGER NOT NULL DEFAULT 0, labels TEXT,
  pruned_at TEXT, spec BLOB NOT NULL);
CREATE INDEX jobs_by_name ON jobs(name);
CREATE INDEX jobs_by_state ON jobs(state, model, priority DESC, id);
CREATE TABLE idempotency(key TEXT PRIMARY KEY, job_id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stems(folded TEXT PRIMARY KEY, job_id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts(
  job_id INTEGER NOT NULL, n INTEGER NOT NULL,
  reserved INTEGER NOT NULL, charged INTEGER NOT NULL, booked INTEGER NOT NULL,
  told INTEGER, overrun INTEGER NOT NULL, estimated INTEGER NOT NULL,
  settled TEXT, settled_at TEXT, price_source TEXT NOT NULL, assumed TEXT,
  provider TEXT NOT NULL, model TEXT NOT NULL,
  body TEXT, uploads TEXT, submit_key TEXT, trace TEXT,
  prediction_id TEXT, route TEXT NOT NULL, request_id TEXT, outputs TEXT,
  notes TEXT, polls INTEGER NOT NULL, refusals INTEGER NOT NULL, generation_s REAL,
  error TEXT, error_code INTEGER,
  intended_at TEXT NOT NULL, submitted_at TEXT, resumed_at TEXT, ended_at TEXT,
  lost_at TEXT,
  PRIMARY KEY(job_id, n)) WITHOUT ROWID;
CREATE INDEX attempts_prediction ON attempts(prediction_id) WHERE prediction_id IS NOT NULL;
CREATE INDEX attempts_lost ON attempts(job_id) WHERE lost_at IS NOT NULL;
CREATE INDEX attempts_noted ON attempts(job_id) WHERE notes IS NOT NULL;
CREATE TABLE assets(
  job_id INTEGER NOT NULL, n INTEGER NOT NULL, position INTEGER NOT NULL,
  path TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
  missing INTEGER NOT NULL DEFAULT 0, store TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(job_id, n, position)) WITHOUT ROWID;
CREATE TABLE uploads(
  sha256 TEXT PRIMARY KEY, url TEXT NOT NULL, size INTEGER NOT NULL,
  uploaded_at TEXT NOT NULL) WITHOUT ROWID;
"""

# A run whose pass over its jobs has not ended well names nothing: what its rows bore before counts.
UNENDED = "SELECT id FROM runs WHERE digest IS NOT NULL AND seen IS NULL"
NAMED_BY = f"CASE WHEN seen_run IN ({UNENDED}) THEN seen_before ELSE seen_run END"

# Callers asked for the job one by one, no batch names it.
ALONE = f"{NAMED_BY} IN (SELECT id FROM runs WHERE digest IS NULL)"

# Every job with its latest attempt, whose number is n: the one that is under way, or else the last
# that was left behind; NULL before the first. (A job's own `attempt` is 0 between two.)
_LATEST = """
CREATE VIEW latest AS SELECT
  j.id, j.key, j.name, j.type, j.model, j.seen_run, j.position, j.state, j.used, j.failures,
  j.attempt, j.version, j.stem, j.priority, j.labels, j.pruned_at, j.spec,
  a.n, a.reserved, a.charged, a.booked, a.told, a.overrun,
  a.estimated, a.settled, a.settled_at, a.price_source, a.assumed, a.provider,
  a.model AS bought_as, a.body, a.uploads,
  a.prediction_id, a.route, a.request_id, a.outputs, a.notes, a.polls, a.refusals, a.generation_s,
  a.error, a.error_code, a.intended_at, a.submitted_at, a.resumed_at, a.ended_at
FROM jobs j LEFT JOIN attempts a ON a.job_id=j.id
  AND a.n=CASE WHEN j.attempt>0 THEN j.attempt ELSE j.used END
"""


def _over_all(sum_: str, of_one: str, where: str = "") -> str:
    """A sum over a job's attempts; nearly all have one, which is the row at hand."""
    every = f"(SELECT {sum_} FROM attempts e WHERE e.job_id=l.id{where})"
    return f"CASE WHEN l.n=1 THEN {of_one} ELSE {every} END"


_ESTIMATED = "count(CASE WHEN e.estimated=1 THEN 1 END)"
_CHARGED = "count(CASE WHEN e.settled='charged' THEN 1 END)"
_CHARGED_ONE = "CASE WHEN l.settled='charged' THEN 1 ELSE 0 END"
_LOST = (
    "(SELECT count(*) FROM attempts e WHERE e.job_id=l.id AND e.n<=l.used AND e.settled IS NULL)"
)

# The same with what all attempts came to: sums, how many were charged or estimated, how many that
# were left behind are of unknown outcome (`lost`); how the job ended, and whether a run may buy it
# again that is told to: failed, free of charge, let pass by moderation, and no attempt in doubt; or
# unknown, and not what the provider has under a word that is not known.
_OUTCOMES = f"""
CREATE VIEW outcomes AS SELECT s.*,
  CASE WHEN s.state='succeeded' THEN 'succeeded' WHEN s.state='unknown' THEN 'unknown'
    WHEN s.state='missing' THEN 'missing'
    WHEN s.state='lost' THEN 'failed, charged' WHEN s.state<>'failed' THEN 'pending'
    WHEN s.settled='charged' THEN 'failed, charged' WHEN s.lost>0 THEN 'unknown'
    WHEN s.charged_attempts>0 THEN 'failed, charged' ELSE 'failed, not charged' END AS outcome,
  CASE WHEN s.pruned_at IS NOT NULL THEN 0
    WHEN s.state='failed' AND s.charged_attempts=0 AND s.lost=0
    AND coalesce(s.notes, '') NOT LIKE '%"moderated":%' THEN 1
    WHEN s.state='unknown' AND coalesce(s.notes, '') NOT LIKE '%"status":%' THEN 1
    ELSE 0 END AS retryable
FROM (SELECT l.*,
  {_over_all("sum(e.charged)", "l.charged")} AS cost,
  {_over_all("sum(e.reserved)", "l.reserved")} AS all_reserved,
  {_over_all("sum(e.overrun)", "l.overrun")} AS all_overrun,
  {_over_all("sum(e.polls)", "l.polls")} AS all_polls,
  {_over_all("count(*)", "1")} AS attempts,
  {_over_all(_CHARGED, _CHARGED_ONE)} AS charged_attempts,
  {_over_all(_ESTIMATED, "l.estimated")} AS estimated_attempts,
  CASE WHEN l.used=0 THEN 0 ELSE {_LOST} END AS lost
FROM latest l) s
"""

VIEWS = (_LATEST, _OUTCOMES)

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
        for statement in (*TABLES.split(";"), *VIEWS):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
