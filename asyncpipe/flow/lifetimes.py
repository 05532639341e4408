"""How long predictions of one kind take, learned from what polls find."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

FIRST_S = 0.5

LAST_S = 1800.0

BINS = 128

_STEP = math.log(LAST_S / FIRST_S) / (BINS - 1)

EDGES = (0.0, *(FIRST_S * math.exp(_STEP * n) for n in range(BINS)))
"""The ages in seconds that lie between bins: a first bin from 0, then equal steps of log time."""

PRIOR_JOBS = 2.0

_PRIOR_MEDIAN_S = 20.0

_PRIOR_SIGMA = 1.3
"""What is believed before anything is seen: two predictions of a very broad law."""

_WIDTH = 0.4
"""How far a life table is smoothed, in standard deviations of one prediction among n, n^-1/5."""


def position(age_s: float) -> float:
    """Where an age lies on the grid: number of its bin and the fraction in it, from 0 to BINS."""
    if age_s <= FIRST_S:
        return max(age_s, 0.0) / FIRST_S
    return min(1.0 + math.log(age_s / FIRST_S) / _STEP, float(BINS))


@dataclass(frozen=True, slots=True)
class Distribution:
    """A law: the share ``alive`` at each of EDGES, the ``chance`` to end in each bin between.

    ``moment`` is the part of the mean that comes from ends up to each edge, in seconds.
    """

    alive: Sequence[float]
    chance: Sequence[float]
    moment: Sequence[float]

    def quantile(self, share: float) -> float:
        """The age in seconds by which ``share`` of the predictions have ended; at most LAST_S."""
        n = bisect_left(self.alive, share - 1.0, key=lambda alive: -alive)
        if n > BINS:
            return LAST_S
        if n == 0:
            return 0.0
        before, after = self.alive[n - 1], self.alive[n]
        part = (before - (1.0 - share)) / (before - after)
        return EDGES[n - 1] + part * (EDGES[n] - EDGES[n - 1])

    def hazard_to(self, age_s: float) -> float:
        """How many ends one prediction is expected to have come to by an age: -log(alive)."""
        place = position(age_s)
        n = min(int(place), BINS - 1)
        alive = self.alive[n] + (place - n) * (self.alive[n + 1] - self.alive[n])
        return -math.log(max(alive, 1e-12))


def shape_of(ends: Sequence[float], exposure: Sequence[float]) -> Distribution:
    """The law that a life table tells: by bin, how many ended and how many were at risk of it.

    Where few were seen it is smoothed over neighbouring bins, and the prior speaks.
    """
    raw = _table(ends, exposure)
    seen = sum(ends)
    if seen <= 0:
        return raw
    width = round(_WIDTH * _deviation(raw.chance) * seen**-0.2)
    return _table(_smooth(ends, width), _smooth(exposure, width)) if width else raw


def _prior() -> tuple[list[float], list[float]]:
    """Ends and exposure by bin of PRIOR_JOBS predictions of the broad law."""
    left = [PRIOR_JOBS, *(PRIOR_JOBS * _prior_alive(edge) for edge in EDGES[1:])]
    ends = [a - b for a, b in pairwise(left)]
    return ends, [b + e / 2 for b, e in zip(left[1:], ends, strict=True)]


def _prior_alive(age_s: float) -> float:
    z = math.log(age_s / _PRIOR_MEDIAN_S) / _PRIOR_SIGMA
    return math.erfc(z / math.sqrt(2.0)) / 2


_PRIOR = tuple(zip(*_prior(), strict=True))


def _table(ends: Sequence[float], exposure: Sequence[float]) -> Distribution:
    alive, chances, moment = [1.0], [], [0.0]
    for n, (prior_ends, prior_exposure) in enumerate(_PRIOR):
        rate = (ends[n] + prior_ends) / (exposure[n] + prior_exposure)
        chance = alive[-1] * -math.expm1(-rate)
        chances.append(chance)
        alive.append(alive[-1] - chance)
        moment.append(moment[-1] + chance * (EDGES[n] + EDGES[n + 1]) / 2)
    # Arrays: hundreds of models keep one each, and a float of its own is three times as large.
    return Distribution(array("d", alive), array("d", chances), array("d", moment))


def _deviation(chance: Sequence[float]) -> float:
    """The standard deviation in bins; what never ends counts nowhere."""
    total = sum(chance)
    mean = sum(n * p for n, p in enumerate(chance)) / total
    return math.sqrt(sum((n - mean) ** 2 * p for n, p in enumerate(chance)) / total)


def _smooth(values: Sequence[float], width: int) -> Sequence[float]:
    """Average over ``width`` bins to either side, twice."""
    for _ in range(2):
        sums = [0.0]
        for value in values:
            sums.append(sums[-1] + value)
        bounds = [(max(n - width, 0), min(n + width + 1, BINS)) for n in range(BINS)]
        values = [(sums[high] - sums[low]) / (high - low) for low, high in bounds]
    return values


UNKNOWN = shape_of([0.0] * BINS, [0.0] * BINS)
"""The law before anything is seen."""

MEMORY = 300
"""About so many latest predictions make the law; older ones fade."""

UNSURE = 0.1
"""Share of an end that is spread evenly over the time in which it may lie, and not as the law
would have it: a law that is wrong must not confirm itself."""

RATIO = 3.0

SURE = 8.0
"""A law is given up when its predictions end RATIO times as often as it says, or as seldom, by a
log-likelihood of SURE. Smaller changes are left to fading."""

STUCK = 3.0
"""One prediction counts for no more than so many expected ends against a law: it may be stuck."""

GIVEN_UP_JOBS = 6.0
"""So many predictions' worth of a law is kept when it is given up."""

