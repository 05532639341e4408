"""What can happen to a job, one frozen class each: everybody folds them, the ledger keeps the fold.

``target`` is the state the job is in afterwards (None: unchanged). Times are wall time in UTC.
Amounts are micro-dollars. What is not ``stored`` reaches the ledger with what happens next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from asyncpipe.jobs.notes import NO_NOTES, Notes
from asyncpipe.jobs.states import JobState


def now() -> datetime:
    """Wall time in UTC, for records; durations come from the loop's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something happened to the job with ledger id ``job_id``."""

    target: ClassVar[JobState | None] = None
    stored: ClassVar[bool] = True

    job_id: int
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Intended(Event):
    """The job is about to be submitted: ``reserved`` is kept back for it.

    ``booked`` is its price, which is charged for it unless the provider says what it cost;
    ``estimated``: the provider itself only estimates that. It is bought from ``provider`` as
    ``model``. ``body`` is the digest of the request as it is sent, ``uploads`` are the URLs of
    files that went into it. ``submit_key`` is what the provider tells this submit from others by,
    where it takes one; ``trace`` the context of the span that it is sent in.
    """

    target: ClassVar[JobState | None] = JobState.SUBMITTING

    attempt: int
    reserved: int
    booked: int
    price_source: str
    assumed: str | None = None
    estimated: bool = False
    provider: str = ""
    model: str = ""
    body: str | None = None
    uploads: tuple[str, ...] = ()
    submit_key: str | None = None
    trace: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NotBought(Event):
    """The submit surely bought nothing; the attempt is not used up.

    ``stops``: nor is it tried again in this run.
    """

    target: ClassVar[JobState | None] = JobState.PENDING

    error: str
    request_id: str | None = None
    stops: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted(Event):
    """The provider took the job and named its prediction."""

    target: ClassVar[JobState | None] = JobState.SUBMITTED

    prediction_id: str
    route: str = ""
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Polled(Event):
    """One poll was answered, or failed with ``error``; what that means is the next event."""

    stored = False

    said: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated(Event):
    """The provider has the media ready: what is booked for it is charged, the rest released.

    ``told`` is what the provider says it cost, if it does: that is charged then, more than
    reserved or less. ``prediction_id`` and ``route`` come with an answer to the submit that was
    final already. ``notes`` are what the provider says beside the outputs.
    """

    target: ClassVar[JobState | None] = JobState.GENERATED

    outputs: tuple[str, ...]
    generation_s: float
    prediction_id: str | None = None
    route: str | None = None
    request_id: str | None = None
    told: int | None = None
    notes: Notes = field(default_factory=lambda: NO_NOTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Released(Event):
    """The provider's side failed and its money is returned; another attempt follows."""

    target: ClassVar[JobState | None] = JobState.PENDING

    error: str
    error_code: int | None = None
    prediction_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedOn(Event):
    """The job ended without media in one lane, surely free of charge; it goes on in the next."""

    target = JobState.PENDING

    error: str
    moderated: bool = False
    error_code: int | None = None
    prediction_id: str | None = None
    request_id: str | None = None
    notes: Notes = field(default_factory=lambda: NO_NOTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Event):
    """The job ended without media; ``charged`` says whether its money is gone.

    ``told`` is what the provider says it cost, if it does. ``found_free``: its answer was lost, and
    the user found that it was not charged.
    """

    target: ClassVar[JobState | None] = JobState.FAILED

    error: str
    charged: bool = False
    found_free: bool = False
    moderated: bool = False
    error_code: int | None = None
    prediction_id: str | None = None
    request_id: str | None = None
    told: int | None = None
    notes: Notes = field(default_factory=lambda: NO_NOTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown(Event):
    """Nobody can tell whether it was bought, or is charged; the money stays reserved.

    ``closed_at`` is when its connection was closed, at the latest; None: by now.
    """

    target: ClassVar[JobState | None] = JobState.UNKNOWN

    error: str
    closed_at: datetime | None = None
    prediction_id: str | None = None
    request_id: str | None = None
    notes: Notes = field(default_factory=lambda: NO_NOTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found(Event):
    """A lost submit's prediction is known after all, and polled from now on.

    ``created`` is when it was made, by the provider's clock, where it says so.
    """

    target: ClassVar[JobState | None] = JobState.SUBMITTED

    prediction_id: str
    route: str = ""
    created: datetime | None = None


NOT_FOUND = "not found at the provider"
"""How the error of an unknown job ends whose prediction surely is not in the provider's list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotFound(Event):
    """An unknown job's prediction was looked for, and is not surely known; ``error`` says more."""

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent(Event):
    """The provider's list of predictions proves that a lost submit bought nothing.

    The attempt ends with that, and another one follows.
    """

    target: ClassVar[JobState | None] = JobState.PENDING

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnedUp(Event):
    """The prediction of an ``attempt`` that its job has gone on from is found after all."""

    attempt: int
    prediction_id: str
    charged: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired(Event):
    """The deadline passed while the provider still worked; the prediction id is kept."""

    target: ClassVar[JobState | None] = JobState.EXPIRED

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PolledAgain(Event):
    """An expired job, or an unknown one that was found, is polled with a fresh deadline."""

    target: ClassVar[JobState | None] = JobState.SUBMITTED


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetStored(Event):
    """Output ``index`` (from 0) stands on disk, whole; ``path`` is relative, with ``/``."""

    index: int
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Succeeded(Event):
    """Every output of the job stands on disk, durably."""

    target: ClassVar[JobState | None] = JobState.SUCCEEDED


@dataclass(frozen=True, kw_only=True, slots=True)
class Damaged(Event):
    """Assets that stood are missing or changed: fetch them again; their rows are kept."""

    target: ClassVar[JobState | None] = JobState.GENERATED

    indexes: tuple[int, ...]
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchFailed(Event):
    """The media could not be fetched this time; the job stays generated for the next run."""

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost(Event):
    """Paid for, and at least one output is gone for good."""

    target: ClassVar[JobState | None] = JobState.LOST

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing(Event):
    """Assets that stood here do not now, and cannot be had again: they may be put back."""

    target: ClassVar[JobState | None] = JobState.MISSING

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SoughtAgain(Event):
    """Media that were given up are to be fetched once more, by the user's wish."""

    target: ClassVar[JobState | None] = JobState.GENERATED


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryAsked(Event):
    """A failed job that was not charged is to be submitted again, by the user's wish."""

    target: ClassVar[JobState | None] = JobState.PENDING


@dataclass(frozen=True, kw_only=True, slots=True)
class Resubmitted(Event):
    """The user wants an unknown job submitted anew; the unknown attempt's money stays reserved.

    ``failures`` counts what is already used up of its retries.
    """

    target: ClassVar[JobState | None] = JobState.PENDING

    failures: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LostSettled(Event):
    """The user found out whether an earlier attempt whose answer was lost was ``charged``."""

    attempt: int
    charged: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedAgain(Event):
    """A withdrawn job is wanted after all."""

    target: ClassVar[JobState | None] = JobState.PENDING


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawn(Event):
    """Its caller left before the job was submitted."""

    target: ClassVar[JobState | None] = JobState.CANCELLED
