"""What an answer of the provider means for a job: pure, from answer to event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from asyncpipe.errors import (
    NotAccepted,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitStopped,
    without_numbers,
)
from asyncpipe.flow import Answer, AnswerKind, Finding
from asyncpipe.jobs import (
    Event,
    Expired,
    Failed,
    Generated,
    Job,
    JobRecord,
    NotBought,
    PassedOn,
    Released,
    Submitted,
    Unknown,
)
from asyncpipe.pricing import outputs_asked, told_micro
from asyncpipe.providers import Prediction, PredictionStatus


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failure that the provider does not charge for is submitted again.

    ``usual`` holds where a job has no number of its own. With ``resubmit_unknown`` a submit whose
    answer was lost counts as such a failure: it may be paid twice.
    """

    usual: int
    resubmit_unknown: bool = False

    def of(self, job: Job) -> int:
        """How many retries a job has."""
        return self.usual if job.retries is None else job.retries

    def may_resubmit(self, record: JobRecord) -> bool:
        """Whether a job of unknown outcome may be submitted again."""
        kept = "status" in record.attempt.notes  # by the provider, under a word that is not known
        return self.resubmit_unknown and not kept and record.failures < self.of(record.job)


_TAKEN, _FINAL, _OTHER = (
    Answer(AnswerKind.TAKEN),
    Answer(AnswerKind.FINAL),
    Answer(AnswerKind.OTHER),
)
_UNREACHED = Answer(AnswerKind.OVERLOADED)


def limits_of(answer: Prediction | ProviderError) -> Answer:
    """What an answer to a submit or a poll says of the API's limits."""
    if isinstance(answer, Prediction):
        return _TAKEN if answer.status is PredictionStatus.RUNNING else _FINAL
    if isinstance(answer, Overloaded):
        return Answer(AnswerKind.OVERLOADED, answer.retry_after_s)
    if isinstance(answer, RateLimited) or (isinstance(answer, PollFailed) and answer.status == 429):
        return Answer(AnswerKind.LIMITED, answer.retry_after_s)
    return _UNREACHED if isinstance(answer, NotAccepted) else _OTHER


def found_by(answer: Prediction | ProviderError) -> Finding:
    """What an answer tells; a failed prediction has ended, a failed poll says nothing.

    Completed without outputs says nothing either: such answers have turned out to be too early.
    """
    if isinstance(answer, ProviderError):
        return Finding.NOTHING
    if answer.status is PredictionStatus.RUNNING:
        return Finding.RUNNING
    whole = answer.status is PredictionStatus.FAILED or answer.outputs
    return Finding.ENDED if whole else Finding.NOTHING


NO_OUTPUT = "the provider says completed and names no output"

UNREADABLE = "the provider says completed and names an output that cannot be read"

_LONGEST = 300


def after_submit(
    record: JobRecord,
    answer: Prediction | ProviderError,
    at: datetime,
    *,
    retries: int,
    anothers: bool = False,
) -> Event:
    """Turn the answer to a submit into the one event that follows from it.

    A completed answer without outputs is polled on, like one that runs; so is one that failed, if
    another prediction would be bought for it. ``anothers``: the prediction that the answer names is
    another job's.
    """
    if isinstance(answer, ProviderError):
        return _submit_refused(record, answer, at)
    if answer.status is PredictionStatus.FAILED:
        event = after_failure(record, answer, at, retries=retries)
        if anothers or not answer.id or not isinstance(event, Released):
            return event
    if anothers:
        return Unknown(
            job_id=record.id,
            at=at,
            error=f"the provider answered with prediction {answer.id}, which is another job's: "
            "whether a second one was bought nobody knows",
            request_id=answer.request_id,
        )
    if answer.status is PredictionStatus.COMPLETED and answer.outputs:
        return delivered(record, answer, at, generation_s=0.0)
    if not answer.id:
        return Unknown(
            job_id=record.id,
            at=at,
            error="the provider took the submit and named no prediction",
            request_id=answer.request_id,
        )
    return Submitted(
        job_id=record.id,
        at=at,
        prediction_id=answer.id,
        route=answer.route,
        request_id=answer.request_id,
    )