YESTERDAY_JOBS = 60.0
"""So many predictions' worth of an earlier run's law is believed."""

OFTEN = 1 / 8

SELDOM = 300
"""The shape is due to be renewed after polls of OFTEN of those before, at most SELDOM: often while
it is young, seldom when ten thousand predictions are polled at once."""

_HEAVY = 1e6


def _zeros() -> list[float]:
    return [0.0] * BINS


@dataclass(slots=True)
class LifeTable:
    """A life table that learns from every poll, ages in seconds.

    A prediction found running counts as much as one found ended: the first ends are those of the
    fastest predictions, and a provider that slows down is seen before anything ends. ``seen`` is
    how many ends it stands on, ``polls`` how many polls, ``news`` those that ``shape`` does not
    know of yet.
    """

    ends: list[float] = field(default_factory=_zeros)
    exposure: list[float] = field(default_factory=_zeros)
    weight: float = 1.0  # of the next end: growing weights let earlier ones fade
    seen: float = 0.0
    polls: int = 0
    news: int = 0
    faster: float = 0.0
    slower: float = 0.0
    shape: Distribution = UNKNOWN

    def running(self, since_s: float, age_s: float) -> None:
        """A prediction that ran at age ``since_s`` still ran at ``age_s``."""
        for n, covered in _bins(since_s, age_s):
            self.exposure[n] += self.weight * covered
        self._judge(0, self._expected(since_s, age_s))

    def ended(self, since_s: float, age_s: float) -> None:
        """A prediction that ran at age ``since_s`` had ended at ``age_s``, one way or another."""
        left = 1.0
        for n, covered, share in self._shares(since_s, age_s):
            self.ends[n] += self.weight * share
            self.exposure[n] += self.weight * covered * (left - share / 2)
            left -= share
        # Where in the interval it ended nobody knows: half of what the law expects in it.
        self._judge(1, self._expected(since_s, age_s) / 2)
        fade = 1.0 - 1.0 / MEMORY
        self.weight /= fade
        self.seen = self.seen * fade + 1.0
        if self.weight > _HEAVY:
            self._scale(1.0 / self.weight)
            self.weight = 1.0

    def _shares(self, since_s: float, age_s: float) -> list[tuple[int, float, float]]:
        """The bins that the end may lie in: number, covered part, share of the end."""
        bins = _bins(since_s, age_s)
        likely = [self.shape.chance[n] * covered for n, covered in bins]
        long = [(EDGES[n + 1] - EDGES[n]) * covered for n, covered in bins]
        law, even = sum(likely), sum(long)
        trust = 1.0 - UNSURE if law > 0 else 0.0
        law = law or 1.0
        return [
            (n, covered, trust * p / law + (1.0 - trust) * width / even)
            for (n, covered), p, width in zip(bins, likely, long, strict=True)
        ]

    def _expected(self, since_s: float, age_s: float) -> float:
        """How many ends the law expects of one prediction between two ages."""
        until = min(self.shape.hazard_to(age_s), STUCK)
        return until - min(self.shape.hazard_to(since_s), STUCK)

    def _judge(self, ends: int, expected: float) -> None:
        """Two running tests (Poisson CUSUMs) of the law, against a faster and a slower one."""
        self.news += 1
        self.polls += 1
        log = math.log(RATIO)
        self.faster = max(0.0, self.faster + ends * log - expected * (RATIO - 1.0))
        self.slower = max(0.0, self.slower - ends * log + expected * (1.0 - 1.0 / RATIO))
        if max(self.faster, self.slower) > SURE:
            self.faster = self.slower = 0.0
            self.polls = 0
            self.fade(GIVEN_UP_JOBS)

    def fade(self, jobs: float) -> None:
        """Believe no more of it than ``jobs`` predictions could tell."""
        if self.seen > jobs:
            self._scale(jobs / self.seen)
            self.seen = jobs
            self.renew()

    def _scale(self, factor: float) -> None:
        self.ends = [value * factor for value in self.ends]
        self.exposure = [value * factor for value in self.exposure]

    @property
    def due(self) -> bool:
        """Whether enough has happened since ``shape`` was renewed to do so again."""
        return self.news > min(OFTEN * (self.polls - self.news), SELDOM)

    def renew(self) -> None:
        """Bring ``shape`` up to date with every poll."""
        self.news = 0
        self.shape = shape_of(*self._numbers())

    def _numbers(self) -> tuple[list[float], list[float]]:
        ends = [value / self.weight for value in self.ends]
        return ends, [value / self.weight for value in self.exposure]

    def to_json(self) -> dict[str, Any]:
        """What another run needs to go on with it."""
        ends, exposure = ([round(v, 4) for v in values] for values in self._numbers())
        return {"grid": _GRID, "seen": round(self.seen, 2), "ends": ends, "exposure": exposure}

    @classmethod
    def from_json(cls, kept: Any) -> Self | None:
        """The law of an earlier run; None when the document is not one, or another version's."""
        try:
            if kept["grid"] != _GRID:
                return None
            ends, exposure = (_checked(kept[name]) for name in ("ends", "exposure"))
        except (TypeError, KeyError, ValueError):
            return None
        law = cls(ends=ends, exposure=exposure, seen=sum(ends))
        law.fade(YESTERDAY_JOBS)
        law.renew()
        return law


_GRID = [FIRST_S, LAST_S, BINS]


def _checked(values: Any) -> list[float]:
    """Raise ValueError or TypeError for what is no row of a life table."""
    numbers = [float(value) for value in values]
    if len(numbers) != BINS or not all(0.0 <= value < _HEAVY for value in numbers):
        raise ValueError("not a life table")
    return numbers


def _bins(since_s: float, age_s: float) -> list[tuple[int, float]]:
    """The bins between two ages, and how much of each is covered; at least one."""
    low = min(position(since_s), BINS - 1e-6)
    high = max(position(age_s), low + 1e-6)
    first, last = int(low), min(math.ceil(high), BINS)
    return [(n, min(high, n + 1) - max(low, n)) for n in range(first, last)]
