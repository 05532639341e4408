"""Windows, paces and pauses together: which answer is told to whom."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from asyncpipe.engine.decide import limits_of
from asyncpipe.errors import (
    NotSent,
    Overloaded,
    PollFailed,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import TOGETHER_S, Traffic
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.window import Window
from asyncpipe.providers.base import Prediction, PredictionStatus

DONE = Prediction(id="p", status=PredictionStatus.COMPLETED, outputs=("u",))


def traffic() -> Traffic:
    return Traffic(Gate(Pace(), clock=lambda: 0.0), Random(1), lambda _: Window(64))


def submit(known: Traffic, count: int, answer: Any, *, now: float, first: int = 0) -> None:
    jobs = range(first, first + count)
    for job in jobs:
        known.admitted(job, "m")
    for job in jobs:
        known.answered(job, "m", limits_of(answer), now)


@pytest.mark.parametrize(
    "answer", [Overloaded("503"), NotSent("dns"), SubmitUnknown("reset"), Rejected("400")]
)
def test_only_a_429_cuts_a_window(answer: ProviderError) -> None:
    """Not a 503, a broken connection or a lost answer, however many."""
    known = traffic()
    submit(known, 12, Prediction(id="p"), now=0.0)
    before = known.of("m").window.size
    submit(known, 30, answer, now=1.0, first=100)
    assert known.of("m").window.size == before
    assert known.of("m").window.running == 12
    submit(known, 1, RateLimited("429"), now=2.0, first=200)
    assert known.of("m").window.size < before


def refuse_polls(known: Traffic, now: float) -> None:
    for _ in range(4):
        known.polled(limits_of(PollFailed("429", status=429)), now)


def test_a_429_on_submits_and_polls_is_the_rate() -> None:
    """The window stays as it was, the model's pause ends, and everything is paced."""
    known = traffic()
    submit(known, 12, Prediction(id="p"), now=0.0)
    size = known.of("m").window.size
    submit(known, 3, RateLimited("429"), now=0.5, first=100)
    assert known.of("m").window.size < size
    assert known.ready_at("m", 0.6) != 0.6
    refuse_polls(known, 0.6)
    assert known.of("m").window.size == size
    assert known.ready_at("m", 0.6) == 0.6
    assert known.gate.pace.limit is not None
    submit(known, 3, RateLimited("429"), now=0.7, first=200)
    assert known.of("m").window.size == size
    assert known.ready_at("m", 0.7) == 0.7


def test_what_was_refused_long_before_is_not_forgiven() -> None:
    """A limit of what is in flight stays met when, later, the rate is refused, too."""
    known = traffic()
    submit(known, 12, Prediction(id="p"), now=0.0)
    submit(known, 3, RateLimited("429"), now=1.0, first=100)
    refuse_polls(known, 1.1 + TOGETHER_S)
    assert known.of("m").window.found == 12


def test_a_wish_to_wait_is_kept_by_whom_it_was_told() -> None:
    """Told a submit: the model. Told polls: all polls, and no submit."""
    known = traffic()
    submit(known, 12, DONE, now=0.0)
    for job in range(12):
        known.ended(job, "m")
    for _ in range(4):
        known.polled(limits_of(PollFailed("429", status=429, retry_after_s=50.0)), 0.0)
    assert known.ready_at("m", 0.0) == 0.0
    known.admitted(99, "m")
    assert known.answered(99, "m", limits_of(RateLimited("429", retry_after_s=40.0)), 0.1) >= 40.0
    at = known.ready_at("m", 0.2)
    assert at is not None
    assert 40.0 <= at <= 44.2


def test_a_prediction_is_counted_once_and_let_go_once() -> None:
    """However often a job is taken up, put back or let go."""
    known = traffic()
    known.resumed(1, "m")
    known.resumed(1, "m")
    known.admitted(2, "m")
    known.put_back(2, "m")
    known.put_back(2, "m")
    known.ended(2, "m")
    assert known.works_on("m")
    known.ended(1, "m")
    known.ended(1, "m")
    assert known.of("m").window.in_flight == 0
    assert not known.works_on("m")
