"""The pace of requests at its boundaries: what it costs, what cuts it, what it forgets."""

from __future__ import annotations

from random import Random

import pytest

from asyncpipe.flow.pace import CUT_EVERY_S, FIRST_CUT, FORGOTTEN_S, HEARD_S, Pace


def flood(pace: Pace, rate: float, seconds: float, *, since: float = 0.0) -> float:
    """Requests answered evenly; returns the time after them."""
    for n in range(int(rate * seconds)):
        pace.sent(since + n / rate)
        pace.answered(since + n / rate)
    return since + seconds


def test_a_pace_that_never_met_a_limit_costs_nothing() -> None:
    """Everybody goes at once."""
    pace = Pace()
    now = flood(pace, 5_000.0, 1.0)
    assert pace.limit is None
    assert pace.ready_at(now) == now


def test_two_refusals_are_no_limit_and_many_are() -> None:
    """Some APIs refuse at random; a pace begins with half of what was taken in a second."""
    pace = Pace()
    now = flood(pace, 100.0, 2.0)
    assert not pace.refused(now)
    assert not pace.refused(now)
    assert pace.limit is None
    for _ in range(5):
        if pace.refused(now):
            break
    assert pace.limit == pytest.approx(100 * FIRST_CUT, rel=0.1)


def test_a_pace_is_cut_at_most_every_quarter_of_a_second() -> None:
    """What was under way belongs to the same refusal."""
    pace = Pace()
    now = flood(pace, 100.0, 2.0)
    assert not any(pace.refused(now) for _ in range(4))
    cuts = [at for at in (now + n * 0.001 for n in range(200)) if pace.refused(at)]
    assert len(cuts) == 1
    assert any(pace.refused(cuts[0] + CUT_EVERY_S + n * 0.001) for n in range(5))


def test_random_refusals_do_not_shut_a_pace() -> None:
    """Four in a hundred, at random and for ever: most of what is asked for still goes."""
    rng, pace, now, sent = Random(5), Pace(), 0.0, 0
    while now < 600.0:
        now = max(pace.ready_at(now), now + 0.1)
        pace.sent(now)
        sent += 1
        pace.refused(now) if rng.random() < 0.04 else pace.answered(now)
    assert sent > 0.8 * 6_000


def test_few_refusals_do_not_slow_a_pace() -> None:
    """One in twenty-five, for ever: that is nobody's limit."""
    pace, now = Pace(), 0.0
    for n in range(20_000):
        now = max(pace.ready_at(now), now + 0.01)
        pace.sent(now)
        pace.refused(now) if n % 25 == 0 else pace.answered(now)
    assert pace.limit is None


@pytest.mark.parametrize(("limit", "share"), [(5.0, 0.08), (40.0, 0.05), (800.0, 0.05)])
def test_a_pace_stays_near_the_limit(limit: float, share: float) -> None:
    """A limit of any size: more than 70 % of it is used and few requests are refused."""
    pace, now, tokens, at, taken, refused = Pace(), 0.0, limit, 0.0, 0, 0
    seconds = max(60.0, 600 / limit)
    while now < seconds:
        now = max(pace.ready_at(now), now + 0.1 / limit)
        pace.sent(now)
        tokens, at = min(tokens + (now - at) * limit, limit), now
        if tokens >= 1:
            tokens, taken = tokens - 1, taken + 1
            pace.answered(now)
        else:
            refused += 1
            pace.refused(now)
    assert taken / seconds > 0.7 * limit
    assert refused <= share * (taken + refused)


def test_a_limit_that_is_gone_is_forgotten() -> None:
    """After a minute without a refusal nobody waits."""
    pace = Pace()
    now = flood(pace, 100.0, 2.0)
    while not pace.refused(now):
        pass
    flood(pace, 10.0, FORGOTTEN_S + 1, since=now)
    assert pace.rate is None


def test_the_users_own_limit_spaces_requests() -> None:
    """2.5 a second: one every 0.4 s, and no burst after a rest."""
    pace, now, times = Pace(cap=2.5), 100.0, []
    for _ in range(4):
        now = pace.ready_at(now)
        pace.sent(now)
        times.append(round(now - 100.0, 3))
    assert times == [0.0, 0.39, 0.79, 1.19]


def test_who_comes_to_others_begins_when_they_have_slowed_down() -> None:
    """At no moment more than the cap goes out: the first halves its rate a look later."""
    first, second = Pace(cap=10.0), Pace(cap=10.0)
    first.share(1, 0.0)
    second.share(2, 5.0)
    assert (first.ready_at(5.0), second.ready_at(5.0)) == (5.0, 5.0 + HEARD_S)
    first.share(2, 6.0)
    second.share(2, 6.0)
    assert (first.limit, second.limit) == (5.0, 5.0)
    assert (first.ready_at(6.0), second.ready_at(6.0)) == (6.0, 5.0 + HEARD_S)
    alone = Pace()
    alone.share(2, 5.0)
    assert alone.ready_at(5.0) == 5.0
