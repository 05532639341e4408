"""How long predictions take: learned by polling them, kept from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from asyncpipe.flow import learned
from asyncpipe.flow.learned import Learned
from asyncpipe.flow.polls import watches_of
from asyncpipe.flow.watch import Watches
from asyncpipe.memory import Memory, memory_of
from asyncpipe.providers.base import Provider
from asyncpipe.settings import Polling

SUBJECT = "latency"
"""The subject of the memory that holds them."""

Span = tuple[float, float]
"""By when half of the predictions have ended, and by when nine in ten, in seconds from submit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """One run's policy of polling, and the memory that what it learns goes to."""

    polls: Watches
    memory: Memory | None

    def keep(self) -> None:
        """Keep what was learned for the next run; never raises."""
        if self.memory is not None and isinstance(self.polls, Learned):
            self.memory.save(self.polls.lessons())

    def expected_s(self, model: str, params: Mapping[str, Any]) -> Span | None:
        """How long a prediction takes; None where too little is known."""
        if isinstance(self.polls, Learned):
            return self.polls.expected_s(model, params)
        return None


def latencies_of(
    polling: Polling, provider: Provider, rng: Random, *, tail: Callable[[], bool]
) -> Latencies:
    """The policy that ``polling`` names, with what earlier runs at ``provider`` learned.

    ``tail`` says whether nothing waits to be submitted.
    """
    memory = memory_of(provider, SUBJECT)
    kept = memory.load() if memory else None
    return Latencies(polls=watches_of(polling, rng, tail=tail, kept=kept), memory=memory)


def expected_s(provider: Provider, model: str, params: Mapping[str, Any]) -> Span | None:
    """How long a prediction takes by what earlier runs learned; None where too little is known."""
    memory = memory_of(provider, SUBJECT)
    return learned.expected_s(memory.load(), model, params) if memory else None
