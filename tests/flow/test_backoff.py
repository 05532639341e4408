"""Pauses after refusals: how long, counted once, and no storm at their end."""

from __future__ import annotations

from random import Random

from asyncpipe._tasks import backoff_s
from asyncpipe.flow.backoff import RELEASED, Backoff


class Middle(Random):
    """A random source that always draws the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_refusals_back_off_like_the_article() -> None:
    """4, 8, 16 … capped at 60 s, drawn from the upper half."""
    assert [backoff_s(n, Middle()) for n in (1, 2, 3)] == [3.0, 6.0, 12.0]
    assert all(30.0 <= backoff_s(n, Random(n)) <= 60.0 for n in range(5, 2_000, 7))


def test_a_pause_counts_one_episode_once() -> None:
    """What left before the pause neither lengthens nor ends it; then one submit goes ahead."""
    pause = Backoff(Middle())
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
    pause = Backoff(Middle())
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
    pause = Backoff(Random(1))
    episode = pause.admitted()
    assert pause.refused(episode, 0.0, 120.0) >= 120.0
    assert pause.refused(episode, 10.0, 300.0) >= 300.0
