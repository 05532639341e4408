"""What became of a job, as people and programs read it: from the ledger's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import orjson

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Job, JobState, JobType, Notes
from asyncpipe.ledger import MADE_NO_SENSE, AttemptRow, Ledger, ResultRow, makes_no_sense
from asyncpipe.pricing import from_micro


class Outcome(StrEnum):
    """The ways a job ends, and ``pending`` for those that have not.

    ``missing`` ones succeeded; their files are not where they were put, and cannot be had again.
    """

    SUCCEEDED = "succeeded"
    MISSING = "missing"
    FAILED_NOT_CHARGED = "failed, not charged"
    FAILED_CHARGED = "failed, charged"
    UNKNOWN = "unknown"
    PENDING = "pending"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One file; ``path`` is relative to the output place, ``size`` in bytes.

    ``store`` names the place it lies in: the URL of a bucket, or the id of a folder whose ledger is
    shared; "" is the folder that the ledger lies in.
    """

    path: str
    size: int
    sha256: str
    store: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One job's outcome. ``cost`` is what was charged in USD, over all its attempts.

    ``charged`` is whether any attempt was charged, were its price nothing; ``attempts_charged``
    how many. ``estimated``: a part of the cost, or of what is reserved, is the provider's estimate.
    ``overrun`` is what the provider charged beyond what was reserved. ``lost_answers`` counts
    earlier attempts of unknown outcome, which are reserved until somebody settles them.
    ``notes`` are what the provider says beside the outputs: flags, words, fewer than asked.
    ``type`` is None, and ``key`` empty, of what was refused before it was a job.
    ``generation_s`` is the time from submit until the provider was seen to be done. Times are UTC;
    None where it has not happened.
    """

    name: str
    key: str
    type: JobType | None
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
    notes: Notes = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The manifest's word: success, missing, failed, unknown or pending."""
        words = {
            Outcome.SUCCEEDED: "success",
            Outcome.MISSING: "missing",
            Outcome.UNKNOWN: "unknown",
        }
        return words.get(self.outcome, "failed" if self.outcome.startswith("failed") else "pending")


TOLD = "the provider's answer"
"""The source of a cost that the provider itself told."""


_PENDING_WORDS = {
    JobState.PENDING: "not submitted yet",
    JobState.SUBMITTING: "being submitted",
    JobState.SUBMITTED: "submitted; the provider works on it",
    JobState.GENERATED: "generated and paid; not downloaded yet",
    JobState.EXPIRED: "expired",
}


_LOST_BEFORE = "an earlier submit lost its answer and may have been bought"


def _error(outcome: Outcome, state: JobState, error: str | None, lost: int) -> str | None:
    if outcome is Outcome.SUCCEEDED:
        return None
    if error and state is JobState.GENERATED:
        error = f"{error}; it is paid for and kept, run the same command again"
    error = error or _PENDING_WORDS.get(state)
    return "; ".join(filter(None, (error, _LOST_BEFORE))) if lost else error


def labels_of(spec: bytes) -> Mapping[str, str]:
    """A job's labels; most have none: a look costs less than reading."""
    return orjson.loads(spec).get("labels", {}) if b'"labels"' in spec else {}


def source_of(row: ResultRow | AttemptRow) -> str:
    """Where a cost comes from."""
    source, assumed = row["price_source"], row["assumed"]
    if row["told"] is not None:
        return TOLD
    return f"{source} ({assumed} assumed)" if assumed else source


def result_of(row: ResultRow) -> Result:
    """Read a row; raises LedgerError for one that no ledger wrote."""
    try:
        return _read(row)
    except MADE_NO_SENSE as exc:
        raise makes_no_sense(f"job {row['id']}", exc) from exc


def _read(row: ResultRow) -> Result:
    state, outcome, lost = JobState(row["state"]), Outcome(row["outcome"]), row["lost"]
    return Result(
        name=row["name"],
        key=row["key"],
        type=JobType(row["type"]),
        model=row["model"],
        state=state,
        outcome=outcome,
        cost=from_micro(row["cost"]),
        charged=row["charged"] > 0,
        attempts_charged=row["charged"],
        estimated=row["estimated"] > 0,
        overrun=from_micro(row["overrun"]),
        reserved=from_micro(row["reserved"]),
        lost_answers=lost,
        cost_source=source_of(row),
        attempts=row["attempts"],
        polls=row["polls"],
        generation_s=row["generation_s"],
        prediction_id=row["prediction_id"],
        request_id=row["request_id"],
        outputs=tuple(orjson.loads(row["outputs"])) if row["outputs"] else (),
        assets=tuple(Asset(**asset) for asset in row["assets"]),
        error=_error(outcome, state, row["error"], lost),
        submitted_at=_time(row["submitted_at"]),
        completed_at=_time(row["ended_at"]) if outcome is not Outcome.PENDING else None,
        labels=labels_of(row["spec"]),
        notes=orjson.loads(row["notes"]) if row["notes"] else {},
    )


def refused(item: object, error: UsageError) -> Result:
    """The result of an item that was not taken in: nothing of it is in the ledger."""
    said = item if isinstance(item, Mapping) else {}
    job = item if isinstance(item, Job) else None
    name = job.name or job.said[:40] if job is not None else said.get("name")
    model = job.model if job is not None else said.get("model")
    return Result(
        name=name if isinstance(name, str) else "",
        key="",
        type=None if job is None else job.kind,
        model=model if isinstance(model, str) else "",
        state=JobState.FAILED,
        outcome=Outcome.FAILED_NOT_CHARGED,
        cost=Decimal(0),
        charged=False,
        attempts_charged=0,
        estimated=False,
        overrun=Decimal(0),
        reserved=Decimal(0),
        lost_answers=0,
        cost_source=None,
        attempts=0,
        polls=0,
        generation_s=None,
        prediction_id=None,
        request_id=None,
        outputs=(),
        assets=(),
        error=str(error),
        submitted_at=None,
        completed_at=None,
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


async def ask_result(ledger: Ledger, job_id: int) -> Result:
    """The result of a job that the ledger knows."""
    row = await ledger.result(job_id)
    assert row is not None, "what was waited for is in the ledger"
    return result_of(row)
