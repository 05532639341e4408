"""A job as it stands: the fold of its events, whoever folds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from asyncpipe.errors import IllegalTransition
from asyncpipe.jobs.events import (
    Absent,
    AssetStored,
    Damaged,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Found,
    Generated,
    Intended,
    Lost,
    LostSettled,
    Missing,
    NotBought,
    NotFound,
    PassedOn,
    Polled,
    PolledAgain,
    Released,
    Resubmitted,
    RetryAsked,
    SoughtAgain,
    Submitted,
    Succeeded,
    TurnedUp,
    Unknown,
)
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.lanes import PASSED_ON, in_lane, ways_of
from asyncpipe.jobs.notes import NO_NOTES, Notes
from asyncpipe.jobs.states import JobState, advance

T = TypeVar("T")


class Settled(StrEnum):
    """What became of an attempt's money; until then it is reserved, or nobody knows."""

    CHARGED = "charged"
    RELEASED = "released"  # the prediction failed, and the provider gave the money back
    ABSENT = "absent"  # the submit surely bought nothing: refused, or not in the provider's list
    FREE = "free"  # its answer was lost, and the user found that it was not charged


# Python 3.11 takes ten times as long to find a member by its class.
_CHARGED, _RELEASED, _ABSENT, _FREE = Settled


class StoredAsset(NamedTuple):
    """One file on disk: output ``position`` of a job, from 0.

    ``path`` is relative to the output folder, with ``/``; ``size`` is in bytes. ``missing``: it is
    not there, or another file is; it may be put back. ``store`` names the place where it is; "" is
    the folder that the ledger lies in.
    """

    job_id: int
    position: int
    path: str
    size: int
    sha256: str
    missing: int = 0
    store: str = ""


class Sent(NamedTuple):
    """A request as it was sent: its body's digest, the URLs of files in it, and its key.

    ``trace`` is the context of the span that it was sent in, as ``traceparent`` has it.
    """

    body: str | None = None
    uploads: tuple[str, ...] = ()
    key: str | None = None
    trace: str | None = None


NOTHING_SENT = Sent()


class Terms(NamedTuple):
    """Where an attempt's price is from, what that assumed, and whom it is bought from, as what."""

    price_source: str = ""
    assumed: str | None = None
    provider: str = ""
    model: str = ""


NO_TERMS = Terms()


@lru_cache(maxsize=1000)
def terms_of(price_source: str, assumed: str | None, provider: str, model: str) -> Terms:
    """The ones for all attempts that are bought so."""
    return Terms(price_source, assumed, provider, model)


