"""Trying again: how often, how long between, and what is never tried twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe._tasks import ONCE_MORE_S, Retries, once_more, retrying
from asyncpipe.errors import KeyRefused, NotAccepted, ProviderError, RateLimited, Rejected
from asyncpipe.testing import run_virtual

FIVE = Retries(attempts=5, initial_s=2.0, maximum_s=8.0, longest_wish_s=60.0)


class Scripted:
    """Raises or returns what the script says, in turn, and notes when."""

    def __init__(self, *script: Exception | str) -> None:
        self._script = list(script)
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(asyncio.get_running_loop().time())
        said = self._script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    @property
    def pauses(self) -> list[float]:
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def run(ask: Scripted, **options: Any) -> str:
    return run_virtual(retrying(ask, FIVE, on=NotAccepted, rng=Random(1), **options))


@given(
    failures=st.integers(1, 10_000),
    wish_s=st.none() | st.floats(0, 1e9),
    seed=st.integers(),
)
def test_a_pause_is_within_its_bounds(failures: int, wish_s: float | None, seed: int) -> None:
    """Half to all of the doubled pause, stretched by a wish up to the longest; none after all."""
    pause_s = FIVE.pause_s(failures, Random(seed), wish_s)
    if failures >= 5:
        assert pause_s is None
        return
    assert pause_s is not None
    whole = min(2.0 * 2 ** (failures - 1), 8.0)
    least = min(wish_s or 0.0, 60.0)
    assert max(whole / 2, least) <= pause_s <= max(whole, least)


def test_what_fails_is_tried_again_after_a_pause() -> None:
    """Twice as long each time; what comes at last is returned."""
    ask = Scripted(*[NotAccepted("no")] * 4, "yes")
    assert run(ask) == "yes"
    for pause_s, whole in zip(ask.pauses, [2.0, 4.0, 8.0, 8.0], strict=True):
        assert whole / 2 <= pause_s <= whole


def test_the_last_error_is_raised_without_a_pause_behind_it() -> None:
    """Its own, not the first one's; nobody waits for nothing."""
    errors = [NotAccepted(str(n)) for n in range(5)]
    ask = Scripted(*errors, "never asked for")
    with pytest.raises(NotAccepted, match="4"):
        run(ask)
    assert len(ask.times) == 5


@pytest.mark.parametrize(
    ("again", "errors"), [(None, [KeyError("bug")]), (lambda _: False, [NotAccepted("for good")])]
)
def test_what_would_not_help_is_not_tried(
    again: Callable[[Exception], bool] | None, errors: Sequence[Exception]
) -> None:
    """Errors of another kind, and those that the caller says so of."""
    ask = Scripted(*errors, "never asked for")
    with pytest.raises(type(errors[0])):
        run(ask, **({"again": again} if again else {}))
    assert len(ask.times) == 1


def test_a_wish_to_wait_is_heeded_within_reason() -> None:
    """Longer than our own pause: as told; longer than what is waited for: cut to that."""
    ask = Scripted(RateLimited("", retry_after_s=30), RateLimited("", retry_after_s=1e6), "yes")
    assert run(ask) == "yes"
    assert ask.pauses == [30.0, 60.0]


def test_between_two_tries_the_caller_may_do_something_and_shorten_the_pause() -> None:
    told: list[tuple[str, int]] = []

    async def between(error: NotAccepted, failures: int, pause_s: float) -> float:
        told.append((str(error), failures))
        return 0.0

    ask = Scripted(NotAccepted("a"), NotAccepted("b"), "yes")
    assert run(ask, between=between) == "yes"
    assert (told, ask.pauses) == ([("a", 1), ("b", 2)], [0.0, 0.0])


def test_who_is_cancelled_while_waiting_tries_no_more() -> None:
    """A cancellation is neither caught nor delayed."""
    ask = Scripted(NotAccepted("no"), "never asked for")

    async def main() -> None:
        async with asyncio.timeout(0.5):
            await retrying(ask, FIVE, on=NotAccepted, rng=Random(1))

    with pytest.raises(TimeoutError):
        run_virtual(main())
    assert len(ask.times) == 1


@pytest.mark.parametrize(
    "slip",
    [
        KeyRefused("no"),
        ProviderError("unauthorized", status=401),
        ProviderError("a firewall's page", status=403),
    ],
)
def test_a_refused_key_is_asked_once_more_and_no_oftener(slip: ProviderError) -> None:
    """One slip of a gateway says nothing; the same twice is the truth."""
    ask = Scripted(slip, "done")
    assert run_virtual(once_more(ask)) == "done"
    assert ask.pauses == [ONCE_MORE_S]
    ask = Scripted(slip, slip, "done")
    with pytest.raises(ProviderError) as caught:
        run_virtual(once_more(ask))
    assert (caught.value, len(ask.times)) == (slip, 2)


@pytest.mark.parametrize(
    "error",
    [Rejected("this model is not for you", status=403), ProviderError("not there", status=404)],
)
def test_what_does_not_speak_of_the_key_is_asked_once(error: ProviderError) -> None:
    ask = Scripted(error, "done")
    with pytest.raises(type(error)):
        run_virtual(once_more(ask))
    assert len(ask.times) == 1
