"""When to poll: laws, plans and policies at their boundaries, without a loop."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.engine.decide import found_by
from asyncpipe.errors import PollFailed, PredictionGone, ProviderError, UsageError
from asyncpipe.flow import learned as learned_module
from asyncpipe.flow import lifetimes as law_module
from asyncpipe.flow.learned import (
    CLASS_JOBS,
    COLD_FIRST_S,
    COLD_JOBS,
    LEAST_GAP_S,
    MOST_CLASSES,
    MOST_GAP_S,
    Learned,
    LearnedSchedule,
    PollPlan,
    class_of,
    plan_of,
    policy_of,
)
from asyncpipe.flow.lifetimes import (
    BINS,
    EDGES,
    LAST_S,
    MEMORY,
    UNKNOWN,
    YESTERDAY_JOBS,
    LifeTable,
    position,
    shape_of,
)
from asyncpipe.flow.polling import Finding, PollClock, poll_gap
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.settings import Polling, PollingPolicy
from asyncpipe.providers.base import Prediction, PredictionStatus

MODEL = "m/text-to-image"


class Middle(Random):
    """A random source that always draws the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def job(**params: Any) -> Job:
    return Job(model=MODEL, prompt="p", params=params)


def learned(tail: bool = False, kept: Any = None, **polling: Any) -> Learned:
    return Learned(Polling(policy="learned", **polling), Middle(), lambda: tail, kept)


def carry(watch: LearnedSchedule, generation_s: float) -> tuple[int, float]:
    """Poll until the end; the number of polls and the delay in finding it."""
    age, polls = 0.0, 0
    while True:
        age += watch.gap_s(age)
        polls += 1
        if age >= generation_s:
            watch.note(age, Finding.ENDED)
            return polls, age - generation_s
        watch.note(age, Finding.RUNNING)


def lognormal(count: int, median_s: float, sigma: float = 0.4, seed: int = 1) -> list[float]:
    rng = Random(seed)
    return [median_s * math.exp(sigma * rng.gauss(0, 1)) for _ in range(count)]


def train(policy: Learned, times: list[float], **params: Any) -> list[tuple[int, float]]:
    return [carry(policy.watch(job(**params)), generation_s) for generation_s in times]


# -- the grid and the law -----------------------------------------------------------------------


def test_the_grid_has_a_place_for_every_age() -> None:
    """From nothing to half an hour; what is older lies at its end."""
    assert [position(edge) for edge in EDGES] == pytest.approx(range(BINS + 1), abs=1e-6)
    assert position(-1.0) == 0.0
    assert position(10 * LAST_S) == BINS


def test_a_law_is_a_probability() -> None:
    """Alive falls from 1, chances and what is left make 1, quantiles rise."""
    for shape in (UNKNOWN, shape_of([1.0] * BINS, [3.0] * BINS)):
        assert shape.alive[0] == 1.0
        assert sum(shape.chance) + shape.alive[-1] == pytest.approx(1.0)
        quantiles = [shape.quantile(n / 20) for n in range(21)]
        assert quantiles == sorted(quantiles)
        assert quantiles[0] == 0.0
    assert UNKNOWN.quantile(0.5) == pytest.approx(20, rel=0.05)


def test_running_predictions_count_as_much_as_ended_ones() -> None:
    """The first ends are those of the fastest: without the others the law would be theirs."""
    law = LifeTable()
    for generation_s in lognormal(200, 60.0):
        for since in range(0, 20, 5):
            if generation_s <= since + 5:
                law.ended(since, since + 5)
                break
            law.running(since, since + 5)
    law.renew()
    few = sum(1 for generation_s in lognormal(200, 60.0) if generation_s <= 20)
    assert few < 5
    assert law.shape.alive[int(position(20.0))] > 0.9


def test_intervals_tell_the_law_behind_them() -> None:
    """Median and tail are found from polls that never see the moment of an end."""
    law = LifeTable()
    for generation_s in lognormal(1_000, 30.0, 0.6):
        since = 0.0
        while generation_s > since + 7.0:
            law.running(since, since + 7.0)
            since += 7.0
        law.ended(since, since + 7.0)
        if law.news > 100:
            law.renew()
    law.renew()
    assert law.shape.quantile(0.5) == pytest.approx(30.0, rel=0.1)
    assert law.shape.quantile(0.9) == pytest.approx(64.7, rel=0.15)
    assert law.seen == pytest.approx(MEMORY, rel=0.05)


def test_a_law_of_two_humps_has_both() -> None:
    """Both are found soon, and hardly anybody looks in the minute between them."""
    policy = learned()
    train(policy, [8.0 if n % 5 < 3 else 70.0 for n in range(400)])
    long, short = train(policy, [70.0] * 10), train(policy, [8.0] * 10)
    assert max(polls for polls, _ in long) <= 6
    assert max(delay for _, delay in long + short) < 7.0