@dataclass(frozen=True, kw_only=True)  # no slots: see ``fold``
class Attempt:  # of 29 fields at most: Python shares no more keys between objects
    """One intent to submit a job, and what came of it; ``n`` counts from 1, 0 is none yet.

    ``reserved``, ``charged``, ``booked`` (charged on delivery), ``told`` (what the provider says it
    cost) and ``overrun`` (charged beyond what was reserved) are micro-dollars; ``estimated`` is
    whether its amount is the provider's estimate, ``terms`` what it is bought on, ``sent`` the
    request. ``polls`` counts answers to polls, ``refusals`` submits that surely bought nothing.
    ``notes`` are what the provider says beside the outputs. ``stored`` are all the files there ever
    were. ``resumed_at`` is when an expired or found one was taken up again, for a fresh deadline;
    ``lost_at`` when its answer was known to be lost. Times are UTC.
    """

    n: int = 0
    reserved: int = 0
    charged: int = 0
    booked: int = 0
    told: int | None = None
    overrun: int = 0
    estimated: bool = False
    settled: Settled | None = None
    settled_at: datetime | None = None
    terms: Terms = NO_TERMS
    sent: Sent = NOTHING_SENT
    prediction_id: str | None = None
    route: str = ""
    request_id: str | None = None
    outputs: tuple[str, ...] = ()
    notes: Notes = field(default_factory=lambda: NO_NOTES)
    stored: tuple[StoredAsset, ...] = ()
    polls: int = 0
    refusals: int = 0
    generation_s: float | None = None
    error: str | None = None
    error_code: int | None = None
    intended_at: datetime | None = None
    submitted_at: datetime | None = None
    resumed_at: datetime | None = None
    lost_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def body(self) -> str | None:
        """The digest of the request as it was sent."""
        return self.sent.body

    @property
    def uploads(self) -> tuple[str, ...]:
        """The URLs of files in it."""
        return self.sent.uploads

    @property
    def submit_key(self) -> str | None:
        """What the provider tells this submit from others by, where it takes one."""
        return self.sent.key

    @property
    def trace(self) -> str | None:
        """The context of the span that it was sent in, where there was one."""
        return self.sent.trace

    @property
    def price_source(self) -> str:
        """What says its price."""
        return self.terms.price_source

    @property
    def assumed(self) -> str | None:
        """What that assumed, since the job does not say it."""
        return self.terms.assumed

    @property
    def provider(self) -> str:
        """Whom it is bought from."""
        return self.terms.provider

    @property
    def model(self) -> str:
        """As what it is bought: another model than the job's, where that was fallen back from."""
        return self.terms.model

    @property
    def moderated(self) -> bool:
        """Whether content moderation refused it: it is never sent unchanged again."""
        return bool(self.notes.get("moderated"))

    @property
    def extras(self) -> int:
        """How many of the outputs, the last ones, are files that nobody asked for."""
        extras = self.notes.get("extras", 0)
        return extras if isinstance(extras, int) else 0

    @property
    def absent(self) -> bool:
        """Whether its answer was lost, and the provider's list proved that it bought nothing."""
        return self.lost_at is not None and self.settled is _ABSENT

    @property
    def sought(self) -> bool:
        """Whether a prediction of it may be at the provider under an id that nobody was told."""
        lost = self.lost_at is not None and self.prediction_id is None
        return lost and (self.settled is None or self.settled is _ABSENT)

    @property
    def assets(self) -> tuple[StoredAsset, ...]:
        """The files that stand."""
        return tuple(asset for asset in self.stored if not asset.missing)

    @property
    def missing(self) -> tuple[StoredAsset, ...]:
        """The files that stood, and do not."""
        return tuple(asset for asset in self.stored if asset.missing)

    @property
    def delivered(self) -> bool:
        """Whether every output has stood on disk, were it moved away since."""
        asked = len(self.outputs) - self.extras
        return 0 < asked <= sum(asset.position < asked for asset in self.stored)

    @property
    def paid(self) -> bool:
        """Whether it is charged, were it nothing."""
        return self.settled is _CHARGED


NO_ATTEMPT = Attempt()


@dataclass(frozen=True, kw_only=True)  # no slots: see ``fold``
class JobRecord:
    """What is known of one job, and what the ledger keeps; ``fold`` is the only way it changes.

    ``version`` grows with every event. ``used`` counts attempts used up, ``failures`` those since
    the user last asked for a retry. ``stem`` is the path of its assets without index and extension,
    relative to the output folder; None before admission. ``attempt`` is the one under way, or the
    last; NO_ATTEMPT, once the job has gone on from it: then it is one of the ``earlier`` ones.
    """

    id: int
    key: str
    name: str
    job: Job
    state: JobState = JobState.PENDING
    version: int = 0
    stem: str | None = None
    used: int = 0
    failures: int = 0
    attempt: Attempt = NO_ATTEMPT
    earlier: tuple[Attempt, ...] = ()

    @property
    def next_attempt(self) -> int:
        """The number of the attempt that is under way or comes next."""
        return self.used + 1

    @property
    def step(self) -> int:
        """At which lane the job is: 0 is its own model."""
        return sum(PASSED_ON in each.notes for each in (*self.earlier, self.attempt))

    @property
    def made_as(self) -> Job:
        """The job as it is made in the lane where it is."""
        job = self.job
        return in_lane(job, ways_of(job)[self.step]) if job.fallback else job

    @property
    def has_next(self) -> bool:
        """Whether there is another lane to fall back to."""
        return bool(self.job.fallback) and self.step + 1 < len(ways_of(self.job))

    @property
    def lost(self) -> int:
        """How many earlier attempts there are of unknown outcome."""
        return sum(each.settled is None for each in self.earlier)

    @property
    def held(self) -> int:
        """Micro-dollars that those still reserve."""
        return sum(each.reserved for each in self.earlier)

    @property
    def charged(self) -> int:
        """Micro-dollars that all attempts were charged."""
        return self.attempt.charged + sum(each.charged for each in self.earlier)

    @property
    def committed(self) -> int:
        """Micro-dollars that count against a budget: charged, reserved or held."""
        return self.charged + self.attempt.reserved + self.held

    @property
    def releasable(self) -> int:
        """The part of it that the provider may still give back in this run."""
        in_flight = self.state in (JobState.SUBMITTING, JobState.SUBMITTED)
        return self.attempt.reserved if in_flight else 0

    @property
    def in_doubt(self) -> bool:
        """Whether it failed free of charge, and an earlier attempt may have been bought."""
        return self.state is JobState.FAILED and not self.attempt.paid and self.lost > 0


