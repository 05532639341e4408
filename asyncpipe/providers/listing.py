"""What reading a provider's list of predictions takes, whatever its pages look like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar

from asyncpipe._tasks import Retries, once_more, retrying
from asyncpipe.errors import PollFailed, ProviderError
from asyncpipe.http import HttpAnswer

P = TypeVar("P")

RETRIES = Retries(attempts=4, initial_s=1.0)
"""How often one page is asked for when the API is busy or failing."""

LONGEST_WAIT_S = 60.0
"""The longest Retry-After that is waited for within one reading."""

ORDER_SLACK = timedelta(seconds=120)
"""Rows this much out of order are still newest first: several machines wrote them."""

MOST_PAGES = 10_000

NO_LIST = frozenset({401, 403, 404, 405, 410, 501})
"""Answers of an API that lists nothing for this key."""


class Lister(Protocol):
    """What is asked: a provider, or a test's stand-in."""

    async def ask_history(self, query: str) -> HttpAnswer:
        """Ask for one page; raises PollFailed without an answer."""


async def surely(once: Callable[[], Awaitable[P]]) -> P:
    """Ask for a page, again where the API is busy or failing, or one slip refuses the key."""
    asking = partial(once_more, once, pause_s=1.0)
    return await retrying(asking, RETRIES, on=PollFailed, again=_soon)


def _soon(error: PollFailed) -> bool:
    return (error.retry_after_s or 0.0) <= LONGEST_WAIT_S


def nonsense(why: str) -> ProviderError:
    """The error of a list that has a hole, whatever it shows."""
    return ProviderError(f"the list of predictions proves nothing: {why}")