def delivered(
    record: JobRecord, answer: Prediction, at: datetime, *, generation_s: float
) -> Generated:
    """The end of a prediction that names its outputs, and whether they are as many as asked for."""
    notes, given = answer.notes, len(answer.outputs)
    asked = max(outputs_asked(record.job) or 0, len(notes.get("nsfw", ())))
    if given < asked:
        notes = {**notes, "given": given, "asked": asked}
    known = record.attempt.prediction_id is not None  # then by the answer to its submit
    if answer.extras:
        notes = {**notes, "extras": len(answer.extras)}
    return Generated(
        job_id=record.id,
        at=at,
        outputs=(*answer.outputs, *answer.extras),
        notes=notes,
        generation_s=generation_s,
        prediction_id=None if known else answer.id or None,
        route=None if known else answer.route or None,
        request_id=answer.request_id,
        told=told_micro(answer.charged),
    )


def passed_on(record: JobRecord, event: Event) -> Event:
    """Let a job fall back that has another lane, where it surely is not charged.

    So where it failed free of charge, or its provider takes nothing from us any more. Never where
    nobody knows.
    """
    if not record.has_next:
        return event
    if isinstance(event, NotBought) and event.stops:
        return PassedOn(
            job_id=event.job_id, at=event.at, error=event.error, request_id=event.request_id
        )
    if not isinstance(event, Failed) or event.charged or event.found_free:
        return event
    return PassedOn(
        job_id=event.job_id,
        at=event.at,
        error=event.error,
        moderated=event.moderated,
        error_code=event.error_code,
        prediction_id=event.prediction_id,
        request_id=event.request_id,
        notes=event.notes,
    )


def _submit_refused(record: JobRecord, error: ProviderError, at: datetime) -> Event:
    text, request_id = str(error), error.request_id
    if isinstance(error, NotAccepted | SubmitStopped):
        stops = isinstance(error, SubmitStopped)
        return NotBought(job_id=record.id, at=at, error=text, request_id=request_id, stops=stops)
    if isinstance(error, Rejected):
        return Failed(job_id=record.id, at=at, error=text, request_id=request_id)
    return Unknown(job_id=record.id, at=at, error=text, request_id=request_id)


def may_retry(record: JobRecord, answer: Prediction, retries: int) -> bool:
    """Whether a failed prediction may be bought anew: returned, not moderated, retries left."""
    free = _charged(answer) is False and answer.again
    return free and not answer.moderated and record.failures < retries


def _charged(answer: Prediction) -> bool | None:
    """Whether a failed prediction's money is gone: what it cost, if told, decides.

    None: nobody knows.
    """
    told = told_micro(answer.charged)
    if told is not None:
        return told > 0
    return None if answer.released is None else not answer.released


def after_failure(record: JobRecord, answer: Prediction, at: datetime, *, retries: int) -> Event:
    """Turn a failed prediction into another attempt or the job's end.

    Where nobody knows whether it is charged, the job is unknown and its money stays reserved.
    """
    if _charged(answer) is None:
        return Unknown(
            job_id=record.id,
            at=at,
            error=f"{_reason(answer)}: whether it is charged the provider does not say",
            prediction_id=answer.id or None,
            request_id=answer.request_id,
        )
    if not may_retry(record, answer, retries):
        return _failed(record, answer, at)
    return Released(
        job_id=record.id,
        at=at,
        error=_reason(answer),
        error_code=answer.error_code,
        prediction_id=answer.id or None,
        request_id=answer.request_id,
    )


def _failed(record: JobRecord, answer: Prediction, at: datetime) -> Failed:
    charged = _charged(answer) is True
    return Failed(
        job_id=record.id,
        at=at,
        error=_reason(answer),
        charged=charged,
        told=told_micro(answer.charged) if charged else None,
        notes=answer.notes,
        moderated=answer.moderated,
        error_code=answer.error_code,
        prediction_id=answer.id or None,
        request_id=answer.request_id,
    )


def _reason(answer: Prediction) -> str:
    return answer.error or f"the provider says {answer.said or 'failed'} and gives no reason"


def known_again(answer: Prediction | ProviderError) -> bool:
    """Whether the provider can tell what became of the prediction of an unknown job."""
    if isinstance(answer, ProviderError) or _is_stranded(answer):
        return False
    return answer.status is not PredictionStatus.FAILED or _charged(answer) is not None


def _is_stranded(answer: Prediction | ProviderError) -> bool:
    """Whether the provider tells an error of a prediction, under a word that is not known."""
    if isinstance(answer, ProviderError) or answer.status is not PredictionStatus.RUNNING:
        return False
    return bool(answer.error and "status" in answer.notes)


def strange_word(answer: Prediction | ProviderError) -> str | None:
    """The provider's word for a prediction's status, if it is not known."""
    return None if isinstance(answer, ProviderError) else answer.notes.get("status")


RETENTION_S = 14 * 86_400.0
"""How long after its submit a prediction is kept by the provider; until then it may be found."""