Fields = dict[str, Any]
"""Those of a record, or an attempt, in the making."""


def fold(record: JobRecord, event: Event) -> JobRecord:
    """Return ``record`` after ``event``; raises IllegalTransition where the table has no way."""
    kind, target = type(event), event.target
    # A copy keeps the keys that all records share: so it takes a quarter of the memory.
    fields = record.__dict__.copy()
    fields["version"] = record.version + 1
    if target is not None:
        fields["state"] = advance(record.state, target)
    if (of_job := OF_JOB.get(kind)) is not None:
        of_job(fields, record, event)
    if (of_attempt := OF_ATTEMPT.get(kind)) is not None:
        was: Attempt = fields["attempt"]
        now = was.__dict__.copy()
        of_attempt(now, was, event)
        fields["attempt"] = attempt = object.__new__(Attempt)
        object.__setattr__(attempt, "__dict__", now)
    after = object.__new__(JobRecord)  # not _of: a call costs as much as what it does
    object.__setattr__(after, "__dict__", fields)
    return after


def _of(kind: type[T], fields: Fields) -> T:
    new = object.__new__(kind)
    object.__setattr__(new, "__dict__", fields)
    return new


def changed(record: T, **changes: Any) -> T:
    """Return a copy of a record or an attempt with ``changes``, faster than dataclasses.replace.

    Their names are not checked.
    """
    fields = record.__dict__.copy()
    fields.update(changes)
    return _of(type(record), fields)


def made(kind: type[T], fields: Fields) -> T:
    """Make a record or an attempt of all its fields, faster than by its ``__init__``."""
    new = object.__new__(kind)
    own = new.__dict__
    for name in fields:  # one by one: ``update`` would take the other's keys, which nobody shares
        own[name] = fields[name]
    return new


# -- what an event changes of the job -----------------------------------------------------------


def _begin(fields: Fields, record: JobRecord, event: Intended) -> None:
    """Leave the last attempt behind, unless it is this one: a refused submit uses up no number."""
    was = record.attempt
    if was.n != event.attempt:
        _leave_behind(fields, record)
    elif was.refusals:
        fields["attempt"] = changed(NO_ATTEMPT, refusals=was.refusals)


def _leave_behind(fields: Fields, record: JobRecord) -> None:
    if record.attempt.n:
        fields["earlier"], fields["attempt"] = (*record.earlier, record.attempt), NO_ATTEMPT


def _use_up(fields: Fields, record: JobRecord, event: Released) -> None:
    fields["used"], fields["failures"] = record.used + 1, record.failures + 1


def _pass_on(fields: Fields, record: JobRecord, event: PassedOn) -> None:
    fields["used"], fields["failures"] = record.used + 1, 0


def _retry(fields: Fields, record: JobRecord, event: RetryAsked) -> None:
    _leave_behind(fields, record)
    fields["used"], fields["failures"] = record.used + 1, 0


def _resubmit(fields: Fields, record: JobRecord, event: Resubmitted) -> None:
    _leave_behind(fields, record)
    fields["used"], fields["failures"] = record.used + 1, event.failures


