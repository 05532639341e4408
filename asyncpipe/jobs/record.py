"""A job as it stands: the fold of its events, whoever folds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from datetime import datetime
from enum import StrEnum
from typing import Any

from asyncpipe.errors import IllegalTransition
from asyncpipe.jobs.events import (
    AssetStored,
    Damaged,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Generated,
    Intended,
    Lost,
    LostSettled,
    NotBought,
    Polled,
    PolledAgain,
    Released,
    Resubmitted,
    RetryAsked,
    Submitted,
    Succeeded,
    Unknown,
)
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.states import JobState, advance


class Settled(StrEnum):
    """What became of an attempt's money; until then it is reserved, or nobody knows."""

    CHARGED = "charged"
    RELEASED = "released"  # the prediction failed, and the provider gave the money back
    ABSENT = "absent"  # the submit surely bought nothing
    FREE = "free"  # its answer was lost, and the user found that it was not charged


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAsset:
    """One file on disk; ``path`` is relative to the output folder, with ``/``."""

    job_id: int
    index: int
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """The money of an attempt that its job has left behind, in micro-dollars."""

    attempt: int
    reserved: int
    booked: int
    charged: int
    estimated: bool
    settled: Settled | None
    settled_at: datetime | None


@dataclass(frozen=True, kw_only=True)  # no slots: see ``changed``
class JobRecord:
    """What is known of one job, and what the ledger keeps; ``fold`` is the only way it changes.

    ``version`` grows with every event. ``used`` counts attempts used up, ``failures`` those since
    the user last asked for a retry. ``stem`` is the path of its assets without index and extension,
    relative to the output folder; None before admission. ``earlier`` are attempts left behind.

    The rest is of one attempt, whose number is ``attempt``; 0: the next one has not begun, and all
    is blank. ``reserved``, ``charged``, ``booked`` (charged on delivery), ``told`` (what the
    provider says it cost) and ``overrun`` (charged beyond what was reserved) are micro-dollars;
    ``estimated`` is whether its amount is the provider's estimate. ``body`` is the digest of the
    request as it was sent, ``uploads`` the URLs of files in it. ``polls`` counts answers to polls,
    ``refusals`` submits that surely bought nothing. ``resumed_at`` is when an expired job was taken
    up again, for a fresh deadline. Times are UTC.
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
    earlier: tuple[Earlier, ...] = ()
    attempt: int = 0
    reserved: int = 0
    charged: int = 0
    booked: int = 0
    told: int | None = None
    overrun: int = 0
    estimated: bool = False
    settled: Settled | None = None
    settled_at: datetime | None = None
    price_source: str = ""
    assumed: str | None = None
    body: str | None = None
    uploads: tuple[str, ...] = ()
    prediction_id: str | None = None
    route: str = ""
    request_id: str | None = None
    outputs: tuple[str, ...] = ()
    assets: tuple[StoredAsset, ...] = ()
    polls: int = 0
    refusals: int = 0
    generation_s: float | None = None
    error: str | None = None
    error_code: int | None = None
    moderated: bool = False
    intended_at: datetime | None = None
    submitted_at: datetime | None = None
    resumed_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def next_attempt(self) -> int:
        """The number of the attempt that is under way or comes next."""
        return self.used + 1

    @property
    def paid(self) -> bool:
        """Whether the attempt is charged, were it nothing."""
        return self.settled is Settled.CHARGED

    @property
    def lost(self) -> int:
        """How many earlier attempts there are of unknown outcome."""
        return sum(each.settled is None for each in self.earlier)

    @property
    def held(self) -> int:
        """Micro-dollars that those still reserve."""
        return sum(each.reserved for each in self.earlier)

    @property
    def spent(self) -> int:
        """Micro-dollars that other earlier attempts were charged."""
        return sum(each.charged for each in self.earlier)

    @property
    def committed(self) -> int:
        """Micro-dollars that count against a budget: charged, reserved or held."""
        return self.charged + self.reserved + self.held + self.spent

    @property
    def releasable(self) -> int:
        """The part of it that the provider may still give back in this run."""
        in_flight = self.state in (JobState.SUBMITTING, JobState.SUBMITTED)
        return self.reserved if in_flight else 0

    @property
    def in_doubt(self) -> bool:
        """Whether it failed free of charge, and an earlier attempt may have been bought."""
        return self.state is JobState.FAILED and not self.paid and self.lost > 0


_NAMES = [each.name for each in fields_of(JobRecord)]

BLANK: Mapping[str, Any] = {
    each.name: each.default for each in fields_of(JobRecord)[_NAMES.index("attempt") :]
}
"""The fields of an attempt that has not begun: all from ``attempt`` on."""


def fold(record: JobRecord, event: Event) -> JobRecord:
    """Return ``record`` after ``event``; raises IllegalTransition where the table has no way."""
    target = event.target
    after = object.__new__(JobRecord)
    fields = after.__dict__
    fields.update(record.__dict__)
    fields["version"] = record.version + 1
    if target is not None:
        fields["state"] = advance(record.state, target)
    part = PARTS.get(type(event))
    if part is not None:
        part(fields, record, event)
    return after


def changed(record: JobRecord, changes: Mapping[str, Any]) -> JobRecord:
    """Return a copy with ``changes``: what dataclasses.replace does, seven times as fast.

    The names of changes are not checked.
    """
    after = object.__new__(JobRecord)
    after.__dict__.update(record.__dict__)
    after.__dict__.update(changes)
    return after


Fields = dict[str, Any]
"""Those of a record in the making; parts read the one before and write these."""


def _intended(fields: Fields, record: JobRecord, event: Intended) -> None:
    refused = record.attempt == event.attempt  # a submit that buys nothing uses up no number
    if not refused:
        _leave_behind(fields, record)
    fields.update(BLANK)
    fields["refusals"] = record.refusals if refused else 0
    fields["attempt"], fields["intended_at"] = event.attempt, event.at
    fields["reserved"], fields["booked"] = event.reserved, event.booked
    fields["estimated"] = event.estimated
    fields["price_source"], fields["assumed"] = event.price_source, event.assumed
    fields["body"], fields["uploads"] = event.body, event.uploads


def _leave_behind(fields: Fields, record: JobRecord) -> None:
    """Make the attempt an earlier one, if there is one."""
    if record.attempt:
        left = Earlier(
            attempt=record.attempt,
            reserved=record.reserved,
            booked=record.booked,
            charged=record.charged,
            estimated=record.estimated,
            settled=record.settled,
            settled_at=record.settled_at,
        )
        fields["earlier"] = (*record.earlier, left)


def _submitted(fields: Fields, record: JobRecord, event: Submitted) -> None:
    fields["prediction_id"], fields["route"] = event.prediction_id, event.route
    fields["submitted_at"], fields["request_id"] = event.at, event.request_id


def _polled(fields: Fields, record: JobRecord, event: Polled) -> None:
    fields["polls"] = record.polls + 1


def _polled_again(fields: Fields, record: JobRecord, event: PolledAgain) -> None:
    fields["resumed_at"], fields["error"] = event.at, None


def _generated(fields: Fields, record: JobRecord, event: Generated) -> None:
    fields["outputs"], fields["error"] = event.outputs, None
    fields["prediction_id"] = event.prediction_id or record.prediction_id
    fields["route"] = event.route or record.route
    fields["request_id"] = event.request_id or record.request_id
    fields["submitted_at"] = record.submitted_at or event.at
    fields["generation_s"], fields["ended_at"] = event.generation_s, event.at
    if not record.paid:  # an attempt is charged once
        _charge(fields, record, event.told, event.at)


def _failed(fields: Fields, record: JobRecord, event: Failed) -> None:
    _ended(fields, record, event)
    fields["moderated"], fields["error_code"] = event.moderated, event.error_code
    bought = event.prediction_id or record.prediction_id
    fields["prediction_id"] = bought
    if event.charged:
        _charge(fields, record, event.told, event.at)
        return
    fields["refusals"] = record.refusals + (not bought)
    found = Settled.RELEASED if bought else Settled.ABSENT
    _release(fields, Settled.FREE if event.found_free else found, event.at)


def _released(fields: Fields, record: JobRecord, event: Released) -> None:
    _ended(fields, record, event)
    fields["used"], fields["failures"] = record.used + 1, record.failures + 1
    fields["prediction_id"] = event.prediction_id or record.prediction_id
    fields["error_code"] = event.error_code
    _release(fields, Settled.RELEASED, event.at)


def _not_bought(fields: Fields, record: JobRecord, event: NotBought) -> None:
    _ended(fields, record, event)
    fields["refusals"] = record.refusals + 1
    _release(fields, Settled.ABSENT, event.at)


def _unknown(fields: Fields, record: JobRecord, event: Unknown) -> None:
    fields["error"] = event.error
    fields["prediction_id"] = event.prediction_id or record.prediction_id
    fields["request_id"] = event.request_id or record.request_id


def _ended(fields: Fields, record: JobRecord, event: Failed | Released | NotBought) -> None:
    fields["error"], fields["ended_at"] = event.error, event.at
    fields["request_id"] = event.request_id or record.request_id


def _charge(fields: Fields, record: JobRecord, told: int | None, at: datetime) -> None:
    """Charge what the provider says it cost, or else what is booked; the rest is released."""
    charged = record.booked if told is None else told
    fields["reserved"], fields["charged"], fields["told"] = 0, charged, told
    fields["overrun"] = max(charged - record.reserved, 0)
    fields["estimated"] = record.estimated and told is None
    fields["settled"], fields["settled_at"] = Settled.CHARGED, at


def _release(fields: Fields, settled: Settled, at: datetime) -> None:
    fields["reserved"], fields["estimated"] = 0, False
    fields["settled"], fields["settled_at"] = settled, at


def _retry_asked(fields: Fields, record: JobRecord, event: RetryAsked) -> None:
    _leave_behind(fields, record)
    fields.update(BLANK)
    fields["used"], fields["failures"] = record.used + 1, 0


def _resubmitted(fields: Fields, record: JobRecord, event: Resubmitted) -> None:
    _leave_behind(fields, record)
    fields.update(BLANK)
    fields["used"], fields["failures"] = record.used + 1, event.failures


def _lost_settled(fields: Fields, record: JobRecord, event: LostSettled) -> None:
    earlier = {each.attempt: each for each in record.earlier}
    lost = earlier.get(event.attempt)
    if lost is None or lost.settled is not None:
        raise IllegalTransition(f"attempt {event.attempt} of {record.name} has no lost answer")
    earlier[event.attempt] = replace(
        lost,
        reserved=0,
        charged=lost.booked if event.charged else 0,
        estimated=lost.estimated and event.charged,
        settled=Settled.CHARGED if event.charged else Settled.FREE,
        settled_at=event.at,
    )
    fields["earlier"] = tuple(earlier.values())


def _stored(fields: Fields, record: JobRecord, event: AssetStored) -> None:
    stored = StoredAsset(
        job_id=record.id,
        index=event.index,
        path=event.path,
        size=event.size,
        sha256=event.sha256,
    )
    others = [asset for asset in record.assets if asset.index != event.index]
    fields["assets"] = tuple(sorted([*others, stored], key=lambda asset: asset.index))


def _damaged(fields: Fields, record: JobRecord, event: Damaged) -> None:
    fields["assets"] = tuple(a for a in record.assets if a.index not in event.indexes)
    fields["error"] = event.error


def _succeeded(fields: Fields, record: JobRecord, event: Succeeded) -> None:
    fields["error"], fields["ended_at"] = None, event.at


def _lost(fields: Fields, record: JobRecord, event: Lost) -> None:
    fields["error"], fields["ended_at"] = event.error, event.at


def _error(fields: Fields, record: JobRecord, event: Expired | FetchFailed) -> None:
    fields["error"] = event.error


PARTS: dict[type[Event], Callable[[Fields, JobRecord, Any], None]] = {
    Intended: _intended,
    NotBought: _not_bought,
    Submitted: _submitted,
    Polled: _polled,
    PolledAgain: _polled_again,
    Generated: _generated,
    Released: _released,
    Failed: _failed,
    Unknown: _unknown,
    Expired: _error,
    RetryAsked: _retry_asked,
    Resubmitted: _resubmitted,
    LostSettled: _lost_settled,
    AssetStored: _stored,
    Damaged: _damaged,
    FetchFailed: _error,
    Succeeded: _succeeded,
    Lost: _lost,
}
"""What each kind of event changes besides the state; of the others nothing."""
