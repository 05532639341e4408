"""What a policy of polling is asked: one watch per prediction, gaps in, findings out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from asyncpipe.jobs.job import Job


class Found(Enum):
    """What a poll found out about a prediction's age at its end."""

    RUNNING = "running"
    ENDED = "ended"
    NOTHING = "nothing"


class Watch(Protocol):
    """When to poll one prediction; ages and gaps in seconds of our clock."""

    def gap_s(self, age_s: float) -> float:
        """How long to wait from ``age_s``, just polled or just submitted, to the next poll."""

    def note(self, age_s: float, found: Found) -> None:
        """Take what the poll answered at ``age_s`` found."""


class Watches(Protocol):
    """A policy: makes the watches."""

    def watch(self, job: Job, *, resumed: bool = False) -> Watch:
        """The watch of a prediction of ``job``; ``resumed``: an earlier run submitted it."""


@dataclass(slots=True)
class CountedWatch:
    """Gaps by the number of polls alone."""

    gap_after: Callable[[int], float]
    polls: int = 0

    def gap_s(self, age_s: float) -> float:
        """How long to wait for the next poll."""
        return self.gap_after(self.polls)

    def note(self, age_s: float, found: Found) -> None:
        """Count a poll."""
        self.polls += 1


@dataclass(frozen=True, slots=True)
class Counted:
    """A policy that goes by the number of polls: backoff, fixed."""

    gap_after: Callable[[int], float]

    def watch(self, job: Job, *, resumed: bool = False) -> CountedWatch:
        """The watch of one prediction."""
        return CountedWatch(self.gap_after)
