"""How long predictions take: learned by polling them, kept from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from asyncpipe.flow.learned import Latency, Learned
from asyncpipe.flow.polls import watches_of
from asyncpipe.flow.watch import Watches
from asyncpipe.jobs.settings import Polling
from asyncpipe.memory import Memory

LATENCY = "latency"
"""The subject of the memory that holds them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """One run's policy of polling, and the memory that what it learns goes to."""

    polls: Watches
    memory: Memory | None

    def keep(self) -> None:
        """Keep what was learned for the next run; never raises."""
        if self.memory is not None and isinstance(self.polls, Learned):
            self.memory.save(self.polls.lessons())

    def of(self, model: str) -> Latency | None:
        """How long a prediction of ``model`` takes; None where too little is known."""
        return self.polls.latency(model, {}) if isinstance(self.polls, Learned) else None


def latencies_of(
    polling: Polling, memory: Memory | None, rng: Random, *, tail: Callable[[], bool]
) -> Latencies:
    """The policy that ``polling`` names, with what earlier runs learned.

    ``tail`` says whether nothing waits to be submitted.
    """
    kept = memory.load() if memory else None
    return Latencies(polls=watches_of(polling, rng, tail=tail, kept=kept), memory=memory)


def recall(memory: Memory | None) -> Callable[[str, Mapping[str, Any]], Latency | None]:
    """What a memory holds: a model and a job's parameters to its times."""
    kept = memory.load() if memory else {}
    return Learned(Polling(policy="learned"), Random(), bool, kept).latency
