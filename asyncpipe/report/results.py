"""What became of a job, as people and programs read it: from the ledger's rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any

import orjson

from asyncpipe.jobs import JobState, JobType
from asyncpipe.ledger import MADE_NO_SENSE, Ledger, makes_no_sense
from asyncpipe.pricing import from_micro


class Outcome(StrEnum):
    """The four ways a job ends, and ``pending`` for those that have not."""

    SUCCEEDED = "succeeded"
    FAILED_NOT_CHARGED = "failed, not charged"
    FAILED_CHARGED = "failed, charged"
    UNKNOWN = "unknown"
    PENDING = "pending"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One file on disk; ``path`` is relative to the output folder, ``size`` in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One job's outcome. ``cost`` is what was charged in USD, over all its attempts.

    ``charged`` is whether any attempt was charged, were its price nothing; ``attempts_charged``
    how many. ``estimated``: a part of the cost, or of what is reserved, is the provider's estimate.
    ``overrun`` is what the provider charged beyond what was reserved. ``lost_answers`` counts
    earlier attempts of unknown outcome, which are reserved until somebody settles them.
    ``generation_s`` is the time from submit until the provider was seen to be done. Times are UTC;
    None where it has not happened.
    """

    name: str
    key: str
    type: JobType
    model: str
    state: JobState
    outcome: Outcome
    cost: Decimal
    charged: bool
    attempts_charged: int
    estimated: bool
    overrun: Decimal
    reserved: Decimal
    lost_answers: int
    cost_source: str | None
    attempts: int
    polls: int
    generation_s: float | None
    prediction_id: str | None
    request_id: str | None
    outputs: tuple[str, ...]
    assets: tuple[Asset, ...]
    error: str | None
    submitted_at: datetime | None
    completed_at: datetime | None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The manifest's word: success, failed, unknown or pending."""
        words = {Outcome.SUCCEEDED: "success", Outcome.UNKNOWN: "unknown"}
        return words.get(self.outcome, "failed" if self.outcome.startswith("failed") else "pending")


TOLD = "the provider's answer"
"""The source of a cost that the provider itself told."""


def _over_all(sum_: str, of_one: str, where: str = "") -> str:
    """A sum over a job's attempts; nearly all have one, which is the row at hand."""
    every = f"(SELECT {sum_} FROM attempts WHERE job_id=j.id{where})"
    return f"CASE WHEN a.n=1 THEN {of_one} ELSE {every} END"


_ESTIMATED = "estimated AND told IS NULL AND settled IS NOT 'released'"

_LOST = "n<=j.used AND settled IS NULL"

_ROWS = f"""
SELECT j.name, j.key, j.type, j.model, j.state,
  {_over_all("total(charged)", "a.charged")},
  {_over_all("total(reserved)", "a.reserved")},
  a.price_source, a.assumed,
  {_over_all("count(*)", "1")},
  {_over_all("total(polls)", "a.polls")},
  a.generation_s, a.prediction_id, a.request_id, a.outputs, a.error, a.submitted_at, a.ended_at,
  j.id, a.n,
  {_over_all("count(*)", "a.settled IS 'charged'", " AND settled='charged'")},
  {_over_all("count(*)", _ESTIMATED, f" AND {_ESTIMATED}")},
  {_over_all("total(overrun)", "a.overrun")},
  {_over_all("count(*)", "a." + _LOST, f" AND {_LOST}")},
  a.settled='charged', a.told IS NOT NULL,
  j.spec, s.path, s.size, s.sha256,
  (SELECT count(*) FROM assets WHERE job_id=j.id AND n=a.n)
FROM jobs j JOIN attempts a ON a.job_id=j.id
  AND a.n=(SELECT max(n) FROM attempts WHERE job_id=j.id)
  LEFT JOIN assets s ON s.job_id=j.id AND s.n=a.n AND s.position=0
"""

_OUTCOMES = {
    JobState.SUCCEEDED: Outcome.SUCCEEDED,
    JobState.UNKNOWN: Outcome.UNKNOWN,
    JobState.LOST: Outcome.FAILED_CHARGED,
}

_PENDING_WORDS = {
    JobState.PENDING: "not submitted yet",
    JobState.SUBMITTING: "being submitted",
    JobState.SUBMITTED: "submitted; the provider works on it",
    JobState.GENERATED: "generated and paid; not downloaded yet",
    JobState.EXPIRED: "expired",
}


