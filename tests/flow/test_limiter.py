"""Schedules, pauses and decisions at their boundaries, without a loop."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.engine.decide import after_deadline, after_failure, after_submit, next_wait_s
from asyncpipe.engine.queue import Queue
from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotSent,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.flow.backoff import RELEASED, Pause, backoff_s
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Answer, Traffic, Verdict
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.polling import PollClock, poll_gap
from asyncpipe.flow.window import Window
from asyncpipe.jobs.events import (
    Expired,
    Failed,
    Generated,
    NotBought,
    Released,
    Submitted,
    Unknown,
)
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.settings import Polling
from asyncpipe.jobs.states import JobState
from asyncpipe.providers.base import Prediction, PredictionStatus

AT = datetime(2026, 11, 24, tzinfo=UTC)


class Middle(Random):
    """A random source that always draws the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def record(**fields: Any) -> JobRecord:
    model = fields.pop("model", "m/text-to-image")
    job = Job(name="a", type=JobType.IMAGE, model=model, prompt="p")
    base: Any = {"id": 1, "key": "k" * 32, "name": "a", "job": job, "state": JobState.SUBMITTING}
    return JobRecord(**(base | fields))


def test_the_articles_backoff() -> None:
    """5 s, then 1.5 times as much, at most 30 s."""
    gaps = [poll_gap(Polling(), n, Middle()) for n in range(7)]
    assert gaps == [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]


@given(st.integers(0, 100_000), st.integers())
def test_gaps_stay_within_jitter_of_the_cap(polls: int, seed: int) -> None:
    """However often it polled, a job waits at most 33 s and never nothing."""
    assert 4.5 <= poll_gap(Polling(), polls, Random(seed)) <= 33.0


def test_the_last_poll_is_at_the_deadline() -> None:
    """Never beyond it, and at once when it has passed already."""
    clock = PollClock(started=100.0, deadline_s=300.0)
    assert clock.due(390.0, 30.0) == 400.0
    assert clock.due(100.0, 30.0) == 130.0
    assert clock.due(5_000.0, 30.0) == 5_000.0
    assert (clock.expired(399.9), clock.expired(400.0)) == (False, True)


def test_refusals_back_off_like_the_article() -> None:
    """4, 8, 16 … capped at 60 s, drawn from the upper half."""
    assert [backoff_s(n, Middle()) for n in (1, 2, 3)] == [3.0, 6.0, 12.0]
    assert all(30.0 <= backoff_s(n, Random(n)) <= 60.0 for n in range(5, 2_000, 7))


def test_a_pause_counts_one_episode_once() -> None:
    """What left before the pause neither lengthens nor ends it; then one submit goes ahead."""
    pause = Pause(Middle())
    assert pause.ready_at(0.0) == 0.0
    burst = [pause.admitted() for _ in range(4)]
    assert pause.refused(burst[0], 0.0, None) == 3.0
    assert pause.refused(burst[1], 1.0, None) == 2.0
    pause.accepted(burst[2])
    pause.answered(burst[3])
    assert (pause.refusals, pause.ready_at(1.0)) == (1, 3.0)
    first = pause.admitted()
    assert pause.ready_at(5.0) is None
    assert pause.refused(first, 5.0, None) == 6.0
    assert pause.ready_at(5.0) == 11.0


def test_waiters_do_not_storm_when_a_pause_ends() -> None:
    """Each submit that is taken lets one more be out at a time; after RELEASED of them, all."""
    pause = Pause(Middle())
    pause.refused(pause.admitted(), 0.0, None)
    for out in range(1, RELEASED + 1):
        sent = []
        while pause.ready_at(9.0) is not None:
            sent.append(pause.admitted())
        assert len(sent) == out
        for episode in sent[1:]:
            pause.answered(episode)
        pause.accepted(sent[0])
    for _ in range(1_000):
        pause.admitted()
    assert pause.ready_at(9.0) == 9.0


def test_a_pause_honours_retry_after() -> None:
    """Whatever our own backoff says, not before the provider's wish."""
    pause = Pause(Random(1))
    episode = pause.admitted()
    assert pause.refused(episode, 0.0, 120.0) >= 120.0
    assert pause.refused(episode, 10.0, 300.0) >= 300.0


