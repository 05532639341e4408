"""Windows at their boundaries, without a loop."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Limiter, Windows, lessons
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.window import (
    CUT,
    GROWTH,
    LOOK_S,
    LOOK_SUBMITS,
    START,
    STRIDE,
    SUSPECT,
    Window,
)
from asyncpipe.jobs.settings import Limits
from asyncpipe.report.summary import summary
from asyncpipe.report.totals import Totals


def fill(window: Window, *, limit: int = 10**9, now: float = 0.0) -> int:
    """Submit in bursts until the window is full or met a limit; returns how many were refused."""
    refused = 0
    while not window.full and not (refused and (window.found or not window.learned)):
        burst = [window.admitted() for _ in range(window.size - window.in_flight)]
        for episode in burst:
            if window.running < limit:
                window.taken(episode, now)
            else:
                window.refused(episode, now)
                refused += 1
    return refused


def suspect(window: Window) -> None:
    """Refuse as many as may be by chance."""
    for _ in range(SUSPECT):
        window.refused(window.admitted(), 0.0)


def turn_over(window: Window, times: int, *, limit: int = 10**9, now: float = 0.0) -> int:
    """End predictions one by one and submit others in their place; returns the refused."""
    refused = 0
    for _ in range(times):
        if window.running:
            window.ended()
        while not window.full:
            episode = window.admitted()
            if window.running < limit:
                window.taken(episode, now)
            else:
                window.refused(episode, now)
                refused += 1
                break
    return refused


def test_a_window_starts_small_and_grows_with_what_is_in_flight() -> None:
    """Half as much again each time, at most STRIDE more; never beyond the ceiling."""
    window = Window(100)
    assert window.size == START
    sizes = []
    while window.size < 100:
        burst = [window.admitted() for _ in range(window.size - window.in_flight)]
        assert window.full
        for episode in burst:
            window.taken(episode, 0.0)
        sizes.append(window.size)
    assert sizes == [6, 9, 13, 19, 28, 42, 63, 94, 100]
    assert window.size == 100
    big = Window(10_000)
    for _ in range(400):
        big.taken(big.admitted(), 0.0)
    assert big.size == 400 + STRIDE


def test_a_window_that_is_not_full_does_not_grow() -> None:
    """One at a time proves nothing about two."""
    window = Window(64)
    for _ in range(1_000):
        window.taken(window.admitted(), 0.0)
        window.ended()
    assert window.size == START


def test_a_burst_of_refusals_cuts_once() -> None:
    """However many of the submits that left together are refused."""
    window = Window(64)
    for episode in [window.admitted() for _ in range(12)]:
        window.taken(episode, 0.0)
    suspect(window)
    assert (window.found, window.size) == (None, int(GROWTH * 12))
    for episode in [window.admitted() for _ in range(8)]:
        window.refused(episode, 0.0)
    assert (window.found, window.size) == (12, int(CUT * 12))
    late = Window(64)
    late.taken(late.admitted(), 0.0)
    suspect(late)
    burst = [late.admitted() for _ in range(20)]
    late.refused(burst[0], 0.0)
    for episode in burst[1:13]:  # their answers were on the way: the limit is not at 1
        late.taken(episode, 0.0)
    assert late.found == 13
    known = Window(64)
    known.recall(20)
    fill(known)
    for _ in range(3):
        known.ended()
    for episode in [known.admitted() for _ in range(3)]:
        known.refused(episode, 0.0)
    assert (known.found, known.size) == (17, 17)


def test_after_a_cut_a_window_returns_to_the_limit_and_stays_there() -> None:
    """One more per submit that is taken, until it is as large as what was found."""
    window = Window(64)
    assert fill(window, limit=20) > 0
    assert (window.found, window.size) == (20, 15)
    turn_over(window, 11, limit=20)
    assert window.size == 20
    assert turn_over(window, 60, limit=20) == 0


def test_a_cut_window_grows_only_when_it_was_full() -> None:
    """One at a time says nothing about fifteen."""
    window = Window(64)
    fill(window, limit=20)
    while window.running:
        window.ended()
    for step in range(200):
        window.taken(window.admitted(), float(step))
        window.ended()
    assert window.size == 15


def test_a_known_limit_is_looked_above_rarely() -> None:
    """At most 2 % of the submits after the first minute are refused, over thousands of them."""
    for limit in (4, 8, 26, 100):
        window, refused, count = Window(256), 0, 0
        fill(window, limit=limit)
        for step in range(6_000):
            now = step * 0.5
            before = turn_over(window, 1, limit=limit, now=now)
            refused += before if now > 60 else 0
            count += now > 60
        assert window.found == limit
        assert 0 < refused <= 0.02 * count, limit


def test_the_first_look_waits_and_later_ones_wait_longer() -> None:
    """LOOK_S, then twice that … and LOOK_SUBMITS between two once a few were refused."""
    window = Window(256)
    fill(window, limit=8)
    looks: list[float] = []
    now = 0.0
    while len(looks) < 6:
        now += 1.0
        if turn_over(window, 1, limit=8, now=now):
            looks.append(now)
    gaps = [later - sooner for sooner, later in zip([0.0, *looks], looks, strict=False)]
    assert LOOK_S <= gaps[0] <= LOOK_S + 12
    assert gaps[1] >= 2 * LOOK_S
    assert gaps[2] >= 4 * LOOK_S
    assert all(gap >= LOOK_SUBMITS for gap in gaps[3:])


def test_a_limit_that_is_raised_is_followed() -> None:
    """Looks that are taken go further each time."""
    window = Window(256)
    fill(window, limit=8)
    turn_over(window, 50, limit=8)
    for step in range(600):
        turn_over(window, 1, limit=200, now=100.0 + step)
    assert window.running >= 180


def test_a_limit_that_is_lowered_is_followed_with_few_refusals() -> None:
    """From 200 to 10: cut after cut, each at the cost of one submit or two."""
    window = Window(256)
    fill(window, limit=200)
    refused = sum(turn_over(window, 1, limit=10, now=float(step)) for step in range(400))
    assert window.found == 10
    assert refused <= 30


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.15])
def test_refusals_at_random_do_not_shut_a_window(share: float) -> None:
    """So many submits are refused whatever is in flight: that is no limit of ours."""
    rng, window, sizes = Random(3), Window(64), []
    for step in range(4_000):
        if window.running and (window.full or rng.random() < 0.5):
            window.ended()
        while not window.full:
            episode = window.admitted()
            if rng.random() < share:
                window.refused(episode, step * 1.0)
                break
            window.taken(episode, step * 1.0)
        sizes.append(window.running)
    assert sum(sizes[1_000:]) / 3_000 > 30


def test_a_real_limit_is_noticed_again_after_refusals_at_random() -> None:
    """Refused time after time with nothing taken between: the window closes."""
    window = Window(64)
    fill(window, limit=40)
    for step in range(200):
        turn_over(window, 1, limit=40 if step % 6 else 0, now=step * 1.0)
    assert turn_over(window, 600, limit=5, now=900.0) < 60
    assert window.size <= 10


def test_nothing_in_flight_proves_nothing() -> None:
    """A refusal with nothing of ours in flight is somebody else's limit, or a rate."""
    window = Window(64)
    for _ in range(50):
        window.refused(window.admitted(), 0.0)
    assert (window.found, window.size) == (None, START)