def test_a_law_that_has_changed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster or slower: a few predictions are enough; without the test it takes hundreds."""

    def ends_until(median_s: float, after_s: float) -> int:
        policy = learned()
        train(policy, lognormal(400, median_s, 0.1))
        for count, generation_s in enumerate(lognormal(400, after_s, 0.1, seed=2)):
            carry(policy.watch(job()), generation_s)
            median = policy.latency(MODEL, {})
            assert median is not None
            if abs(median[0] / after_s - 1) < 0.3:
                return count
        return 400

    assert ends_until(90.0, 20.0) <= 20
    assert ends_until(30.0, 90.0) <= 20
    monkeypatch.setattr(law_module, "SURE", math.inf)
    assert ends_until(90.0, 20.0) > 40


def test_one_stuck_prediction_is_no_change_of_the_law() -> None:
    """It counts for STUCK ends at most, however long it goes on."""
    policy = learned()
    train(policy, lognormal(300, 30.0))
    before = policy.latency(MODEL, {})
    watch, age = policy.watch(job()), 0.0
    while age < 20_000.0:
        age += watch.gap_s(age)
        watch.note(age, Finding.RUNNING)
    assert before is not None
    assert policy.latency(MODEL, {}) == pytest.approx(before, rel=0.15)


# -- the plan -----------------------------------------------------------------------------------


@given(st.floats(0.0, 1e6), st.sampled_from([0.4, 2.0, 8.0]))
def test_gaps_stay_between_the_least_and_the_most(age_s: float, price_s: float) -> None:
    """At every age, also beyond the end of the grid."""
    plan = plan_of(UNKNOWN, price_s)
    assert LEAST_GAP_S <= plan.gap_s(age_s) <= MOST_GAP_S
    assert plan_of(UNKNOWN, price_s, 7.0).gap_s(age_s) <= 7.0


def test_the_plan_waits_for_a_narrow_law_and_looks_then() -> None:
    """All end within a few seconds of 30: the first look comes after them, not before."""
    law = LifeTable()
    for generation_s in lognormal(300, 30.0, 0.05):
        law.running(0.0, generation_s - 0.5)
        law.ended(generation_s - 0.5, generation_s + 0.5)
    law.renew()
    assert 29.0 < plan_of(law.shape, 2.0).first_s <= MOST_GAP_S


def test_a_dearer_poll_is_a_rarer_one() -> None:
    """And the first look never comes later than half the median, or the longest gap."""
    law = LifeTable()
    for generation_s in lognormal(300, 100.0):
        law.running(0.0, generation_s - 5)
        law.ended(generation_s - 5, generation_s)
    law.renew()
    cheap, dear = plan_of(law.shape, 0.4), plan_of(law.shape, 20.0)
    assert cheap.gap_s(100.0) < dear.gap_s(100.0) / 1.5
    assert cheap.first_s <= dear.first_s
    assert MOST_GAP_S < dear.first_s <= law.shape.quantile(0.5) / 2


def test_the_plan_is_the_cheapest_there_is() -> None:
    """No other sequence of edges costs less: compared with all of them on a coarse law."""
    shape = shape_of([1.0 if 60 <= n < 70 else 0.0 for n in range(BINS)], [2.0] * BINS)
    plan = plan_of(shape, 2.0)

    def cost(after: list[int], n: int) -> float:
        total = 0.0
        while n < BINS:
            j = after[n]
            total += 2.0 * shape.alive[n] + EDGES[j] * (shape.alive[n] - shape.alive[j])
            total -= shape.moment[j] - shape.moment[n]
            n = j
        return total

    ours = [round(position(age)) for age in plan.after]
    rng = Random(1)
    best = cost(ours, 1)
    for _ in range(2_000):
        other = list(ours)
        n = rng.randrange(1, 90)
        allowed = [
            j for j in range(n + 1, BINS + 1) if LEAST_GAP_S <= EDGES[j] - EDGES[n] <= MOST_GAP_S
        ]
        other[n] = rng.choice(allowed or [n + 1])
        assert cost(other, 1) >= best - 1e-9


# -- the learned policy -------------------------------------------------------------------------


def test_planning_is_rare_however_many_are_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A herd of ten thousand is no reason to plan ten thousand times."""
    made = []

    def counted(*args: Any) -> PollPlan:
        made.append(args)
        return plan_of(*args)

    monkeypatch.setattr(learned_module, "plan_of", counted)
    policy = learned()
    watches = [policy.watch(job()) for _ in range(10_000)]
    for watch in watches:
        watch.note(3.0, Finding.RUNNING)
        watch.gap_s(3.0)
    assert 10 < len(made) < 100


