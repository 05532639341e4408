"""What people read of many problems at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from asyncpipe.errors import Problem

MOST = 20
"""Lines that are shown."""

ALIKE = 3
"""Of problems in the same words, so many are shown where there are more than MOST in all."""


def shortened(problems: Sequence[Problem]) -> list[str]:
    """Say ``problems`` in at most MOST entries, and count those that are left out."""
    if len(problems) <= MOST:
        return [str(problem) for problem in problems]
    counts = Counter(problem.message for problem in problems)
    told: Counter[str] = Counter()
    lines: list[str] = []
    shown = 0
    for problem in problems:
        if told[problem.message] == ALIKE or len(lines) == MOST:
            continue
        told[problem.message] += 1
        shown += 1
        more = counts[problem.message] - ALIKE
        last = told[problem.message] == ALIKE and more > 0
        lines.append(f"{problem} (and the same {more} more times)" if last else str(problem))
        shown += more if last else 0
    left = len(problems) - shown
    return [*lines, f"… and {left} more like these"] if left else lines