def _settle(fields: Fields, record: JobRecord, event: LostSettled) -> None:
    earlier = {each.n: each for each in record.earlier}
    lost = earlier.get(event.attempt)
    if lost is None or lost.settled is not None:
        raise IllegalTransition(f"attempt {event.attempt} of {record.name} has no lost answer")
    earlier[event.attempt] = changed(
        lost,
        reserved=0,
        charged=lost.booked if event.charged else 0,
        estimated=lost.estimated and event.charged,
        settled=_CHARGED if event.charged else _FREE,
        settled_at=event.at,
        ended_at=event.at,
    )
    fields["earlier"] = tuple(earlier.values())


def _absent(fields: Fields, record: JobRecord, event: Absent) -> None:
    gone = changed(
        record.attempt,
        reserved=0,
        estimated=False,
        settled=_ABSENT,
        settled_at=event.at,
        ended_at=event.at,
        error=event.error,
    )
    fields["earlier"], fields["attempt"] = (*record.earlier, gone), NO_ATTEMPT
    fields["used"] = record.used + 1


def _turned_up(fields: Fields, record: JobRecord, event: TurnedUp) -> None:
    earlier = {each.n: each for each in record.earlier}
    lost = earlier.get(event.attempt)
    if lost is None or not lost.sought:
        raise IllegalTransition(f"attempt {event.attempt} of {record.name} is not looked for")
    charged = lost.booked if event.charged else 0
    earlier[event.attempt] = changed(
        lost,
        prediction_id=event.prediction_id,
        reserved=0,
        charged=charged,
        overrun=max(charged - lost.reserved, 0),
        settled=_CHARGED if event.charged else _RELEASED,
        settled_at=event.at,
        ended_at=event.at,
    )
    fields["earlier"] = tuple(earlier.values())


OF_JOB: dict[type[Event], Callable[[Fields, JobRecord, Any], None]] = {
    Intended: _begin,
    Released: _use_up,
    PassedOn: _pass_on,
    RetryAsked: _retry,
    Resubmitted: _resubmit,
    LostSettled: _settle,
    Absent: _absent,
    TurnedUp: _turned_up,
}
"""What each kind of event changes of the job besides its state and the attempt."""


# -- what an event changes of the attempt -------------------------------------------------------


def _intended(now: Fields, was: Attempt, event: Intended) -> None:
    now["n"], now["intended_at"] = event.attempt, event.at
    now["reserved"], now["booked"], now["estimated"] = event.reserved, event.booked, event.estimated
    now["terms"] = terms_of(event.price_source, event.assumed, event.provider, event.model)
    now["sent"] = Sent(event.body, event.uploads, event.submit_key, event.trace)


def _submitted(now: Fields, was: Attempt, event: Submitted) -> None:
    now["prediction_id"], now["route"] = event.prediction_id, event.route
    now["submitted_at"], now["request_id"] = event.at, event.request_id


def _polled(now: Fields, was: Attempt, event: Polled) -> None:
    now["polls"] = was.polls + 1


def _polled_again(now: Fields, was: Attempt, event: PolledAgain) -> None:
    now["resumed_at"], now["error"] = event.at, None
    now["submitted_at"] = was.submitted_at or was.intended_at  # its submit may have named no time


def _generated(now: Fields, was: Attempt, event: Generated) -> None:
    now["outputs"], now["error"] = event.outputs, None
    now["notes"] = event.notes
    now["prediction_id"] = event.prediction_id or was.prediction_id
    now["route"] = event.route or was.route
    now["request_id"] = event.request_id or was.request_id
    now["submitted_at"] = was.submitted_at or event.at
    now["generation_s"], now["ended_at"] = event.generation_s, event.at
    if not was.paid:  # an attempt is charged once
        _charge(now, was, event.told, event.at)


def _failed(now: Fields, was: Attempt, event: Failed) -> None:
    _ended(now, was, event)
    now["error_code"] = event.error_code
    now["notes"] = {**event.notes, "moderated": True} if event.moderated else event.notes
    bought = now["prediction_id"] = event.prediction_id or was.prediction_id
    if event.charged:
        _charge(now, was, event.told, event.at)
        return
    now["refusals"] = was.refusals + (not bought)
    found = _RELEASED if bought else _ABSENT
    _release(now, _FREE if event.found_free else found, event.at)


