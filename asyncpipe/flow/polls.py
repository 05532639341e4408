"""The policies of polling, chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from asyncpipe.flow.learned import Learned
from asyncpipe.flow.schedule import fixed_gap, poll_gap
from asyncpipe.flow.watch import Counted, Watches
from asyncpipe.jobs.settings import Polling


def watches_of(
    polling: Polling,
    rng: Random,
    *,
    tail: Callable[[], bool],
    kept: Mapping[str, Any] | None = None,
) -> Watches:
    """The policy that ``polling`` names; ``tail`` and ``kept`` are for the learned one."""
    if polling.policy == "learned":
        return Learned(polling, rng, tail, kept)
    gap = fixed_gap if polling.policy == "fixed" else poll_gap
    return Counted(lambda polls: gap(polling, polls, rng) / polling.speed)
