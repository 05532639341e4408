"""When to poll next, and when the deadline is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Protocol

from asyncpipe.jobs import Job, Polling

JITTER = 0.1
"""Every gap is stretched or shrunk by up to this share, so that jobs do not poll in step."""

WARM_UP_S = 30.0
"""How long after submit a provider may not know its own prediction."""


def poll_gap(polling: Polling, polls: int, rng: Random) -> float:
    """Seconds to wait after ``polls`` polls: initial x factor^polls, capped, jittered.

    In seconds of the provider, like all of ``polling``.
    """
    try:
        gap = polling.initial_s * math.pow(polling.factor, polls)
    except OverflowError:
        gap = polling.maximum_s
    return min(gap, polling.maximum_s) * rng.uniform(1 - JITTER, 1 + JITTER)


def fixed_gap(polling: Polling, polls: int, rng: Random) -> float:
    """Seconds to wait, the same after every poll, jittered."""
    return polling.initial_s * rng.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True, kw_only=True, slots=True)
class PollClock:
    """One prediction's deadline on the loop's clock.

    ``due`` never passes the deadline before it has been looked at once: the last poll is at the
    deadline itself, and a prediction resumed after it is polled once all the same.
    """

    started: float
    deadline_s: float

    def due(self, now: float, gap: float) -> float:
        """The time of the next poll, ``gap`` seconds from ``now`` or at the deadline."""
        return min(now + gap, self.end) if now < self.end else now

    @property
    def end(self) -> float:
        """When the deadline passes."""
        return self.started + self.deadline_s

    def expired(self, now: float) -> bool:
        """Whether a poll that was answered at ``now`` was the last."""
        return now >= self.end


@dataclass(slots=True)
class Trouble:
    """What a prediction's latest polls had in common, so that one odd answer decides nothing."""

    kind: str | None = None
    since: float = 0.0
    count: int = 0

    def note(self, kind: str | None, now: float) -> None:
        """Take the next poll; None: nothing was odd about it."""
        if kind != self.kind:
            self.kind, self.since, self.count = kind, now, 0
        self.count += 1

    def lasts(self, now: float, deadline_s: float) -> bool:
        """Whether it has gone on for WARM_UP_S and three polls; sooner with a short deadline."""
        long_enough = now - self.since >= min(WARM_UP_S, deadline_s / 10)
        return self.kind is not None and self.count >= 3 and long_enough


class Finding(Enum):
    """What a poll found out about a prediction's age at its end."""

    RUNNING = "running"
    ENDED = "ended"
    NOTHING = "nothing"


def backstop_gap_s(
    gap_s: float, last: Finding | None, *, backstop_s: float | None, heard: bool
) -> float:
    """How long to wait for the next poll of a prediction whose end is called back.

    ``gap_s`` is what the policy waits, ``last`` what the last poll found (None: none yet),
    ``backstop_s`` the least gap meanwhile (None: it is not called back). Once a delivery was
    ``heard``, or a poll did not simply find it running, the policy's own gaps count.
    """
    if backstop_s is None or heard or last not in (None, Finding.RUNNING):
        return gap_s
    return max(gap_s, backstop_s)


class PollSchedule(Protocol):
    """When to poll one prediction; ages and gaps in seconds of our clock."""

    def gap_s(self, age_s: float) -> float:
        """How long to wait from ``age_s``, just polled or just submitted, to the next poll."""

    def note(self, age_s: float, found: Finding) -> None:
        """Take what the poll answered at ``age_s`` found."""


class PollPolicy(Protocol):
    """A policy: makes the watches."""

    def watch(self, job: Job, *, resumed: bool = False) -> PollSchedule:
        """The watch of a prediction of ``job``; ``resumed``: an earlier run submitted it."""


@dataclass(slots=True)
class BackoffSchedule:
    """Gaps by the number of polls alone."""

    gap_after: Callable[[int], float]
    polls: int = 0

    def gap_s(self, age_s: float) -> float:
        """How long to wait for the next poll."""
        return self.gap_after(self.polls)

    def note(self, age_s: float, found: Finding) -> None:
        """Count a poll."""
        self.polls += 1


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """A policy that goes by the number of polls: backoff, fixed."""

    gap_after: Callable[[int], float]

    def watch(self, job: Job, *, resumed: bool = False) -> BackoffSchedule:
        """The watch of one prediction."""
        return BackoffSchedule(self.gap_after)
