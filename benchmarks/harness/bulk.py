"""A ledger with very many jobs, most of them done, made at once instead of by running them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from asyncpipe.ledger.folder import ledger_path
from asyncpipe.ledger.queries import job_to_spec
from asyncpipe.ledger.schema import prepare
from benchmarks.peers.ours import named_jobs

DIGEST = "benchmark"
"""The digest of its jobs: a run that gives the same one does not read them again."""

RUN = 2
_AT = datetime(2026, 11, 25, tzinfo=UTC).isoformat()
_SHA = "5" * 64
_BODY = b"\x89PNG\r\n\x1a\n"
_PER_FOLDER = 1000


def make_ledger(folder: Path, jobs: int, done: int, *, files: bool = True) -> None:
    """Make an output folder whose first ``done`` of ``jobs`` jobs succeeded.

    Their ``files`` are links to one: 8 bytes each, and every one has a name to be looked up.
    """
    path = ledger_path(folder)
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=OFF").close()
        connection.execute("BEGIN")
        prepare(connection)
        _write(connection, jobs, done)
        connection.execute("COMMIT")
    if files:
        _link_all(folder, done)


def _write(connection: sqlite3.Connection, jobs: int, done: int) -> None:
    origin = {"provider": "atlas", "origin": "null", "simulated": "1"}
    connection.executemany("INSERT INTO meta VALUES(?,?)", origin.items())
    connection.executemany(
        "INSERT INTO runs(session, started_at, digest, seen, jobs) VALUES(1,?,?,?,?)",
        [(_AT, None, None, None), (_AT, DIGEST, RUN, jobs)],
    )
    connection.executemany(
        "INSERT INTO jobs(key, name, type, model, spec, seen_run, position, state, attempt, stem)"
        " VALUES(?,?,?,?,?,?,?,?,?,?)",
        _jobs(jobs, done),
    )
    connection.executemany(
        "INSERT INTO attempts(job_id, n, reserved, charged, booked, overrun, estimated, settled,"
        " price_source, route, polls, refusals, generation_s, prediction_id, outputs,"
        " intended_at, submitted_at, ended_at, provider, model)"
        " VALUES(?,1,0,40000,40000,0,0,'charged','built-in table','',3,0,9.5,?,?,?,?,?,'atlas','')",
        ((n, f"p{n}", f'["http://null/{n}.png"]', _AT, _AT, _AT) for n in range(1, done + 1)),
    )
    connection.executemany(
        "INSERT INTO assets(job_id, n, position, path, size, sha256) VALUES(?,1,0,?,?,?)",
        ((n, f"{_stem(n)}.png", len(_BODY), _SHA) for n in range(1, done + 1)),
    )
    connection.executemany(
        "INSERT INTO stems VALUES(?,?)", sorted((_stem(n), n) for n in range(1, done + 1))
    )


def _jobs(jobs: int, done: int) -> Iterator[tuple[Any, ...]]:
    for n, job in enumerate(named_jobs(jobs), start=1):
        ended = n <= done
        yield (
            job.key("atlas"),
            job.name,
            job.kind.value,
            job.model,
            orjson.dumps(job_to_spec(job)),
            RUN,
            n - 1,
            "succeeded" if ended else "pending",
            int(ended),
            _stem(n) if ended else None,
        )


def _stem(number: int) -> str:
    return f"images/{number // _PER_FOLDER:04d}/{number}"


def _link_all(folder: Path, done: int) -> None:
    one = folder / "one.png"
    one.write_bytes(_BODY)
    for start in range(0, done + 1, _PER_FOLDER):
        (folder / _stem(start)).parent.mkdir(parents=True)
    for n in range(1, done + 1):
        os.link(one, f"{folder}/{_stem(n)}.png")