def _released(now: Fields, was: Attempt, event: Released) -> None:
    _ended(now, was, event)
    now["prediction_id"] = event.prediction_id or was.prediction_id
    now["error_code"] = event.error_code
    _release(now, _RELEASED, event.at)


def _passed_on(now: Fields, was: Attempt, event: PassedOn) -> None:
    _ended(now, was, event)
    now["error_code"] = event.error_code
    moderated = {"moderated": True} if event.moderated else {}
    now["notes"] = {**event.notes, **moderated, PASSED_ON: True}
    bought = now["prediction_id"] = event.prediction_id or was.prediction_id
    now["refusals"] = was.refusals + (not bought)
    _release(now, _RELEASED if bought else _ABSENT, event.at)


def _not_bought(now: Fields, was: Attempt, event: NotBought) -> None:
    _ended(now, was, event)
    now["refusals"] = was.refusals + 1
    _release(now, _ABSENT, event.at)


def _unknown(now: Fields, was: Attempt, event: Unknown) -> None:
    now["error"], now["notes"] = event.error, event.notes
    now["prediction_id"] = event.prediction_id or was.prediction_id
    now["request_id"] = event.request_id or was.request_id
    if now["prediction_id"] is None:
        now["lost_at"] = event.closed_at or event.at


def _found(now: Fields, was: Attempt, event: Found) -> None:
    now["prediction_id"], now["route"], now["error"] = event.prediction_id, event.route, None
    now["submitted_at"], now["resumed_at"] = event.created or was.intended_at, event.at


def _ended(now: Fields, was: Attempt, event: Failed | Released | NotBought | PassedOn) -> None:
    now["error"], now["ended_at"] = event.error, event.at
    now["request_id"] = event.request_id or was.request_id


def _charge(now: Fields, was: Attempt, told: int | None, at: datetime) -> None:
    """Charge what the provider says it cost, or else what is booked; the rest is released."""
    charged = was.booked if told is None else told
    now["reserved"], now["charged"], now["told"] = 0, charged, told
    now["overrun"] = max(charged - was.reserved, 0)
    now["estimated"] = was.estimated and told is None
    now["settled"], now["settled_at"] = _CHARGED, at


def _release(now: Fields, settled: Settled, at: datetime) -> None:
    now["reserved"], now["estimated"] = 0, False
    now["settled"], now["settled_at"] = settled, at


def _stored(now: Fields, was: Attempt, event: AssetStored) -> None:
    stored = StoredAsset(event.job_id, event.index, event.path, event.size, event.sha256)
    others = [asset for asset in was.stored if asset.position != event.index]
    now["stored"] = tuple(sorted([*others, stored])) if others else (stored,)


def _damaged(now: Fields, was: Attempt, event: Damaged) -> None:
    now["stored"] = tuple(
        a._replace(missing=1) if a.position in event.indexes else a for a in was.stored
    )
    now["error"] = event.error


def _succeeded(now: Fields, was: Attempt, event: Succeeded) -> None:
    now["error"], now["ended_at"] = None, event.at


def _sought_again(now: Fields, was: Attempt, event: SoughtAgain) -> None:
    now["error"] = None


def _lost(now: Fields, was: Attempt, event: Lost | Missing) -> None:
    now["error"], now["ended_at"] = event.error, event.at


def _error(now: Fields, was: Attempt, event: Expired | FetchFailed | NotFound) -> None:
    now["error"] = event.error


OF_ATTEMPT: dict[type[Event], Callable[[Fields, Attempt, Any], None]] = {
    Intended: _intended,
    NotBought: _not_bought,
    Submitted: _submitted,
    Polled: _polled,
    PolledAgain: _polled_again,
    Generated: _generated,
    Released: _released,
    PassedOn: _passed_on,
    Failed: _failed,
    Unknown: _unknown,
    Found: _found,
    Expired: _error,
    NotFound: _error,
    AssetStored: _stored,
    Damaged: _damaged,
    FetchFailed: _error,
    Succeeded: _succeeded,
    Lost: _lost,
    Missing: _lost,
    SoughtAgain: _sought_again,
}
"""What each kind of event changes of the attempt."""
