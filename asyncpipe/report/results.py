"""What became of a job, as people and programs read it: from the ledger's rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from asyncpipe.errors import AsyncpipeError, DiskError, UsageError
from asyncpipe.jobs import BucketUrl, Job, JobState, JobType, Notes, is_bucket_url
from asyncpipe.ledger import (
    MADE_NO_SENSE,
    AssetRow,
    AttemptRow,
    Ledger,
    ResultRow,
    Where,
    bucket_of,
    folder_of,
    makes_no_sense,
)
from asyncpipe.media import Bucket, Measures, measure, type_of_name
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


class Reason(StrEnum):
    """Why a job has not succeeded, in one word for programs; ``Result.error`` is for people.

    ``refused``: it was not taken, by the provider or before that, and cost nothing; ``expired``:
    not done by its deadline, the prediction is kept; ``given_up``: nobody knows what became of its
    submit, and somebody decided.
    """

    MODERATED = "moderated"
    REFUSED = "refused"
    PROVIDER_FAILED = "provider_failed"
    NO_OUTPUT = "no_output"
    EXPIRED = "expired"
    LOST = "lost"
    MISSING = "missing"
    UNKNOWN = "unknown"
    GIVEN_UP = "given_up"


_BY_STATE = {
    JobState.EXPIRED: Reason.EXPIRED,
    JobState.LOST: Reason.LOST,
    JobState.MISSING: Reason.MISSING,
    JobState.UNKNOWN: Reason.UNKNOWN,
}


def reason_of(
    state: JobState, outcome: Outcome, notes: Notes, *, settled: str | None, bought: bool
) -> Reason | None:
    """Why a job has not succeeded; None where it has, or has only not ended.

    ``settled`` is what became of the money of its last attempt, ``bought`` whether that is known to
    have had a prediction.
    """
    if state is not JobState.FAILED:
        return _BY_STATE.get(state)
    if outcome is Outcome.UNKNOWN:  # an earlier attempt may have been bought
        return Reason.UNKNOWN
    if notes.get("moderated"):
        return Reason.MODERATED
    if notes.get("no_output"):
        return Reason.NO_OUTPUT
    if settled == "absent":
        return Reason.REFUSED
    return Reason.PROVIDER_FAILED if bought and settled != "free" else Reason.GIVEN_UP


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One file; ``name`` is its path in the output place, with ``/``, ``size`` is in bytes.

    ``store`` names the place it lies in: the URL of a bucket, or the id of a folder whose ledger is
    shared; "" is the folder that the ledger lies in. What it measures is read from the head of the
    file when it is asked for; None where that does not say, or the file is not on this machine.
    """

    name: str
    size: int
    sha256: str
    store: str = ""
    folder: Path | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """Where it is, absolute; raises UsageError for one in a bucket, see ``url``."""
        if self._in_bucket or self.folder is None:
            raise UsageError(
                f"{self.url} is no file of this machine: `await asset.read()` gives its bytes"
            )
        return self.folder / self.name

    @property
    def url(self) -> str:
        """Its URL: ``s3://…``, or ``file:///…`` where it lies in a folder."""
        if self._in_bucket or self.folder is None:
            return f"{self.store}/{self.name}" if self.store else self.name
        return self.path.as_uri()

    @property
    def media_type(self) -> str | None:
        """What it is, as in ``image/png``, by its first bytes when it was stored."""
        return type_of_name(self.name)

    @property
    def width(self) -> int | None:
        """Pixels from left to right."""
        return self._measures.width

    @property
    def height(self) -> int | None:
        """Pixels from top to bottom."""
        return self._measures.height

    @property
    def duration_s(self) -> float | None:
        """How long it plays, in seconds."""
        return self._measures.duration_s

    async def read(self) -> bytes:
        """All its bytes, wherever it lies; raises DiskError or DownloadError."""
        try:
            if self._in_bucket:
                return b"".join([piece async for piece in _bucket(self.store).read(self.name)])
            return await asyncio.to_thread(self.path.read_bytes)
        except OSError as exc:
            raise DiskError(f"{self.url} cannot be read ({exc.strerror or exc})") from exc

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        measures = self._measures
        local = not self._in_bucket and self.folder is not None
        return {
            "name": self.name,
            "path": str(self.path) if local else None,
            "url": self.url,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "width": measures.width,
            "height": measures.height,
            "duration_s": measures.duration_s,
        }

    @property
    def _in_bucket(self) -> bool:
        return is_bucket_url(self.store)

    @property
    def _measures(self) -> Measures:
        if self._in_bucket or self.folder is None:
            return Measures()
        return _measured(str(self.path), self.sha256)


