"""A ledger as the first version wrote it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from asyncpipe.ledger.folder import ledger_path

# The first version, written out: what is in people's folders must not change with our code.
VERSION_1 = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs(
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL, started_at TEXT NOT NULL, ended_at TEXT,
  job_file TEXT);
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
  price_source TEXT NOT NULL, assumed TEXT,
  prediction_id TEXT, route TEXT NOT NULL DEFAULT '', request_id TEXT,
  outputs TEXT, polls INTEGER NOT NULL DEFAULT 0, generation_s REAL,
  error TEXT, error_code INTEGER, moderated INTEGER NOT NULL DEFAULT 0,
  intended_at TEXT NOT NULL, submitted_at TEXT, ended_at TEXT,
  PRIMARY KEY(job_id, n)) WITHOUT ROWID;
CREATE TABLE assets(
  job_id INTEGER NOT NULL, n INTEGER NOT NULL, position INTEGER NOT NULL,
  path TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
  PRIMARY KEY(job_id, n, position)) WITHOUT ROWID;
CREATE TABLE events(
  id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, at TEXT NOT NULL,
  kind TEXT NOT NULL, version INTEGER NOT NULL, fields TEXT NOT NULL);
INSERT INTO meta VALUES('provider', 'atlas'), ('origin', 'simulator'), ('simulated', '1');
INSERT INTO runs VALUES(1, 1, '2026-11-20T08:00:00+00:00', NULL, 'jobs.yaml'),
  (2, 1, '2026-11-20T08:00:00+00:00', NULL, 'jobs.yaml');
INSERT INTO jobs VALUES(1, 'aa', '杯子', 'image', 'm/x', CAST('{"name":"杯子","type":"image",
 "model":"m/x","prompt":"a mug","params":{},"occurrence":1,"retries":null,"deadline_s":null}'
 AS BLOB), 2, 0, 'expired', 0, 0, 'images/杯子');
INSERT INTO attempts(job_id, n, reserved, price_source, prediction_id, intended_at, submitted_at)
  VALUES(1, 1, 40000, 'built-in', 'p1', '2026-11-20T08:00:01+00:00', '2026-11-20T08:00:02+00:00');
PRAGMA user_version=1;
"""


def version_1(folder: Path) -> None:
    (folder / ".asyncpipe").mkdir()
    connection = sqlite3.connect(ledger_path(folder))
    connection.executescript(VERSION_1)
    connection.close()
