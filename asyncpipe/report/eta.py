"""About how long the open jobs of a folder will take yet; nothing where too little is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from statistics import fmean, median, quantiles

from asyncpipe.flow import Latency
from asyncpipe.ledger import OpenWork

LATEST = 100
"""So many of a model's latest predictions tell how long it takes."""

FEWEST = 5
"""From fewer nothing is concluded."""


def latency_of(times: Sequence[float]) -> Latency | None:
    """How long predictions take that took so long, in seconds; None where they are too few."""
    if len(times) < FEWEST:
        return None
    return Latency(median(times), quantiles(times, n=10, method="inclusive")[-1], fmean(times))


def left_s(
    jobs: OpenWork,
    waiting: int,
    latency: Callable[[str], Latency | None],
    slots: int,
    *,
    at: datetime,
) -> float | None:
    """About how many seconds they will take from ``at``; None where a model's times are unknown.

    ``waiting`` is how many of them will still be submitted, ``slots`` how many are worked on at
    once. Those that wait share the slots at the mean time of their models; then the last ones are
    waited for as long as nine in ten take.
    """
    ages = [(model, _age_s(submitted_at, at)) for model, submitted_at in jobs.under_way]
    models = {model for model, _ in ages} | (set(jobs.waiting) if waiting else set())
    known = {model: found for model in models if (found := latency(model)) is not None}
    if not models or len(known) < len(models):
        return None
    last_s = max((known[model].p90_s - age for model, age in ages), default=0.0)
    if not waiting:
        return last_s if last_s > 0 else None
    listed = sum(jobs.waiting.values())
    if not listed or slots < 1:
        return None
    mean_s = sum(known[model].mean_s * n for model, n in jobs.waiting.items()) / listed
    last_s = max(last_s, *(known[model].p90_s for model in jobs.waiting))
    return waiting * mean_s / slots + last_s


def _age_s(submitted_at: str | None, at: datetime) -> float:
    if submitted_at is None:
        return 0.0
    return max((at - datetime.fromisoformat(submitted_at)).total_seconds(), 0.0)


def about(seconds: float) -> str:
    """Write a guess so that it is not taken for more."""
    if seconds < 60:
        return "less than a minute"
    minutes = seconds / 60
    if minutes < 10:
        return f"about {minutes:.0f} min"
    if minutes < 90:
        return f"about {5 * round(minutes / 5)} min"
    return f"about {round(minutes / 30) / 2:g} h"