def after_deadline(
    record: JobRecord,
    last: Prediction | ProviderError,
    at: datetime,
    *,
    deadline_s: float,
    lasting: bool,
) -> Event:
    """Decide what a job is whose deadline passed, by the last thing the provider said.

    ``lasting``: it has said so for some time. One 404 or one answer without outputs gives up
    nothing that is paid for; the next poll may be answered as it should. Nor does a 404 within the
    provider's retention: it may be that of another account.
    """
    submitted_at = record.attempt.submitted_at or at
    kept = (at - submitted_at).total_seconds() <= RETENTION_S
    if isinstance(last, PredictionGone) and lasting and not kept:
        error = f"{last}; the provider does not know the prediction {RETENTION_S / 86_400:g} days"
        error += " after its submit"
        return Unknown(job_id=record.id, at=at, error=error, request_id=last.request_id)
    if isinstance(last, Prediction) and is_empty(last) and lasting:
        return without_outputs(record, last, at)
    if isinstance(last, Prediction) and _is_stranded(last):
        return Unknown(
            job_id=record.id,
            at=at,
            error=f"the provider says {last.said!r}, a word that is not known, and: {last.error}; "
            f"that is so {deadline_s:g} s after submit, and whether it is charged is not said",
            notes=last.notes,
            request_id=last.request_id,
        )
    return Expired(
        job_id=record.id,
        at=at,
        error=f"not finished {deadline_s:g} s after submit: {_state(last)}; "
        "the prediction is kept, run the same command again to go on waiting",
    )


def _state(last: Prediction | ProviderError) -> str:
    if isinstance(last, ProviderError):
        return str(last)
    told = last if last.said and not is_empty(last) else None
    if told and (told.error or strange_word(told)):
        more = f", and: {told.error}" if told.error else ", a word that is not known"
        return f"the provider says {told.said!r}{more}"
    return "the provider is still working on it"


def is_empty(answer: Prediction | ProviderError) -> bool:
    """Whether a prediction is completed, and names no outputs."""
    if isinstance(answer, ProviderError) or answer.outputs:
        return False
    return answer.status is PredictionStatus.COMPLETED


def without_outputs(record: JobRecord, last: Prediction, at: datetime) -> Failed:
    """The end of a job whose prediction is completed, and for good names no output."""
    raw = last.notes.get("raw")
    error = f"{UNREADABLE}: {raw}"[:_LONGEST] if raw else NO_OUTPUT
    return Failed(
        job_id=record.id,
        at=at,
        error=f"{error}: {last.error}" if last.error else error,
        notes={**last.notes, "no_output": True},
        charged=True,
        moderated=last.moderated,
        request_id=last.request_id,
        told=told_micro(last.charged),
    )


def next_wait_s(gap: float, last: Prediction | ProviderError) -> float:
    """Stretch ``gap`` to what the provider asks for."""
    asked = getattr(last, "retry_after_s", None)
    return max(gap, asked) if asked else gap


KEPT = 8192
"""So many ids are remembered, the latest; memory must not grow with the batch."""


class PredictionOwners:
    """Notice when the provider answers a submit with a prediction that is another job's.

    A prediction is billed once, so charging both jobs for it would be wrong, and so would calling
    the second one free: a second prediction may have been bought under an id nobody was told.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._jobs: dict[str, int] = {}
        self._kept = kept

    def claim(self, prediction_id: str, job_id: int) -> bool:
        """Note that a prediction is this job's; False when it is another's already."""
        owner = self._jobs.pop(prediction_id, job_id)
        self._jobs[prediction_id] = owner
        if len(self._jobs) > self._kept:
            del self._jobs[next(iter(self._jobs))]
        return owner == job_id

    def has(self, prediction_id: str) -> bool:
        """Whether a job was given this prediction lately."""
        return prediction_id in self._jobs


FIRST = 20
"""So many submits refused for one reason, and none accepted, stop a model."""


@dataclass(slots=True)
class RefusalStreak:
    """What the submits of one model came to since a run began."""

    count: int = 0
    reason: str | None = None
    varied: bool = False

    def accepted(self) -> None:
        """The provider took a submit: whatever is refused is the job's fault, not the model's."""
        self.varied = True

    def refused(self, reason: str) -> bool:
        """Count a refusal for good; True when the model is to be stopped for it."""
        plain = without_numbers(reason)
        self.varied = self.varied or self.reason not in (None, plain)
        self.reason = plain
        self.count += 1
        return self.count >= FIRST and not self.varied