def test_answers_that_come_with_the_end_count_as_worked_on() -> None:
    """Where a submit is answered when it is done, those that wait are in flight."""
    window = Window(64)
    for _ in range(60):
        burst = [window.admitted() for _ in range(window.size - window.in_flight)]
        for episode in burst:
            window.taken(episode, 0.0, final=True)
            window.ended()
    assert window.size == 64


def test_a_fixed_window_learns_nothing() -> None:
    """``window: fixed``: the ceiling, whatever is refused."""
    window = Window(32, learned=False)
    fill(window, limit=8)
    assert (window.size, window.found) == (32, None)


def test_a_window_begins_below_what_an_earlier_run_met() -> None:
    """And gets there in one round; a kept entry that makes no sense is none."""
    windows = Windows(max_workers=64, limits=Limits(models={"m/b": 4}), kept={"m/a": {"found": 24}})
    window = windows.of("m/a")
    assert (window.size, window.found) == (18, 24)
    fill(window, limit=30)
    assert window.running == 24
    assert windows.of("m/b").size == windows.of("m/c").size == START
    assert windows.of("m/b").ceiling == 4
    kept: list[Any] = [{"found": 0}, {"found": "9"}, {"found": True}, [], None, 7]
    for nonsense in kept:
        odd = Windows(max_workers=64, limits=Limits(), kept={"m/a": nonsense})
        assert odd.of("m/a").found is None


def test_only_limits_that_were_met_are_kept() -> None:
    """What was recalled and never met again keeps the date it had."""
    met, recalled, free = Window(64), Window(64), Window(64)
    fill(met, limit=20)
    recalled.recall(10)
    fill(free)
    windows = {"met": met, "recalled": recalled, "free": free}
    gate = Gate(Pace(), clock=lambda: 0.0)
    known = Limiter(gate, Random(1), windows.__getitem__, workers=9)
    for model in windows:
        known.of(model)
    assert lessons(known.limited) == {"met": {"found": 20, "most": 20}}
    lines = summary(Totals(), elapsed_s=1, manifest="m", simulated=False, windows=known.limited)
    assert "    met   up to 20 in flight, limit found at 20" in lines


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200), st.integers(1, 40))
def test_a_window_is_never_below_one_nor_above_its_ceiling(
    steps: list[tuple[int, bool]], ceiling: int
) -> None:
    """Whatever is answered, in whatever order; and what it counts never falls below nothing."""
    window, out, now = Window(ceiling), [], 0.0
    for kind, flag in steps:
        now += 7.0
        if kind <= 1 and not window.full:
            out.append(window.admitted())
        elif kind == 2 and out:
            window.taken(out.pop(-1 if flag else 0), now, final=False)
        elif kind == 3 and out:
            window.refused(out.pop(-1 if flag else 0), now)
        elif kind == 4 and out:
            window.failed()
            out.pop()
        elif kind == 5 and window.running:
            window.ended() if flag else window.forgive(now - 10.0)
        assert 1 <= window.size <= ceiling
        assert window.running >= 0
        assert window.in_flight == window.running + len(out)


def test_a_limit_that_was_met_too_high_is_followed_down() -> None:
    """What had ended unseen counted as in flight: that it is met again below is no chance."""
    window = Window(256)
    fill(window, limit=45)
    assert window.found == 45
    for level in (44, 38, 35, 33, 30, 27):
        turn_over(window, 40)
        while window.running > level:
            window.ended()
        window.refused(window.admitted(), 0.0)
        assert window.found == level


def test_a_window_shut_by_chance_opens_again() -> None:
    """Refused three times at one in flight, then never again: not after a hundred jobs only."""
    window, refusals, steps = Window(64), 4, 0
    while window.running < 16 and steps < 400:
        steps += 1
        for _ in range(window.running):
            window.ended()
        while not window.full:
            alone = window.in_flight == 0
            episode = window.admitted()
            if refusals and not alone:
                refusals -= 1
                window.refused(episode, steps * 12.0)
                break
            window.taken(episode, steps * 12.0)
    assert steps < 60
