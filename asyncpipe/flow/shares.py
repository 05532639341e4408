"""How the places of one window are shared by several workers: by demand, pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What one worker has in flight of a model, and how many more it has at hand."""

    in_flight: int
    waiting: int

    @property
    def wanted(self) -> int:
        """How many it would have in flight."""
        return self.in_flight + self.waiting


def share_of(size: int, demands: Sequence[Demand], me: int) -> int:
    """How many predictions worker ``me`` may have in flight of a window of ``size``.

    Nobody gets more than it wants, and nobody less than another one who wants as much; all shares
    are within the window together. Who has more than its share lets it shrink; of the places that
    are free by then the others get theirs.
    """
    fair = level([each.wanted for each in demands], size)
    mine = demands[me]
    if mine.in_flight >= fair[me]:
        return fair[me]
    free = size - sum(each.in_flight for each in demands)
    lacking = [max(due - each.in_flight, 0) for due, each in zip(fair, demands, strict=True)]
    return mine.in_flight + level(lacking, max(free, 0))[me]


def level(wanted: Sequence[int], size: int) -> list[int]:
    """Give ``size`` places out, one each in turn, to who wants more; the first get the odd ones."""
    given, left = [0] * len(wanted), size
    hungry = [n for n, want in enumerate(wanted) if want > 0]
    while hungry and left > 0:
        each = max(left // len(hungry), 1)
        for n in hungry[: left // each]:
            more = min(each, wanted[n] - given[n])
            given[n] += more
            left -= more
        hungry = [n for n in hungry if given[n] < wanted[n]]
    return given
