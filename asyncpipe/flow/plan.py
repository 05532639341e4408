"""When to poll, given a law: the delay of finding an end weighed against the number of polls."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncpipe.flow.shape import BINS, EDGES, Shape, position

LEAST_GAP_S = 1.0

MOST_GAP_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Ages at which to look: ``first_s``, and ``after[n]`` where it ran at age EDGES[n]."""

    first_s: float
    after: tuple[float, ...]
    most_gap_s: float = MOST_GAP_S

    def gap_s(self, age_s: float) -> float:
        """Seconds to wait for the next poll of a prediction that was running at ``age_s``."""
        if age_s >= EDGES[-1]:
            return self.most_gap_s
        place = position(age_s)
        n = min(int(place), BINS - 1)
        due = self.after[n] + (place - n) * (self.after[n + 1] - self.after[n])
        return min(max(due - age_s, LEAST_GAP_S), self.most_gap_s)


def plan_of(shape: Shape, price_s: float, most_gap_s: float = MOST_GAP_S) -> Plan:
    """The plan with the least expected delay + ``price_s`` x polls, by Barlow, Hunter, Proschan.

    Gaps are from LEAST_GAP_S to ``most_gap_s``. Only the first look may come later: at half the
    median, which is early enough to see that the provider has become faster.
    """
    first_s = max(most_gap_s, shape.quantile(0.5) / 2)
    best = [BINS] * (BINS + 1)
    cost = [0.0] * (BINS + 1)  # of all polls and delays after an edge, of those alive there
    for n in range(BINS - 1, -1, -1):
        end = EDGES[n] + (most_gap_s if n else first_s)
        # Who is seen alive later is looked at again later: no need to search beyond best[n + 1].
        best[n], least = _cheapest(shape, cost, n, end, best[n + 1] if n else BINS)
        cost[n] = price_s * shape.alive[n] + least
    after = tuple(EDGES[n] for n in best)
    return Plan(
        first_s=min(max(after[0], LEAST_GAP_S), first_s), after=after, most_gap_s=most_gap_s
    )


def _cheapest(shape: Shape, cost: list[float], n: int, end: float, last: int) -> tuple[int, float]:
    """The edge for the next poll after edge ``n``, up to age ``end``, and what it will cost."""
    alive, moment = shape.alive, shape.moment
    start = EDGES[n] + LEAST_GAP_S
    chosen, least = n + 1, math.inf
    for j in range(n + 1, last + 1):
        edge = EDGES[j]
        if least < math.inf and edge > end:
            break
        if edge < start and j < last:
            continue
        # The delay of those that end on the way, and what is still to come.
        total = edge * (alive[n] - alive[j]) - (moment[j] - moment[n]) + cost[j]
        if total < least:
            chosen, least = j, total
    return chosen, least
