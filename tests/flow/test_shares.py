"""Several workers within one window: within it together, by demand, and never starved for long."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Answer, AnswerKind, Limiter, News, Windows
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.shares import Demand, level, share_of
from asyncpipe.flow.window import Window
from asyncpipe.jobs import Limits

demands = st.lists(
    st.builds(Demand, st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6
)


@given(demands, st.integers(0, 60))
def test_all_shares_are_within_the_window(workers: list[Demand], size: int) -> None:
    """Nobody is let to more than it wants; what is beyond the window only shrinks."""
    shares = [share_of(size, workers, n) for n in range(len(workers))]
    fits = sum(each.in_flight for each in workers) <= size
    assert all(share <= each.wanted for share, each in zip(shares, workers, strict=True))
    if fits:
        assert sum(shares) == min(size, sum(each.wanted for each in workers)) or any(
            share < each.in_flight for share, each in zip(shares, workers, strict=True)
        )
        assert sum(shares) <= size
    for share, each in zip(shares, workers, strict=True):
        assert share <= max(each.in_flight, size)


def test_places_go_by_demand() -> None:
    """Who wants little gets it, the rest is parted evenly; the odd place is the first one's."""
    assert level([100, 3, 100], 26) == [12, 3, 11]
    assert level([1, 1, 1, 1], 2) == [1, 1, 0, 0]
    assert level([], 5) == []
    assert level([0, 9], 5) == [0, 5]


def test_who_comes_later_gets_its_share_as_places_end() -> None:
    """26 places, one worker has all of them: each second a few end, soon they are even."""
    rng, in_flight = Random(1), [26, 0, 0, 0]
    for _ in range(30):
        workers = [Demand(each, 50) for each in in_flight]
        shares = [share_of(26, workers, n) for n in range(4)]
        in_flight = [max(have - rng.randint(0, 3), 0) for have in in_flight]
        in_flight = [max(have, share) for have, share in zip(in_flight, shares, strict=True)]
        assert sum(in_flight) <= 26
    assert sorted(in_flight) == [6, 6, 7, 7]


def test_a_window_counts_what_others_have_in_flight() -> None:
    """Its limit is met by all together, and a refusal is judged by what all have in flight."""
    window = Window(26, learned=False)
    window.shared(others=20, taken=20, share=5)
    for _ in range(5):
        assert not window.full
        window.taken(window.admitted(), 0.0)
    assert window.full, "that is our share"
    assert window.most == 25
    window.shared(others=21, taken=21, share=9)
    assert window.full, "the others have taken what was free"
    window.shared(others=18, taken=18, share=9)
    assert not window.full


def test_a_limit_that_another_met_is_believed_where_none_is_known() -> None:
    """And not where a limit of our own was met."""
    window = Window(100)
    window.hear(26)
    assert window.found == 26
    window.hear(12)
    assert window.found == 26


def test_a_limit_met_before_others_were_known_is_corrected() -> None:
    """Four begin at once and each meets it at its own level: together they have more."""
    window = Window(100)
    for _ in range(6):
        window.taken(window.admitted(), 0.0)
    for n in range(9):
        window.refused(window.admitted(), float(n))
    assert window.found == 6
    window.shared(others=20, taken=19, share=6)
    assert (window.found, window.size) == (25, 25)


def test_a_worker_begins_with_none_until_it_has_told_the_others() -> None:
    """Alone on a ledger it has done so within two seconds; unshared, it begins as ever."""
    shared = Windows(max_workers=64, limits=Limits(), shared=True, kept={}).of("m")
    alone = Windows(max_workers=64, limits=Limits(), kept={}).of("m")
    for window, most in ((shared, 0), (alone, 4)):
        while not window.full:
            window.admitted()
        assert window.in_flight == most


def test_workers_who_take_nothing_see_the_window_grow_all_the_same() -> None:
    """Their shares are of the same window: who has not begun would else have none of it."""
    windows = [Window(100) for _ in range(4)]
    in_flight = [0, 0, 0, 0]
    for _ in range(16):
        demands = [Demand(each, 50) for each in in_flight]
        for n, window in enumerate(windows):
            others = sum(in_flight) - in_flight[n]
            window.shared(others=others, taken=others, share=share_of(window.size, demands, n))
        for n, window in enumerate(windows):
            while not window.full:
                window.taken(window.admitted(), 0.0)
            in_flight[n] = window.in_flight
    assert sum(in_flight) > 40
    assert max(in_flight) - min(in_flight) <= 1


def a_limiter(clock: list[float], limits: Limits | None = None) -> Limiter:
    limits = limits or Limits(models={"m": 5}, window="fixed")
    learned = limits.window == "learned"
    windows = Windows(max_workers=64, limits=limits, learned=learned, shared=True, kept={})
    gate = Gate(Pace(cap=10.0), clock=lambda: clock[0])
    return Limiter(gate, Random(1), windows.of, workers=64)


def test_what_one_worker_meets_the_others_feel() -> None:
    """The pause after a refusal, the limit that was met, and the part of the user's own rate."""
    clock = [0.0]
    one, other = (a_limiter(clock, Limits(window="learned")) for _ in range(2))
    one.hear([{}], 0, {"m": 50})
    for _ in range(4):
        one.to_submit("m").answered(Answer(AnswerKind.TAKEN))
        one.hear([{}], 0, {"m": 50})
    for _ in range(9):
        one.to_submit("m").answered(Answer(AnswerKind.LIMITED, 30.0))
        clock[0] += 1.0
    assert other.of("m").pause.until == 0.0
    other.hear([one.news({"m": 50}), {}], 1, {"m": 50})
    known = other.of("m").window
    assert known.found == one.of("m").window.found == 4
    assert known.others == 4
    assert other.of("m").pause.until > clock[0] + 20.0
    assert other.gate.pace.limit == 5.0


def test_no_order_of_telling_and_hearing_exceeds_the_window() -> None:
    """Workers come, have jobs and run out of them; each tells, then hears, when it likes."""
    for seed in range(60):
        rng, n = Random(seed), 4
        workers = [a_limiter([0.0]) for _ in range(n)]
        told: list[dict[str, News]] = [{} for _ in range(n)]
        waiting = [0] * n
        for _ in range(200):
            k = rng.randrange(n)
            window = workers[k].of("m").window
            waiting[k] = max(waiting[k] + rng.choice([-3, 0, 2, 9]), 0)
            if rng.random() < 0.6:
                told[k] = workers[k].news({"m": waiting[k]})
                workers[k].hear(told, k, {"m": waiting[k]})
            while waiting[k] and not window.full:
                window.taken(window.admitted(), 0.0)
                waiting[k] -= 1
            for _ in range(rng.randint(0, window.in_flight)):
                window.ended()
            assert sum(each.of("m").window.in_flight for each in workers) <= 5, seed