@lru_cache(maxsize=1024)
def _measured(path: str, sha256: str) -> Measures:
    """What a file measures; one of another digest is another one."""
    return measure(Path(path))


@lru_cache(maxsize=16)
def _bucket(url: str) -> Bucket:
    return Bucket(BucketUrl.parse(url))


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One job's outcome. ``cost`` is what was charged in USD, over all its attempts.

    ``charged`` is whether any attempt was charged, were its price nothing; ``attempts_charged``
    how many. ``estimated``: a part of the cost, or of what is reserved, is the provider's estimate.
    ``overrun`` is what the provider charged beyond what was reserved. ``lost_answers`` counts
    earlier attempts of unknown outcome, which are reserved until somebody settles them.
    ``notes`` are what the provider says beside the outputs: flags, words, fewer than asked.
    ``reason`` is None where it succeeded, or has only not ended; ``error_code`` is the provider's.
    ``provider`` and ``bought_as`` say who made it last, and as which model: others than the job's
    own where it fell back. ``type`` is None, and ``key`` empty, of what was refused before it was
    a job.
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
    reason: Reason | None = None
    error_code: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)
    provider: str | None = None
    bought_as: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all its assets stand."""
        return self.outcome is Outcome.SUCCEEDED

    @property
    def moderated(self) -> bool:
        """Whether content moderation refused it: the same again will be refused again."""
        return self.reason is Reason.MODERATED

    @property
    def url(self) -> str | None:
        """The provider's URL of the first output, which may not last; None where it has none."""
        first = self.outputs[0] if self.outputs else ""
        return first if first.startswith(("http://", "https://")) else None

    def raise_for_status(self) -> Result:
        """Return it if it succeeded, else raise JobFailed, which has it."""
        if not self.ok:
            raise JobFailed(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it: amounts in USD as text, times in ISO 8601."""
        told = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        told |= {"ok": self.ok, "status": self.status, "url": self.url}
        return told | {"assets": [asset.to_dict() for asset in self.assets]}

    @property
    def status(self) -> str:
        """The manifest's word: success, missing, failed, unknown or pending."""
        words = {
            Outcome.SUCCEEDED: "success",
            Outcome.MISSING: "missing",
            Outcome.UNKNOWN: "unknown",
        }
        return words.get(self.outcome, "failed" if self.outcome.startswith("failed") else "pending")


class JobFailed(AsyncpipeError):
    """A job has not succeeded; ``result`` is what became of it. See ``raise_for_status``."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return f"{self.result.name}: {self.result.error} ({self.result.outcome.value})"


def _plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [*map(_plain, value)] if isinstance(value, tuple | list) else value


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


def result_of(row: ResultRow, folder: Path | None) -> Result:
    """Read a row; ``folder`` is where the place's files are, absolute, None where they are not.

    Raises LedgerError for a row that no ledger wrote.
    """
    try:
        return _read(row, folder)
    except MADE_NO_SENSE as exc:
        raise makes_no_sense(f"job {row['id']}", exc) from exc


def files_of(where: Where) -> Path | None:
    """The folder that files of a place are in, absolute; None for a bucket."""
    return None if bucket_of(where) is not None else folder_of(where).absolute()


def _read(row: ResultRow, folder: Path | None) -> Result:
    state, outcome, lost = JobState(row["state"]), Outcome(row["outcome"]), row["lost"]
    notes = orjson.loads(row["notes"]) if row["notes"] else {}
    bought = row["prediction_id"] is not None
    reason = reason_of(state, outcome, notes, settled=row["settled"], bought=bought)
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
        assets=tuple(_asset(asset, folder) for asset in row["assets"]),
        error=_error(outcome, state, row["error"], lost),
        submitted_at=_time(row["submitted_at"]),
        completed_at=_time(row["ended_at"]) if outcome is not Outcome.PENDING else None,
        labels=labels_of(row["spec"]),
        reason=reason,
        error_code=row["error_code"] if reason is not None else None,
        notes=notes,
        provider=row["provider"] or None,
        bought_as=row["bought_as"] or None,
    )


def _asset(row: AssetRow, folder: Path | None) -> Asset:
    return Asset(
        name=row["path"],
        size=row["size"],
        sha256=row["sha256"],
        store=row["store"],
        folder=folder,
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
        reason=Reason.REFUSED,
        submitted_at=None,
        completed_at=None,
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


async def ask_result(ledger: Ledger, job_id: int, where: Where) -> Result:
    """The result of a job that the ledger knows."""
    row = await ledger.result(job_id)
    assert row is not None, "what was waited for is in the ledger"
    return result_of(row, files_of(where))
