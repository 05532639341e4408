"""The submit of a job: an intent, one request, and the one event that follows from its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from random import Random

import anyio

from asyncpipe._tasks import ONCE_MORE_S, backoff_s, provider_code
from asyncpipe.engine.again import (
    as_sent,
    bought_with_key,
    is_keyed,
    is_known_still,
    is_lost,
    new_key,
)
from asyncpipe.engine.answers import Answers
from asyncpipe.engine.decide import (
    FIRST,
    PredictionOwners,
    RefusalStreak,
    RetryPolicy,
    after_submit,
    limits_of,
    passed_on,
)
from asyncpipe.engine.health import Waits
from asyncpipe.engine.ingest import SUBMIT_LIMIT_S
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.relay import Relay, told_apart
from asyncpipe.engine.tickets import StopReasons, Ticket
from asyncpipe.engine.upload import Uploads
from asyncpipe.errors import (
    AsyncpipeError,
    ClaimLost,
    KeyRefused,
    NotAccepted,
    NotSent,
    ProviderError,
    Rejected,
    SubmitStopped,
    SubmitUnknown,
)
from asyncpipe.flow import Limiter
from asyncpipe.http import MAY_SEND
from asyncpipe.jobs import (
    Attempt,
    Event,
    Found,
    Intended,
    Job,
    JobRecord,
    JobState,
    NotBought,
    PassedOn,
    Resubmitted,
    Unknown,
    now,
)
from asyncpipe.ledger import Ledger, NotReserved
from asyncpipe.pricing import SharedMoney, Spending
from asyncpipe.providers import HasKeys, Prediction

logger = logging.getLogger("asyncpipe.engine")

FORGOTTEN_S = 180.0
"""A refusal longer ago than this, with none since, is another story: nothing was submitted."""


class Submitter:
    """Submits jobs, each once for each permit, and learns from the answers.

    With ``holds`` what was lost is left as it is, also where a key would tell what it bought.
    """

    def __init__(
        self,
        *,
        relay: Relay,
        ledger: Ledger,
        recorder: Recorder,
        uploads: Uploads,
        limiter: Limiter,
        spending: Spending,
        stops: StopReasons,
        owners: PredictionOwners,
        answers: Answers,
        retries: RetryPolicy,
        patience_s: float | None,
        rng: Random,
        money: SharedMoney | None = None,
        may_send: Callable[[], bool] | None = None,
        waits: Waits,
        holds: bool = False,
    ) -> None:
        self._relay, self._money, self._may_send = relay, money, may_send
        self._holds = holds
        self._ledger, self._recorder = ledger, recorder
        self._uploads = uploads
        self._limiter, self._spending = limiter, spending
        self._stops, self._waits = stops, waits
        self._owners, self._answers = owners, answers
        self._retries = retries
        self._patience_s = patience_s
        self._rng, self._clock = rng, limiter.gate.clock
        self._doubt = anyio.Lock()
        self._refused_since: float | None = None
        self._refused_last = 0.0
        self._streaks: dict[str, RefusalStreak] = {}
        self._closed: dict[str, AsyncpipeError] = {}  # lanes that take nothing from us any more

    def begin(self) -> None:
        """Forget what models refused before: there are new jobs to try."""
        self._streaks.clear()
        self._closed.clear()

    async def submit(self, ticket: Ticket) -> None:
        """Buy one prediction, unless submitting has stopped or the money held for it is gone."""
        permit = ticket.permit
        assert permit is not None, "admission gives every job its permit"
        assert ticket.hold is not None, "admission holds the money"
        if self._stops.of(ticket.record) or not self._spending.covers(ticket.hold):
            return permit.unused()
        if ticket.record.has_next and ticket.job.model in self._closed:
            return await self._pass_on(ticket, self._closed[ticket.job.model])
        urls = await self._uploads.ready(ticket.job)
        if self._stops.of(ticket.record):  # while its files were on their way
            return permit.unused()
        if isinstance(urls, ProviderError):
            intent = self._intent(ticket, None, ())
            self._reserved(ticket)
            self._recorder.record(ticket, intent)
            return await self._not_sent(ticket, urls)
        job = ticket.job.sent_with(urls)
        intent = self._intent(ticket, job.digest, tuple(urls.values()))
        try:
            refusal = await self._recorder.reserve(ticket, intent)
        except BaseException:
            # Cut before anything was sent: say so, or the next run must take it for unknown.
            self._undo(ticket)
            raise
        if refusal is not None:
            return self._not_reserved(ticket, refusal)
        self._reserved(ticket)
        # From here the answer and its record cannot be parted: shielded, with a limit of its own.
        with anyio.CancelScope(shield=True):
            answer = self._uploads.once_more(ticket.record, await self._bought(ticket.record, job))
            ticket.answered_at = self._clock()
            event, before = self._follow(ticket.record, answer), ticket.record
            try:
                self._recorder.record(ticket, event)
                self._learn(ticket, before, answer)
                await self._ledger.durable()
            except ClaimLost:
                await self._ledger.durable()  # what was bought is kept for the one who has the job
                raise
            except AsyncpipeError:
                _say_unrecorded(ticket.record, event)
                raise

    async def _pass_on(self, ticket: Ticket, reason: AsyncpipeError) -> None:
        """Let a job fall back of which nothing was sent; its attempt says why."""
        assert ticket.permit is not None, "admission gives every job its permit"
        intent = self._intent(ticket, None, ())
        self._reserved(ticket)
        self._recorder.record(ticket, intent)
        error = f"not sent: {reason}"
        passed = PassedOn(job_id=ticket.id, at=now(), error=error)
        ticket.permit.unused()
        self._recorder.record(ticket, passed)
        await self._ledger.durable()

    def resubmit(self, ticket: Ticket) -> None:
        """Let a job be submitted again that may have been bought, if the user said so."""
        if self._retries.may_resubmit(ticket.record) and not ticket.adopted:
            failures = ticket.record.failures + 1
            again = Resubmitted(job_id=ticket.id, at=now(), failures=failures)
            self._recorder.record(ticket, again)

    def next_attempt_at(self, ticket: Ticket) -> float | None:
        """When a job that is pending again may be submitted; None: as the model's pause allows."""
        if not ticket.record.failures:
            return None
        return self._clock() + backoff_s(ticket.record.failures, self._rng, initial_s=2.0)

    async def send_again(self, ticket: Ticket) -> None:
        """Ask by its key what a lost submit bought; where it bought nothing, it does so now.

        Nothing more is reserved: it is the same attempt.
        """
        record, job = ticket.record, as_sent(ticket.record)
        if job is None or not is_keyed(record) or not self._knows(record.attempt, job):
            return
        with anyio.CancelScope(shield=True):
            lost = SubmitUnknown(record.attempt.error or "its answer was lost")
            answer = await self._by_key(record.attempt, job, lost, at_once=True)
            if isinstance(answer, SubmitUnknown):
                logger.info("%s: %s", record.name, answer, extra={"action": "submit.unknown"})
                return
            if not answer.id or not self._claims(record, answer):
                return
            found = Found(job_id=record.id, at=now(), prediction_id=answer.id, route=answer.route)
            self._recorder.record(ticket, found)
            await self._ledger.durable()

    def _intent(self, ticket: Ticket, body: str | None, uploads: tuple[str, ...]) -> Intended:
        assert ticket.hold is not None, "admission holds the money"
        price = ticket.hold.price
        return Intended(
            job_id=ticket.id,
            at=now(),
            attempt=ticket.record.next_attempt,
            reserved=price.to_reserve,
            booked=price.micro,
            estimated=price.estimated,
            price_source=price.source,
            assumed=", ".join(price.assumed) or None,
            provider=self._relay.maker(ticket.job).name,
            model=self._relay.plain(ticket.job).model,
            body=body,
            uploads=uploads,
            submit_key=new_key(self._relay.maker(ticket.job)) if body is not None else None,
            trace=self._recorder.trace_of(ticket.record),
        )

    def _reserved(self, ticket: Ticket) -> None:
        """The intent reserves the money that was held."""
        assert ticket.hold is not None, "admission holds the money"
        ticket.hold.end(spent=True)
        if self._money is not None:
            self._money.add(ticket.hold.price.to_reserve)
            self._spending.budget.purses.add(ticket.job, ticket.hold.price.to_reserve)
        ticket.answered_at = None

    def _not_reserved(self, ticket: Ticket, refusal: NotReserved) -> None:
        """Nothing was sent: other workers have the job, or have spent what was left."""
        assert ticket.permit is not None, "admission gives every job its permit"
        ticket.permit.unused()
        if refusal is NotReserved.ANOTHERS:
            raise ClaimLost(f"another worker has {ticket.record.name}")
        assert self._money is not None, "only others bring a cap near unseen"
        if refusal is NotReserved.PURSE:
            return self._spending.budget.purses.full(ticket.job)
        self._money.full(self._spending.budget.cap)

    def _undo(self, ticket: Ticket) -> None:
        error = "interrupted before it was sent"
        undone = NotBought(job_id=ticket.id, at=now(), error=error, stops=True)
        if ticket.state is not JobState.SUBMITTING:  # it was cut before it was recorded
            return
        self._reserved(ticket)
        try:
            self._recorder.record(ticket, undone)
        except AsyncpipeError:
            logger.warning("%s: %s, and the ledger could not say so", ticket.record.name, error)

    async def _not_sent(self, ticket: Ticket, trouble: ProviderError) -> None:
        """Record why a job's files cannot be had. Nothing was sent, so nothing is unknown.

        The intent and its end are appended without waiting between them: one commit holds both.
        """
        before, retries = ticket.record, self._retries.of(ticket.job)
        event = after_submit(before, trouble, now(), retries=retries)
        self._recorder.record(ticket, passed_on(before, event))
        if not isinstance(trouble, Rejected):  # that is of this file and says nothing of the model
            self._learn(ticket, before, trouble)
        await self._ledger.durable()

    async def _bought(self, record: JobRecord, job: Job) -> Prediction | ProviderError:
        """Submit; where the answer is lost, once more with the key that tells what it bought."""
        attempt = record.attempt
        answer = await self._sure_answer(record, job, attempt.submit_key)
        if not is_lost(answer) or not self._knows(attempt, job):
            return answer
        return await self._by_key(attempt, job, answer)

    async def _by_key(
        self, attempt: Attempt, job: Job, lost: Prediction | ProviderError, *, at_once: bool = False
    ) -> Prediction | SubmitUnknown:
        send = partial(self._answer, job, attempt.submit_key)
        may = partial(self._knows, attempt, job)
        return await bought_with_key(send, lost, may=may, rng=self._rng, at_once=at_once)

    def _knows(self, attempt: Attempt, job: Job) -> bool:
        """Whether a submit of ``job`` may be sent again with its key."""
        provider = self._relay.maker(job)
        if self._stops.run is not None or self._holds or not isinstance(provider, HasKeys):
            return False
        return is_known_still(attempt, provider.key_ttl_s, now())

    async def _sure_answer(
        self, record: JobRecord, job: Job, key: str | None
    ) -> Prediction | ProviderError:
        """Submit; once more where the key is refused, which one slip of a gateway may say.

        Such an answer has surely bought nothing. One after the other: what is certain to one job
        stops all.
        """
        answer = await self._answer(job, key)
        if not isinstance(answer, KeyRefused):
            return answer
        at = self._clock() + ONCE_MORE_S
        async with self._doubt:
            await asyncio.sleep(max(at - self._clock(), 0.0))
            if self._stops.run is not None or job.model in self._closed:
                return answer
            answer = await self._answer(job, key)
            if isinstance(answer, KeyRefused):
                self._close(record, answer)
        return answer

    async def _answer(self, job: Job, key: str | None) -> Prediction | ProviderError:
        if self._may_send is not None and not self._may_send():
            return NotSent("the lease of this worker ends: nothing is sent before it is renewed")
        guard = MAY_SEND.set(self._may_send)
        try:
            async with asyncio.timeout(SUBMIT_LIMIT_S):
                with provider_code("submit", logger=logger, action="submit.failed"):
                    told = await self._relay.submit(job, key)
            return self._answers.prediction(told, of="submit")
        except ProviderError as exc:
            # A bug in a provider must not lose the job: nobody knows what was sent.
            return exc
        except TimeoutError:
            return SubmitUnknown(f"no answer to the submit within {SUBMIT_LIMIT_S:g} s")
        finally:
            MAY_SEND.reset(guard)

    def _follow(self, record: JobRecord, answer: Prediction | ProviderError) -> Event:
        named = isinstance(answer, Prediction) and answer.id
        anothers = bool(named) and not self._claims(record, answer)
        retries = self._retries.of(record.job)
        event = after_submit(record, answer, now(), retries=retries, anothers=anothers)
        if anothers and isinstance(event, Unknown):
            logger.warning("%s: %s", record.name, event.error, extra={"action": "submit.namesake"})
        return passed_on(record, event)

    def _claims(self, record: JobRecord, answer: Prediction | ProviderError) -> bool:
        """Whether the prediction that an answer names is no other job's."""
        assert isinstance(answer, Prediction), "an error names none"
        return self._owners.claim(told_apart(answer.id, answer.route), record.id)

    # -- what answers teach ---------------------------------------------------------------------

    def _close(self, record: JobRecord, reason: AsyncpipeError, *, model: bool = False) -> None:
        """Submit nothing more where a job was: in its lane if it has another one, else at all.

        ``model``: the reason is that of the lane alone, whoever has it.
        """
        lane = record.made_as.model
        if record.has_next:
            logger.warning("%s is left: %s", lane, reason, extra={"action": "lane.left"})
            self._closed.setdefault(lane, reason)
        else:
            self._stops.note(reason, lane if model or record.step else None)

    def _learn(self, ticket: Ticket, before: JobRecord, answer: Prediction | ProviderError) -> None:
        """Tell the model's pause, and the run, what the answer says about submitting on.

        ``before`` is the job as it was submitted.
        """
        assert ticket.permit is not None, "admission gives every job its permit"
        model, told = before.made_as.model, limits_of(answer)
        pause_s = ticket.permit.answered(told)
        if isinstance(answer, NotAccepted):
            wait = {"action": "submit.refused"}
            logger.info("%s: %s; waiting %.0f s", model, answer, pause_s, extra=wait)
            # A limit that predictions of ours fill is met again and again, and nothing is wrong.
            if not (told.limited and self._limiter.works_on(model)):
                self._waits.note("submit", answer, for_s=pause_s + FORGOTTEN_S)
                self._lose_patience(before, answer, pause_s)
            return
        self._waits.end("submit")
        streak = self._streaks.setdefault(model, RefusalStreak())
        if isinstance(answer, Prediction):
            self._refused_since = None
            streak.accepted()
            return
        if isinstance(answer, SubmitStopped):
            self._close(before, answer)
        if isinstance(answer, Rejected) and streak.refused(str(answer)):
            self._close(before, _refuses_all(model, answer), model=True)

    def _lose_patience(self, record: JobRecord, answer: NotAccepted, pause_s: float) -> None:
        """Stop when nothing but refusals came for as long as the user would wait."""
        clock = self._clock()
        if self._refused_since is None or clock - self._refused_last > FORGOTTEN_S:
            self._refused_since = clock
        self._refused_last = clock + pause_s  # nothing is sent until then
        patience_s = self._patience_s
        if patience_s is None or clock - self._refused_since <= patience_s:
            return
        error = f"no submit was accepted for {patience_s:g} s; the last answer: {answer}"
        told = NotAccepted(error, status=answer.status, request_id=answer.request_id)
        self._close(record, told)
        self._refused_since = None


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