def test_nothing_known_is_looked_at_soon() -> None:
    """Within three seconds, until five predictions have ended."""
    policy = learned()
    assert policy.watch(job()).gap_s(0.0) == COLD_FIRST_S
    assert policy.latency(MODEL, {}) is None
    train(policy, [30.0] * (int(COLD_JOBS) + 1))
    assert policy.watch(job()).gap_s(0.0) > 8.0
    assert policy.latency(MODEL, {}) is not None


def test_a_failed_poll_teaches_nothing_and_is_backed_off_from() -> None:
    """5 s, then 7.5; the plan goes on where a poll is answered again."""
    policy = learned()
    train(policy, [30.0] * 50)
    lessons = policy.lessons()
    watch = policy.watch(job())
    for gap in (5.0, 7.5, 11.25):
        watch.note(20.0, Finding.NOTHING)
        assert watch.gap_s(20.0) == gap
    assert policy.lessons() == lessons
    watch.note(60.0, Finding.RUNNING)
    assert policy.lessons() != lessons
    assert watch.gap_s(60.0) <= MOST_GAP_S


def test_what_an_earlier_run_left_says_nothing_of_its_past() -> None:
    """Only from the first poll on: nobody looked before."""
    policy = learned()
    train(policy, [30.0] * 50)
    lessons = policy.lessons()
    watch = policy.watch(job(), resumed=True)
    watch.note(3_600.0, Finding.ENDED)
    assert policy.lessons() == lessons
    watch = policy.watch(job(), resumed=True)
    watch.note(10.0, Finding.RUNNING)
    watch.note(31.0, Finding.ENDED)
    assert policy.lessons() != lessons


def test_in_the_tail_it_looks_more_often() -> None:
    """Nothing waits to be submitted: now every second of delay is the run's."""
    times = lognormal(300, 30.0, 0.6)
    usual, tail = learned(), learned(tail=True)
    train(usual, times)
    kept = usual.lessons()
    tail = learned(tail=True, kept=kept)
    usual = learned(kept=kept)
    more = train(tail, lognormal(200, 30.0, 0.6, seed=3))
    less = train(usual, lognormal(200, 30.0, 0.6, seed=3))
    assert sum(polls for polls, _ in more) > 1.3 * sum(polls for polls, _ in less)
    assert sum(delay for _, delay in more) < 0.7 * sum(delay for _, delay in less)


def test_parameters_have_a_law_of_their_own_where_they_have_shown_one() -> None:
    """Ten seconds of video take longer than five; a class seen too little goes by its model."""
    policy = learned()
    train(policy, lognormal(60, 20.0, 0.1), duration=5)
    train(policy, lognormal(60, 200.0, 0.1, seed=2), duration=10)
    short, long = (policy.latency(MODEL, {"duration": d}) for d in (5, 10))
    assert short is not None
    assert long is not None
    assert short[0] == pytest.approx(20.0, rel=0.15)
    assert long[0] == pytest.approx(200.0, rel=0.15)
    rare = policy.watch(job(duration=15))
    assert rare.gap_s(0.0) == policy.watch(job()).gap_s(0.0)
    train(policy, lognormal(int(CLASS_JOBS) + 2, 5.0, 0.1), duration=15)
    assert policy.watch(job(duration=15)).gap_s(0.0) < 8.0


def test_classes_are_few_and_plain() -> None:
    """A million different resolutions are not a million laws."""
    assert class_of({"duration": 5, "seed": 9}) == class_of({"duration": "5"}) == "duration=5"
    assert class_of({"resolution": ["x"], "duration": None}) == ""
    assert class_of({"resolution": "1" * 21}) == ""
    policy = learned()
    for n in range(10 * MOST_CLASSES):
        policy.watch(job(duration=n))
    assert len(policy._models[MODEL].classes) == MOST_CLASSES


def test_time_that_runs_faster_scales_all_of_it() -> None:
    """With a simulator 20 times as fast every gap is a twentieth, cold and learned."""
    slow, fast = learned(), learned(speed=20.0)
    for generation_s in lognormal(100, 30.0):
        one = carry(slow.watch(job()), generation_s)
        two = carry(fast.watch(job()), generation_s / 20)
        assert one[0] == two[0]
        assert one[1] == pytest.approx(20 * two[1], abs=1e-6)
    whole, twentieth = slow.latency(MODEL, {}), fast.latency(MODEL, {})
    assert whole is not None
    assert twentieth is not None
    assert whole == pytest.approx([20 * value for value in twentieth])
    for policy in ("backoff", "fixed"):
        plain = policy_of(Polling(policy=policy), Middle(), tail=bool).watch(job())
        speedy = policy_of(Polling(policy=policy, speed=20.0), Middle(), tail=bool).watch(job())
        assert plain.gap_s(0.0) == 20 * speedy.gap_s(0.0) == 5.0