def traffic(*, ceiling: int = 64, seed: int = 1) -> Traffic:
    return Traffic(Gate(Pace(), clock=lambda: 0.0), Random(seed), lambda _: Window(ceiling))


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (RateLimited("429"), NotBought),
        (Overloaded("503"), NotBought),
        (NotSent("dns"), NotBought),
        (KeyRefused("401"), NotBought),
        (BalanceExhausted("402"), NotBought),
        (Rejected("400"), Failed),
        (SubmitUnknown("reset"), Unknown),
        (ProviderError("a kind nobody thought of"), Unknown),
        (Prediction(id="p"), Submitted),
        (Prediction(id="p", status=PredictionStatus.COMPLETED), Submitted),
        (Prediction(id="p", status=PredictionStatus.COMPLETED, outputs=("u",)), Generated),
        (Prediction(id="", status=PredictionStatus.COMPLETED, outputs=("u",)), Generated),
        (Prediction(id=""), Unknown),
        (Prediction(id="p", status=PredictionStatus.FAILED), Released),
        (Prediction(id="p", status=PredictionStatus.FAILED, moderated=True), Failed),
    ],
)
def test_every_answer_to_a_submit_has_one_meaning(
    answer: Prediction | ProviderError, event: type
) -> None:
    """What is not surely refused is unknown; what is unknown is never sent again."""
    assert type(after_submit(record(), answer, AT, retries=2)) is event


@pytest.mark.parametrize(
    ("failures", "fields", "event"),
    [
        (0, {}, Released),
        (1, {}, Released),
        (2, {}, Failed),
        (0, {"moderated": True}, Failed),
        (0, {"released": False}, Failed),
    ],
)
def test_only_a_released_failure_with_retries_left_is_bought_anew(
    failures: int, fields: dict[str, Any], event: type
) -> None:
    """Two retries: the third failure is final."""
    failed = Prediction(id="p", status=PredictionStatus.FAILED, error="x", **fields)
    outcome = after_failure(record(failures=failures), failed, AT, retries=2, polls=3)
    assert type(outcome) is event
    if isinstance(outcome, Failed):
        assert outcome.charged is not failed.released


@pytest.mark.parametrize(
    ("last", "event"),
    [
        (Prediction(id="p"), Expired),
        (PollFailed("502"), Expired),
        (PredictionGone("404"), Unknown),
        (Prediction(id="p", status=PredictionStatus.COMPLETED), Failed),
    ],
)
@pytest.mark.parametrize("lasting", [True, False])
def test_the_deadline_judges_by_what_lasts(
    last: Prediction | ProviderError, event: type, lasting: bool
) -> None:
    """Working: expired. Not known: unknown. Completed without outputs: failed and charged.

    Once is not enough for the latter two: the next poll may find the prediction as it should be.
    """
    outcome = after_deadline(record(), last, AT, deadline_s=300.0, polls=9, lasting=lasting)
    if not lasting:
        assert isinstance(outcome, Expired)
        return
    assert type(outcome) is event
    assert not isinstance(outcome, Failed) or outcome.charged


def test_a_poll_waits_as_long_as_the_provider_asks() -> None:
    """Retry-After stretches a gap and never shortens it."""
    assert next_wait_s(5.0, PollFailed("429", retry_after_s=20.0)) == 20.0
    assert next_wait_s(30.0, PollFailed("429", retry_after_s=20.0)) == 30.0
    assert next_wait_s(5.0, Prediction(id="p")) == 5.0


def test_paid_work_goes_first_and_models_take_turns() -> None:
    """Then jobs whose time has come; a paused model does not block another."""
    queue = Queue(traffic())
    one, two = record(id=1, model="a"), record(id=2, model="b")
    queue.add([one, record(id=3, model="a"), two])
    queue.paid.append(record(id=9, state=JobState.SUBMITTED))
    assert [
        chosen.id
        for chosen in (queue.choose(0.0), queue.choose(0.0))
        if not isinstance(chosen, float)
    ] == [9, 1]
    assert queue.choose(0.0) == two
    queue.add([record(id=4, model="b")])
    queue.traffic.answered(1, "a", Answer(Verdict.OVERLOADED, 100.0), 0.0)
    chosen = queue.choose(0.0)
    assert isinstance(chosen, JobRecord)
    assert chosen.id == 4
    wait = queue.choose(0.0)
    assert isinstance(wait, float)
    assert 100.0 <= wait <= 110.0


def test_a_job_is_not_chosen_before_its_time() -> None:
    """A retry waits for its moment and then goes first in its model."""
    queue = Queue(traffic())
    queue.add_later(record(id=7), 50.0)
    assert queue.choose(0.0) == 50.0
    queue.add([record(id=8)])
    assert [c.id for c in (queue.choose(50.0), queue.choose(50.0)) if isinstance(c, JobRecord)] == [
        7,
        8,
    ]
    assert queue.empty