def outcome_of(state: JobState, *, last_charged: bool, charged: int, lost: int) -> Outcome:
    """Tell the outcome from a job's state and what its attempts came to.

    ``charged`` and ``lost`` count attempts that were charged and earlier ones of unknown outcome.
    A job whose last attempt failed free of charge is unknown while an earlier one is.
    """
    if state is not JobState.FAILED:
        return _OUTCOMES.get(state, Outcome.PENDING)
    if lost and not last_charged:
        return Outcome.UNKNOWN
    return Outcome.FAILED_CHARGED if charged else Outcome.FAILED_NOT_CHARGED


_LOST_BEFORE = "an earlier submit lost its answer and may have been bought"


def _error(outcome: Outcome, state: JobState, error: str | None, lost: int) -> str | None:
    if outcome is Outcome.SUCCEEDED:
        return None
    error = error or _PENDING_WORDS.get(state)
    return "; ".join(filter(None, (error, _LOST_BEFORE))) if lost else error


def _result(connection: sqlite3.Connection, row: Sequence[Any]) -> Result:
    try:
        return _read(connection, row)
    except MADE_NO_SENSE as exc:
        raise makes_no_sense(f"job {row[18]}", exc) from exc


def _assets(connection: sqlite3.Connection, row: Sequence[Any]) -> tuple[Asset, ...]:
    """The files of a job; one, or none, stands in its row."""
    count, first = row[30], row[27:30]
    if count == (first[0] is not None):
        return (Asset(path=first[0], size=first[1], sha256=first[2]),) if count else ()
    rows = connection.execute(
        "SELECT path, size, sha256 FROM assets WHERE job_id=? AND n=? ORDER BY position", row[18:20]
    )
    return tuple(Asset(path=path, size=size, sha256=sha256) for path, size, sha256 in rows)


def _labels(spec: bytes) -> Mapping[str, str]:
    # Most have none: a look costs less than reading.
    return orjson.loads(spec).get("labels", {}) if b'"labels"' in spec else {}


def _read(connection: sqlite3.Connection, row: Sequence[Any]) -> Result:
    state, charged, lost = JobState(row[4]), row[20], row[23]
    outcome = outcome_of(state, last_charged=bool(row[24]), charged=charged, lost=lost)
    source = TOLD if row[25] else f"{row[7]} ({row[8]} assumed)" if row[8] else row[7]
    return Result(
        name=row[0],
        key=row[1],
        type=JobType(row[2]),
        model=row[3],
        state=state,
        outcome=outcome,
        cost=from_micro(int(row[5])),
        charged=charged > 0,
        attempts_charged=charged,
        estimated=row[21] > 0,
        overrun=from_micro(int(row[22])),
        reserved=from_micro(int(row[6])),
        lost_answers=lost,
        cost_source=source,
        attempts=row[9],
        polls=int(row[10]),
        generation_s=row[11],
        prediction_id=row[12],
        request_id=row[13],
        outputs=tuple(orjson.loads(row[14])) if row[14] else (),
        assets=_assets(connection, row),
        error=_error(outcome, state, row[15], lost),
        submitted_at=_time(row[16]),
        completed_at=_time(row[17]) if outcome is not Outcome.PENDING else None,
        labels=_labels(row[26]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def iter_results(connection: sqlite3.Connection) -> Iterator[Result]:
    """Every job that was ever started, the last run's first, in job-file order."""
    listed = (
        " WHERE j.state<>'cancelled' AND (j.state<>'pending'"
        " OR j.used>0 OR j.seen_run >= (SELECT coalesce(max(session), 0) FROM runs))"
    )
    for row in connection.execute(_ROWS + listed + " ORDER BY j.seen_run DESC, j.position"):
        yield _result(connection, row)


def result_of(connection: sqlite3.Connection, job_id: int) -> Result | None:
    """One job's result; None if it was never started."""
    row = connection.execute(_ROWS + " WHERE j.id=?", (job_id,)).fetchone()
    return _result(connection, row) if row else None


async def ask_result(ledger: Ledger, job_id: int) -> Result:
    """The result of a job that was waited for, and so was started."""
    result = await ledger.ask(partial(result_of, job_id=job_id))
    assert result is not None, "a job that was waited for was started"
    return result
