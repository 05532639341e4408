"""Forgetting what old jobs were: what money and identity need stays, row by row.

Rows are not removed: a job whose key is gone would be bought again by the next run that names it,
and sums would have to be kept beside those of the rows that are left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import orjson

from asyncpipe.jobs import JobState
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.write import INLINE

PRUNED = "(pruned)"
"""What stands for a prompt that is not kept any more."""

_GONE = ("inputs", "deadline_s", "retries")
"""What else is not kept of a job's spec, besides prompt and params."""

# Everything of such a job has ended, long ago, and nobody can find out more about its money.
_ENDED = """
EXISTS(SELECT 1 FROM attempts a WHERE a.job_id=j.id) AND NOT EXISTS(
  SELECT 1 FROM attempts a WHERE a.job_id=j.id AND coalesce(a.ended_at, a.intended_at)>=?)
"""
_SETTLED = """
NOT EXISTS(SELECT 1 FROM attempts a WHERE a.job_id=j.id AND (a.settled IS NULL OR a.reserved>0
  OR (a.lost_at IS NOT NULL AND a.prediction_id IS NULL AND a.settled='absent')))
"""


def prunable(
    connection: Connection, *, before: datetime, after: int, limit: int
) -> list[tuple[int, JobState, int]]:
    """The next jobs above id ``after`` that ended before: id, state, micro-dollars charged.

    Only those that succeeded or failed, whose money is settled, and that were not pruned.
    """
    rows = connection.execute(
        "SELECT j.id, j.state, (SELECT sum(charged) FROM attempts a WHERE a.job_id=j.id)"
        f" FROM jobs j WHERE j.id>? AND j.pruned_at IS NULL AND j.state IN ('succeeded', 'failed')"
        f" AND {_ENDED} AND {_SETTLED} ORDER BY j.id LIMIT ?",
        (after, before.isoformat(), limit),
    )
    return [(job_id, JobState(state), int(charged)) for job_id, state, charged in rows]


def unpruned(connection: Connection, *, before: datetime) -> Mapping[JobState, int]:
    """How many jobs that were last heard of before a moment are kept whole, by state."""
    rows = connection.execute(
        f"SELECT state, count(*) FROM jobs j WHERE pruned_at IS NULL AND {_ENDED} GROUP BY state",
        (before.isoformat(),),
    )
    return {JobState(state): int(count) for state, count in rows}


def prune(connection: Connection, ids: Collection[int], *, at: datetime, files: bool) -> None:
    """Forget what these jobs were, and, with ``files``, which files they have."""
    for job_id in ids:
        (spec,) = connection.execute("SELECT spec FROM jobs WHERE id=?", (job_id,)).fetchone()
        kept = {k: v for k, v in orjson.loads(spec).items() if k not in _GONE}
        kept |= {"prompt": PRUNED, "params": {}}
        connection.execute(
            "UPDATE jobs SET spec=?, pruned_at=? WHERE id=?",
            (orjson.dumps(kept), at.isoformat(), job_id),
        )
        attempts = connection.execute(
            "SELECT n, outputs FROM attempts WHERE job_id=? AND outputs IS NOT NULL", (job_id,)
        ).fetchall()
        for n, outputs in attempts:
            # Whoever needs them after all asks the provider for them again.
            again = orjson.dumps([INLINE] * len(orjson.loads(outputs))).decode()
            connection.execute(
                "UPDATE attempts SET outputs=? WHERE job_id=? AND n=?", (again, job_id, n)
            )
        connection.execute("UPDATE attempts SET uploads=NULL WHERE job_id=?", (job_id,))
        if files:
            connection.execute("DELETE FROM assets WHERE job_id=?", (job_id,))


def stored(connection: Connection, ids: Collection[int]) -> list[tuple[int, str, int, str]]:
    """The files of jobs: the job's id, path, size in bytes, and the store they lie in."""
    found: list[tuple[int, str, int, str]] = []
    for job_id in ids:
        rows = connection.execute(
            "SELECT job_id, path, size, store FROM assets WHERE job_id=?", (job_id,)
        )
        found += [(each[0], each[1], each[2], each[3]) for each in rows]
    return found
