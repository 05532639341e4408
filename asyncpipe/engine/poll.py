"""Poll a prediction to its end: each poll at its turn, when the policy says, up to a deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from asyncpipe._tasks import ONCE_MORE_S, provider_code
from asyncpipe.engine.answers import Answers
from asyncpipe.engine.callbacks import Callback, Callbacks
from asyncpipe.engine.decide import (
    PredictionOwners,
    RetryPolicy,
    after_deadline,
    after_failure,
    delivered,
    found_by,
    is_empty,
    known_again,
    limits_of,
    next_wait_s,
    passed_on,
    strange_word,
    without_outputs,
)
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.relay import Relay, told_apart
from asyncpipe.engine.tickets import StopReasons, Ticket
from asyncpipe.errors import KeyRefused, PollFailed, PredictionGone, ProviderError, SubmitStopped
from asyncpipe.flow import (
    Finding,
    Limiter,
    PollClock,
    PollPolicy,
    PollSchedule,
    Trouble,
    backstop_gap_s,
)
from asyncpipe.jobs import (
    Attempt,
    Deadlines,
    Event,
    JobRecord,
    JobState,
    Polled,
    PolledAgain,
    now,
)
from asyncpipe.ledger import Ledger
from asyncpipe.providers import Prediction, PredictionStatus

logger = logging.getLogger("asyncpipe.engine")

RESUMED_S = 5.0
"""A prediction older than this when its polling begins is asked for at once: a run was resumed."""

TURN_S = 60.0
"""So long after its deadline a prediction waits for the turn of its last poll."""

MOST_WORDS = 20
"""So many words that are not known are told of; one that changes with every answer is none."""


class Inquiry:
    """Asks for predictions, each poll at its turn, and teaches the limiter what is answered."""

    def __init__(self, relay: Relay, limiter: Limiter, answers: Answers) -> None:
        self._relay, self._limiter, self._answers = relay, limiter, answers

    async def poll(
        self, prediction_id: str, *, route: str = "", until: float | None = None
    ) -> Prediction:
        """Poll once; cancelling gives the turn up. Raises what the provider's ``poll`` does.

        And PollFailed where no poll may go before ``until``, by the loop's clock, ProviderError
        where the provider's code fails: a bug in it must not lose paid work.
        """
        try:
            async with asyncio.timeout_at(until):
                await self._limiter.gate.poll_turn()
        except TimeoutError:
            raise PollFailed("the API asked to wait with every poll (429)") from None
        try:
            with provider_code("a poll", logger=logger, action="poll.failed"):
                told = await self._relay.poll(prediction_id, route=route)
            answer = self._answers.prediction(told, of="poll")
        except ProviderError as exc:
            self._limiter.polled(limits_of(exc))
            raise
        self._limiter.polled(limits_of(answer))
        return answer


class Poller:
    """Polls submitted jobs; ``policy`` says when."""

    def __init__(
        self,
        *,
        inquiry: Inquiry,
        ledger: Ledger,
        recorder: Recorder,
        policy: PollPolicy,
        deadlines: Deadlines,
        retries: RetryPolicy,
        owners: PredictionOwners,
        stops: StopReasons,
        clock: Callable[[], float],
        tell: Callable[[str], None],
        callbacks: Callbacks,
        backstop_s: Callable[[str], float | None],
    ) -> None:
        self._inquiry = inquiry
        self._callbacks, self._backstop_s = callbacks, backstop_s
        self._tell = tell
        self._strange: set[str] = set()
        self._ledger, self._recorder = ledger, recorder
        self._policy, self._deadlines = policy, deadlines
        self._retries = retries
        self._owners = owners
        self._stops = stops
        self._clock = clock

    async def poll(self, ticket: Ticket) -> None:
        """Poll until the provider reports an end or the deadline passes."""
        prediction_id = ticket.record.attempt.prediction_id
        assert prediction_id is not None, "a submitted job has a prediction id"
        with self._callbacks.expecting(prediction_id) as callback:
            callback.backstop_s = self._backstop_s(ticket.record.attempt.route)
            await self._poll(ticket, prediction_id, callback)
        if ticket.state not in (JobState.GENERATED, JobState.SUBMITTED):
            # Nobody hears of an end that is not on disk. What is generated has not ended: were
            # that lost, the next run would only poll once more.
            await self._ledger.durable()

    async def _poll(self, ticket: Ticket, prediction_id: str, callback: Callback) -> None:
        record, attempt = ticket.record, ticket.record.attempt
        self._owners.claim(told_apart(prediction_id, attempt.route), record.id)
        born, started = self._times(ticket)
        clock = PollClock(started=started, deadline_s=self._deadline_s(record))
        trouble = Trouble()
        age_s = self._clock() - born
        resumed = attempt.resumed_at is not None or age_s > RESUMED_S
        watch = self._policy.watch(record.made_as, resumed=resumed)
        gap = 0.0 if resumed else self._gap_s(watch, age_s, None, callback)
        while ticket.state is JobState.SUBMITTED:
            await callback.until(clock.due(self._clock(), gap))
            last = await self._ask(attempt, max(clock.end, self._clock()) + TURN_S)
            age_s = self._clock() - born
            if isinstance(last, SubmitStopped):
                self._stops.note(last, record.made_as.model if record.step else None)
                return  # still submitted: the next run goes on polling
            self._remark(record, last)
            trouble.note(_trouble(attempt, last), self._clock())
            found = found_by(last)
            watch.note(age_s, found)
            self._recorder.record(ticket, _polled(record, last))
            if (event := self._judge(record, last, clock, trouble)) is not None:
                self._recorder.record(ticket, passed_on(record, event))
            if ticket.state is JobState.SUBMITTED:
                gap = next_wait_s(self._gap_s(watch, age_s, found, callback), last)

    def _gap_s(
        self, watch: PollSchedule, age_s: float, last: Finding | None, callback: Callback
    ) -> float:
        """How long to wait for the next poll."""
        gap_s = watch.gap_s(age_s)
        return backstop_gap_s(gap_s, last, backstop_s=callback.backstop_s, heard=callback.heard)

    async def look(self, ticket: Ticket) -> None:
        """Ask once for an unknown job's prediction; one that the provider knows is polled on."""
        if ticket.record.attempt.prediction_id is None:
            return
        last = await self._ask(ticket.record.attempt, self._clock() + TURN_S)
        if isinstance(last, SubmitStopped):
            self._stops.note(last)
        elif known_again(last):
            self._recorder.record(ticket, PolledAgain(job_id=ticket.id, at=now()))

    def _remark(self, record: JobRecord, last: Prediction | ProviderError) -> None:
        """Say once of each word that is not known that the provider says it."""
        word = strange_word(last)
        if word is None or word in self._strange or len(self._strange) >= MOST_WORDS:
            return
        self._strange.add(word)
        assert isinstance(last, Prediction), "only such a one has a word"
        meant = "with its outputs, which are fetched" if last.outputs else "which is waited for"
        more = f"; it says, too: {last.error}" if last.error else ""
        self._tell(
            f"{record.job.model}: the provider says {word!r} of {record.name}, a word that is not "
            f"known, {meant}{more}"
        )

    def _times(self, ticket: Ticket) -> tuple[float, float]:
        """When it was submitted, and when its deadline began to run, by the loop's clock.

        The wall clock, which may be set meanwhile, is only asked about earlier runs.
        """
        attempt, clock = ticket.record.attempt, self._clock()
        assert attempt.submitted_at is not None, "a submitted job knows when"
        born = ticket.answered_at
        if born is None:
            born = clock - _ago_s(attempt.submitted_at)
        if attempt.resumed_at is None:
            return born, born
        return born, clock - _ago_s(attempt.resumed_at)

    def _deadline_s(self, record: JobRecord) -> float:
        own = record.job.deadline_s
        return self._deadlines.of(record.job.kind) if own is None else own

    async def _ask(self, attempt: Attempt, until: float) -> Prediction | ProviderError:
        """Poll; once more where the key is refused, which one slip of a gateway may say."""
        last = await self._ask_once(attempt, until)
        if isinstance(last, KeyRefused):
            await asyncio.sleep(ONCE_MORE_S)
            last = await self._ask_once(attempt, until + ONCE_MORE_S)
        return last

    async def _ask_once(self, attempt: Attempt, until: float) -> Prediction | ProviderError:
        assert attempt.prediction_id is not None, "a submitted job has a prediction id"
        try:
            return await self._inquiry.poll(attempt.prediction_id, route=attempt.route, until=until)
        except ProviderError as exc:
            return exc

    def _judge(
        self,
        record: JobRecord,
        last: Prediction | ProviderError,
        clock: PollClock,
        trouble: Trouble,
    ) -> Event | None:
        """What a poll's answer makes of a job; None: it is polled on."""
        at, lasting = now(), trouble.lasts(self._clock(), clock.deadline_s)
        if isinstance(last, Prediction):
            if last.status is PredictionStatus.FAILED:
                return self._judge_failure(record, last, lasting=lasting)
            if last.status is PredictionStatus.COMPLETED and last.outputs:
                generation_s = round(self._clock() - clock.started, 3)
                return delivered(record, last, at, generation_s=generation_s)
            if is_empty(last) and last.error and lasting:
                return without_outputs(record, last, at)
        if clock.expired(self._clock()):
            return after_deadline(record, last, at, deadline_s=clock.deadline_s, lasting=lasting)
        return None

    def _judge_failure(self, record: JobRecord, last: Prediction, *, lasting: bool) -> Event | None:
        retries = self._retries.of(record.job)
        if names(record.attempt, last):
            return after_failure(record, last, now(), retries=retries)
        if lasting or not retries:
            # Some gateway's "failed" may stand for it: never a reason to buy another one.
            return after_failure(record, last, now(), retries=0)
        return None


def _polled(record: JobRecord, last: Prediction | ProviderError) -> Polled:
    if isinstance(last, Prediction):
        return Polled(job_id=record.id, at=now(), said=last.said)
    return Polled(job_id=record.id, at=now(), error=str(last))


def _ago_s(at: datetime) -> float:
    return max((now() - at).total_seconds(), 0.0)


def names(attempt: Attempt, last: Prediction) -> bool:
    """Whether a poll's answer is surely of the prediction that was asked for.

    On a route of its own, like the article's, answers need not repeat the id.
    """
    return bool(last.id or attempt.route)


def _trouble(attempt: Attempt, last: Prediction | ProviderError) -> str | None:
    if isinstance(last, PredictionGone):
        return "gone"
    if isinstance(last, Prediction) and last.status is PredictionStatus.FAILED:
        return None if names(attempt, last) else "failed without a name"
    return "empty" if is_empty(last) else None
