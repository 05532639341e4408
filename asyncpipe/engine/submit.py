"""One job's way to its media: submit, then poll. Flow decides; this performs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Protocol

import anyio

from asyncpipe.engine.admission import Admission
from asyncpipe.engine.decide import (
    FIRST,
    Namesakes,
    Refusals,
    after_deadline,
    after_failure,
    after_submit,
    found_by,
    limits_of,
    next_wait_s,
)
from asyncpipe.engine.fetch import Emit, Fetcher
from asyncpipe.engine.upload import Uploads
from asyncpipe.errors import (
    AsyncpipeError,
    KeyRefused,
    NotAccepted,
    PredictionGone,
    ProviderError,
    Rejected,
    SubmitStopped,
    SubmitUnknown,
)
from asyncpipe.flow import PollClock, Trouble, Watches, backoff_s
from asyncpipe.jobs import (
    Deadlines,
    Event,
    Generated,
    Intended,
    Job,
    JobRecord,
    JobState,
    NotBought,
    Polled,
    PolledAgain,
    Resubmitted,
    Unknown,
    now,
)
from asyncpipe.ledger import Ledger
from asyncpipe.pricing import told_micro
from asyncpipe.providers import Prediction, PredictionStatus, Provider

logger = logging.getLogger("asyncpipe.driver")


class Stop(Protocol):
    """Ends submitting, of one model or of all, with the reason."""

    def __call__(self, reason: AsyncpipeError, model: str | None = None) -> None:
        """Stop; the first reason counts."""


SUBMIT_LIMIT_S = 300.0
"""Longest wait for the answer to a submit, also when leaving; providers give up sooner."""

FORGOTTEN_S = 180.0
"""A refusal longer ago than this, with none since, is another story: nothing was submitted."""

RESUMED_S = 5.0
"""A prediction older than this when its polling begins is asked for at once: a run was resumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What a driver needs to know besides its parts; times in seconds."""

    polls: Watches
    deadlines: Deadlines
    retries: int
    patience_s: float | None
    resubmit_unknown: bool
    wanted: Callable[[JobRecord], bool]
    stopped: Callable[[JobRecord], bool]


class Driver:
    """Carry jobs; shared by all driver coroutines, each of which carries one at a time.

    ``emit`` makes an event count; ``stop`` ends submitting, with its reason.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        ledger: Ledger,
        fetcher: Fetcher,
        uploads: Uploads,
        admission: Admission,
        policy: Policy,
        emit: Emit,
        stop: Stop,
        rng: Random,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._fetcher = fetcher
        self._uploads = uploads
        self._admission = admission
        self._policy = policy
        self._emit = emit
        self._stop = stop
        self._rng = rng
        self._clock = clock
        self._refused_since: float | None = None
        self._refused_last = 0.0
        self._refusals: dict[str, Refusals] = {}
        self._namesakes = Namesakes()

    async def carry(self, record: JobRecord) -> JobRecord:
        """Carry a job as far as it goes now; its permit is given back on the way."""
        before = record
        try:
            if record.state is JobState.PENDING:
                record = await self._submit(record)
            if record.state is JobState.EXPIRED:
                record = self._emit(record, PolledAgain(job_id=record.id, at=now()))
            if record.state is JobState.SUBMITTED:
                record = await self._poll(record)
            await self._uploads.doubt(before, record)
        finally:
            self._admission.release(record)
        if record.state is JobState.GENERATED:
            record = await self._fetcher.fetch(record)
        if record.state is JobState.UNKNOWN and self._policy.resubmit_unknown:
            record = self._resubmit(record)
        return record

    def _resubmit(self, record: JobRecord) -> JobRecord:
        """Submit a job again that may have been bought: the user said so, within its retries."""
        if record.failures >= self._retries(record) or not self._policy.wanted(record):
            return record
        failures = record.failures + 1
        return self._emit(record, Resubmitted(job_id=record.id, at=now(), failures=failures))

    # -- submit ---------------------------------------------------------------------------------

    async def _submit(self, record: JobRecord) -> JobRecord:
        job = await self._uploads.ready(record.job)
        if self._policy.stopped(record):  # while its files were on their way
            self._admission.budget.take(record.id)
            self._admission.traffic.put_back(record.id, record.job.model)
            return record
        record = self._intend(record)
        if isinstance(job, ProviderError):
            return await self._not_sent(record, job)
        try:
            await self._ledger.durable()
        except BaseException:
            # Cut before anything was sent: say so, or the next run must take it for unknown.
            self._undo(record)
            self._admission.traffic.put_back(record.id, record.job.model)
            raise
        # From here the answer and its record cannot be parted: shielded, with a limit of its own.
        with anyio.CancelScope(shield=True):
            answer = self._uploads.once_more(record, await self._answer(job))
            event = self._follow(record, answer)
            try:
                record = self._emit(record, event)
                self._learn(record, answer)
                await self._ledger.durable()
            except AsyncpipeError:
                _say_unrecorded(record, event)
                raise
        return record

    def _follow(self, record: JobRecord, answer: Prediction | ProviderError) -> Event:
        named = isinstance(answer, Prediction) and answer.id
        anothers = bool(named) and not self._namesakes.claim(str(named), record.id)
        retries = self._retries(record)
        event = after_submit(record, answer, now(), retries=retries, anothers=anothers)
        if anothers and isinstance(event, Unknown):
            logger.warning("%s: %s", record.name, event.error, extra={"action": "submit.namesake"})
        return event

    def _undo(self, record: JobRecord) -> None:
        error = "interrupted before it was sent"
        try:
            self._emit(record, NotBought(job_id=record.id, at=now(), error=error))
        except AsyncpipeError:
            logger.warning("%s: %s, and the ledger could not say so", record.name, error)

    def _intend(self, record: JobRecord) -> JobRecord:
        price = self._admission.budget.take(record.id)
        intent = Intended(
            job_id=record.id,
            at=now(),
            attempt=record.attempt,
            reserved=price.to_reserve,
            booked=price.micro,
            estimated=price.estimated,
            price_source=price.source,
            assumed=", ".join(price.assumed) or None,
        )
        return self._emit(record, intent)

    async def _not_sent(self, record: JobRecord, trouble: ProviderError) -> JobRecord:
        """Record why a job's files cannot be had. Nothing was sent, so nothing is unknown.

        The intent and its end are appended without waiting between them: one commit holds both.
        """
        event = after_submit(record, trouble, now(), retries=self._retries(record))
        record = self._emit(record, event)
        if isinstance(trouble, Rejected):  # of this file: it says nothing of the model
            self._admission.traffic.put_back(record.id, record.job.model)
        else:
            self._learn(record, trouble)
        await self._ledger.durable()
        return record

    async def _answer(self, job: Job) -> Prediction | ProviderError:
        try:
            async with asyncio.timeout(SUBMIT_LIMIT_S):
                return await self._provider.submit(job)
        except ProviderError as exc:
            return exc
        except TimeoutError:
            return SubmitUnknown(f"no answer to the submit within {SUBMIT_LIMIT_S:g} s")
        except Exception as exc:
            # A bug in a provider must not lose the job: nobody knows what was sent.
            logger.exception("submit failed", extra={"action": "submit.failed"})
            return SubmitUnknown(f"the provider's code failed during submit: {exc!r}"[:300])

    def _learn(self, record: JobRecord, answer: Prediction | ProviderError) -> None:
        """Tell the model's pause, and the run, what the answer says about submitting on."""
        pause_s = self._admission.answered(record, answer)
        if isinstance(answer, NotAccepted):
            logger.info(
                "%s: %s; waiting %.0f s",
                record.job.model,
                answer,
                pause_s,
                extra={"action": "submit.refused"},
            )
            # A limit that predictions of ours fill is met again and again, and nothing is wrong.
            if not (
                limits_of(answer).limited and self._admission.traffic.works_on(record.job.model)
            ):
                self._lose_patience(self._clock(), answer)
            return
        if isinstance(answer, Prediction):
            self._refused_since = None
            self._refusals_of(record).accepted()
            return
        if isinstance(answer, SubmitStopped):
            self._stop(answer)
        if isinstance(answer, Rejected) and self._refusals_of(record).refused(str(answer)):
            self._stop(_refuses_all(record.job.model, answer), record.job.model)

    def _refusals_of(self, record: JobRecord) -> Refusals:
        return self._refusals.setdefault(record.job.model, Refusals())

    def begin(self) -> None:
        """Forget what models refused before: there are new jobs to try."""
        self._refusals.clear()

    def _lose_patience(self, clock: float, answer: NotAccepted) -> None:
        """Stop when nothing but refusals came for as long as the user would wait."""
        if self._refused_since is None or clock - self._refused_last > FORGOTTEN_S:
            self._refused_since = clock
        self._refused_last = clock
        patience_s = self._policy.patience_s
        if patience_s is None or clock - self._refused_since <= patience_s:
            return
        error = f"no submit was accepted for {patience_s:g} s; the last answer: {answer}"
        self._stop(NotAccepted(error, status=answer.status, request_id=answer.request_id))

    def _retries(self, record: JobRecord) -> int:
        own = record.job.retries
        return self._policy.retries if own is None else own

    def next_attempt_at(self, record: JobRecord) -> float | None:
        """When a job that is pending again may be submitted; None: as the model's pause allows."""
        if not record.failures:
            return None
        return self._clock() + backoff_s(record.failures, self._rng, initial_s=2.0)

    # -- poll -----------------------------------------------------------------------------------

    async def _poll(self, record: JobRecord) -> JobRecord:
        """Poll until the provider reports an end or the deadline passes."""
        assert record.prediction_id is not None, "a submitted job has a prediction id"
        self._namesakes.claim(record.prediction_id, record.id)
        own = record.job.deadline_s
        deadline_s = self._policy.deadlines.of(record.job.kind) if own is None else own
        assert record.submitted_at is not None, "a submitted job knows when"
        born = self._clock() - _ago_s(record.submitted_at)
        started = self._clock() - _ago_s(record.resumed_at) if record.resumed_at else born
        clock = PollClock(started=started, deadline_s=deadline_s)
        trouble = Trouble()
        age_s = self._clock() - born
        resumed = record.resumed_at is not None or age_s > RESUMED_S
        watch = self._policy.polls.watch(record.job, resumed=resumed)
        polls, gap = 0, 0.0 if resumed else watch.gap_s(age_s)
        while record.state is JobState.SUBMITTED:
            await asyncio.sleep(max(clock.due(self._clock(), gap) - self._clock(), 0.0))
            last = await self._ask(record)
            age_s = self._clock() - born
            polls += 1
            if isinstance(last, KeyRefused):
                self._stop(last)
                return record  # still submitted: the next run goes on polling
            trouble.note(_trouble(last), self._clock())
            watch.note(age_s, found_by(last))
            record = self._emit(record, self._judge(record, last, clock, polls, trouble))
            if record.state is JobState.SUBMITTED:
                gap = next_wait_s(watch.gap_s(age_s), last)
        if record.state is not JobState.GENERATED:
            # Nobody hears of an end that is not on disk. What is generated has not ended: were
            # that lost, the next run would only poll once more.
            await self._ledger.durable()
        return record

    async def _ask(self, record: JobRecord) -> Prediction | ProviderError:
        assert record.prediction_id is not None, "a submitted job has a prediction id"
        try:
            return await self._provider.poll(record.prediction_id, route=record.route)
        except ProviderError as exc:
            return exc
        except Exception as exc:
            # A bug in a provider must not lose paid work: it counts as a failed poll.
            logger.exception("poll failed", extra={"action": "poll.failed"})
            return ProviderError(f"the provider's code failed during a poll: {exc!r}"[:300])

    def _judge(
        self,
        record: JobRecord,
        last: Prediction | ProviderError,
        clock: PollClock,
        polls: int,
        trouble: Trouble,
    ) -> Event:
        at = now()
        if isinstance(last, Prediction):
            if last.status is PredictionStatus.FAILED:
                retries = self._retries(record)
                return after_failure(record, last, at, retries=retries, polls=polls)
            if last.status is PredictionStatus.COMPLETED and last.outputs:
                return Generated(
                    job_id=record.id,
                    at=at,
                    outputs=last.outputs,
                    generation_s=round(self._clock() - clock.started, 3),
                    polls=polls,
                    request_id=last.request_id,
                    told=told_micro(last.charged),
                )
        if clock.expired(self._clock()):
            deadline_s = clock.deadline_s
            lasting = trouble.lasts(self._clock(), deadline_s)
            return after_deadline(
                record, last, at, deadline_s=deadline_s, polls=polls, lasting=lasting
            )
        if isinstance(last, Prediction):
            return Polled(job_id=record.id, at=at, said=last.said)
        return Polled(job_id=record.id, at=at, error=str(last))


def _ago_s(at: datetime) -> float:
    return max((now() - at).total_seconds(), 0.0)


def _trouble(last: Prediction | ProviderError) -> str | None:
    if isinstance(last, PredictionGone):
        return "gone"
    empty = isinstance(last, Prediction) and last.status is PredictionStatus.COMPLETED
    return "empty" if empty else None


def _refuses_all(model: str, answer: Rejected) -> Rejected:
    text = (
        f"{model}: the first {FIRST} submits were all refused: {answer}. Its other jobs were not "
        "submitted: correct them, then run the same command again"
    )
    return Rejected(text, status=answer.status, request_id=answer.request_id)


def _say_unrecorded(record: JobRecord, event: Event) -> None:
    """The last resort when the ledger fails after a submit: tell people what was bought."""
    prediction_id = getattr(event, "prediction_id", None)
    if prediction_id:
        logger.critical(
            "%s was bought as prediction %s and could not be recorded; note it down",
            record.name,
            prediction_id,
            extra={"action": "submit.unrecorded"},
        )
