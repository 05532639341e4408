"""A completion-time law as numbers: how many predictions are still running at which age."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
class Shape:
    """A law: the share ``alive`` at each of EDGES, the ``chance`` to end in each bin between.

    ``moment`` is the part of the mean that comes from ends up to each edge, in seconds.
    """

    alive: tuple[float, ...]
    chance: tuple[float, ...]
    moment: tuple[float, ...]

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


def shape_of(ends: Sequence[float], exposure: Sequence[float]) -> Shape:
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


def _table(ends: Sequence[float], exposure: Sequence[float]) -> Shape:
    alive, chances, moment = [1.0], [], [0.0]
    for n, (prior_ends, prior_exposure) in enumerate(_PRIOR):
        rate = (ends[n] + prior_ends) / (exposure[n] + prior_exposure)
        chance = alive[-1] * -math.expm1(-rate)
        chances.append(chance)
        alive.append(alive[-1] - chance)
        moment.append(moment[-1] + chance * (EDGES[n] + EDGES[n + 1]) / 2)
    return Shape(tuple(alive), tuple(chances), tuple(moment))


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
