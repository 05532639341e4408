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
from asyncpipe.flow.limiter import TOGETHER_S, Limiter, Permit
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.window import SUSPECT, Window
from asyncpipe.providers.base import Prediction, PredictionStatus

DONE = Prediction(id="p", status=PredictionStatus.COMPLETED, outputs=("u",))


class Clock:
    """Time as a test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Known(Limiter):
    """A limiter of 64 a model, at a time that the test sets."""

    def __init__(self) -> None:
        self.at = Clock()
        gate = Gate(Pace(), clock=self.at)
        super().__init__(gate, Random(1), lambda _: Window(64), workers=500)


def submit(known: Known, count: int, answer: Any, *, now: float) -> list[Permit]:
    known.at.now = now
    permits = [known.to_submit("m") for _ in range(count)]
    for permit in permits:
        permit.answered(limits_of(answer))
    return permits


@pytest.mark.parametrize(
    "answer", [Overloaded("503"), NotSent("dns"), SubmitUnknown("reset"), Rejected("400")]
)
def test_only_a_429_cuts_a_window(answer: ProviderError) -> None:
    """Not a 503, a broken connection or a lost answer, however many."""
    known = Known()
    submit(known, 12, Prediction(id="p"), now=0.0)
    before = known.of("m").window.size
    submit(known, 30, answer, now=1.0)
    assert known.of("m").window.size == before
    assert known.of("m").window.running == 12
    refuse(known, now=2.0)
    assert known.of("m").window.size < before


def refuse(known: Known, *, now: float) -> None:
    """Refuse submits one after the other until it cannot be by chance."""
    for _ in range(SUSPECT + 1):
        submit(known, 1, RateLimited("429"), now=now)


def refuse_polls(known: Known, now: float) -> None:
    known.at.now = now
    for _ in range(4):
        known.polled(limits_of(PollFailed("429", status=429)))


def test_a_429_on_submits_and_polls_is_the_rate() -> None:
    """The window stays as it was, the model's pause ends, and everything is paced."""
    known = Known()
    submit(known, 12, Prediction(id="p"), now=0.0)
    size = known.of("m").window.size
    refuse(known, now=0.5)
    assert known.of("m").window.size < size
    assert known.ready_at("m", 0.6) != 0.6
    refuse_polls(known, 0.6)
    assert known.of("m").window.size == size
    assert known.ready_at("m", 0.6) == 0.6
    assert known.gate.pace.limit is not None
    submit(known, 3, RateLimited("429"), now=0.7)
    assert known.of("m").window.size == size
    assert known.ready_at("m", 0.7) == 0.7


def test_what_was_refused_long_before_is_not_forgiven() -> None:
    """A limit of what is in flight stays met when, later, the rate is refused, too."""
    known = Known()
    submit(known, 12, Prediction(id="p"), now=0.0)
    refuse(known, now=1.0)
    refuse_polls(known, 1.1 + TOGETHER_S)
    assert known.of("m").window.found == 12


def test_a_wish_to_wait_is_kept_by_whom_it_was_told() -> None:
    """Told a submit: the model. Told polls: all polls, and no submit."""
    known = Known()
    for permit in submit(known, 12, DONE, now=0.0):
        permit.release()
    for _ in range(4):
        known.polled(limits_of(PollFailed("429", status=429, retry_after_s=50.0)))
    assert known.ready_at("m", 0.0) == 0.0
    (permit,) = submit(known, 1, Rejected("400"), now=0.1)
    known.to_submit("m").answered(limits_of(RateLimited("429", retry_after_s=40.0)))
    at = known.ready_at("m", 0.2)
    assert at is not None
    assert 40.0 <= at <= 44.2


class Money:
    """Counts how often it was given back."""

    ended = 0

    def end(self) -> None:
        self.ended += 1


def test_a_permit_gives_everything_back_once() -> None:
    """However often a job is put back or let go, and however its ``with`` block is left."""
    known = Known()
    running = known.to_poll("m")
    for _ in range(2):
        running.release()
    money = Money()
    permit = known.to_submit("m", money)
    assert known.of("m").window.in_flight == known.out == 1
    with pytest.raises(ZeroDivisionError), permit:
        _ = 1 / 0
    permit.unused()
    permit.release()
    assert money.ended >= 1
    window, pause = known.of("m").window, known.of("m").pause
    assert (window.in_flight, window._waiting, pause._out, known.out) == (0, 0, 0, 0)
    with known.to_submit("m") as sent:
        sent.answered(limits_of(Prediction(id="p")))
        assert known.works_on("m")
        sent.unused()
        assert window.running == 1
    assert (window.in_flight, known.out) == (0, 0)
    assert not known.works_on("m")