def test_what_one_run_learned_the_next_one_knows() -> None:
    """Of each model and class; believed like 60 predictions, so that it can be unlearned."""
    policy = learned()
    train(policy, lognormal(200, 200.0, 0.1), duration=5)
    kept = policy.lessons()
    again = learned(kept=kept)
    assert again.watch(job()).gap_s(0.0) == pytest.approx(policy.watch(job()).gap_s(0.0), rel=0.1)
    assert again._models[MODEL].all.law.seen == pytest.approx(YESTERDAY_JOBS)
    known = again.latency(MODEL, {"duration": 5})
    assert known == pytest.approx((200.0, 227.0, 201.0), rel=0.1)
    assert again.latency("another/model", {}) is None
    assert again.lessons() == {}, "nothing new"


@pytest.mark.parametrize(
    "damage",
    [
        None,
        5,
        [],
        {"all": None},
        {"all": {"grid": [1, 2, 3], "ends": [], "exposure": []}},
        {"all": {"grid": [0.5, 1800.0, BINS], "ends": [1.0] * BINS, "exposure": [1.0]}},
        {"all": {"grid": [0.5, 1800.0, BINS], "ends": [-1.0] * BINS, "exposure": [1.0] * BINS}},
        {"all": {"grid": [0.5, 1800.0, BINS], "ends": ["x"] * BINS, "exposure": [1.0] * BINS}},
        {"all": {"grid": [0.5, 1800.0, BINS], "ends": 7, "exposure": 7}},
        {"all": {"grid": [0.5, 1800.0, BINS]}, "classes": []},
        {"classes": {"duration=5": None}},
    ],
)
def test_a_damaged_memory_is_none(damage: Any) -> None:
    """Then the run begins as the first one did."""
    policy = learned(kept={MODEL: damage})
    assert policy.watch(job()).gap_s(0.0) == COLD_FIRST_S
    assert policy.latency(MODEL, {"duration": 5}) is None


# -- answers, settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Prediction(id="p"), Finding.RUNNING),
        (Prediction(id="p", status=PredictionStatus.FAILED), Finding.ENDED),
        (Prediction(id="p", status=PredictionStatus.COMPLETED, outputs=("u",)), Finding.ENDED),
        (Prediction(id="p", status=PredictionStatus.COMPLETED), Finding.NOTHING),
        (PollFailed("502"), Finding.NOTHING),
        (PredictionGone("404"), Finding.NOTHING),
    ],
)
def test_what_a_poll_finds(answer: Prediction | ProviderError, found: Finding) -> None:
    """Failures are ends; failed polls are not."""
    assert found_by(answer) is found


def test_fixed_and_backoff_go_by_the_number_of_polls() -> None:
    """5, 5, 5 and 5, 7.5, 11.25; what is found does not matter."""
    found: list[tuple[PollingPolicy, list[float]]]
    found = [("fixed", [5.0, 5.0, 5.0]), ("backoff", [5.0, 7.5, 11.25])]
    for policy, gaps in found:
        watch = policy_of(Polling(policy=policy), Middle(), tail=bool).watch(job())
        for gap in gaps:
            assert watch.gap_s(0.0) == gap
            watch.note(0.0, Finding.NOTHING)


def test_values_without_a_policy_mean_backoff() -> None:
    """The article's readers wrote them before there was a choice."""
    assert Polling().policy == "learned"
    assert Polling(initial_s=2.0).policy == "backoff"
    assert Polling(policy="fixed", initial_s=60.0).policy == "fixed"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"policy": "often"}, "polling.policy: 'often' must be one of learned, backoff, fixed"),
        ({"policy": "learned", "factor": 2}, "polling.factor: learned does not go by it"),
        ({"policy": "learned", "initial_s": 2}, "polling.initial_s: learned does not go by it"),
        ({"policy": "fixed", "maximum_s": 9}, "polling.maximum_s: fixed does not go by it"),
        ({"initial_s": 40}, "polling.maximum_s: 30 is less than initial_s"),
        ({"speed": 0}, "polling.speed: 0 must be a number"),
    ],
)
def test_no_value_is_accepted_and_ignored(values: dict[str, Any], names: str) -> None:
    """What a policy does not go by is an error that says so."""
    with pytest.raises(UsageError, match=names):
        Polling(**values)


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
