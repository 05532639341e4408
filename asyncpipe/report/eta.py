"""About how long the open jobs of a folder will take yet; nothing where too little is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from sqlite3 import Connection
from statistics import fmean, median, quantiles

from asyncpipe.flow import Latency
from asyncpipe.jobs import JobState, now

LATEST = 100
"""So many of a model's latest predictions tell how long it takes."""

FEWEST = 5
"""From fewer nothing is concluded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """Jobs that have not ended: not submitted by model, and those the provider works on.

    ``waiting`` may include jobs that are gone from the job file. Ages are in seconds from submit.
    """

    waiting: dict[str, int]
    under_way: tuple[tuple[str, float], ...]


def count_open(connection: Connection) -> Open:
    """Count them; reads a part of an index, and the few rows that are under way."""
    waiting = connection.execute(
        "SELECT model, count(*) FROM jobs WHERE state=? GROUP BY model", (JobState.PENDING.value,)
    )
    under_way = connection.execute(
        "SELECT j.model, a.submitted_at FROM jobs j"
        " JOIN attempts a ON a.job_id=j.id AND a.n=j.used+1 WHERE j.state=?",
        (JobState.SUBMITTED.value,),
    )
    at = now()
    ages = tuple((model, _age_s(submitted_at, at)) for model, submitted_at in under_way)
    return Open(waiting=dict(waiting.fetchall()), under_way=ages)


def _age_s(submitted_at: str | None, at: datetime) -> float:
    if submitted_at is None:
        return 0.0
    return max((at - datetime.fromisoformat(submitted_at)).total_seconds(), 0.0)


def measured(connection: Connection, model: str) -> Latency | None:
    """How long the latest predictions of ``model`` took in this folder."""
    rows = connection.execute(
        "SELECT a.generation_s FROM jobs j JOIN attempts a ON a.job_id=j.id AND a.n=j.used+1"
        " WHERE j.state=? AND j.model=? AND a.generation_s IS NOT NULL ORDER BY j.id DESC LIMIT ?",
        (JobState.SUCCEEDED.value, model, LATEST),
    )
    times = [row[0] for row in rows]
    if len(times) < FEWEST:
        return None
    return Latency(median(times), quantiles(times, n=10, method="inclusive")[-1], fmean(times))


def left_s(
    jobs: Open, waiting: int, latency: Callable[[str], Latency | None], slots: int
) -> float | None:
    """About how many seconds they will take; None where a model's times are not known.

    ``waiting`` is how many of them will still be submitted, ``slots`` how many are worked on at
    once. Those that wait share the slots at the mean time of their models; then the last ones are
    waited for as long as nine in ten take.
    """
    models = {model for model, _ in jobs.under_way} | (set(jobs.waiting) if waiting else set())
    known = {model: found for model in models if (found := latency(model)) is not None}
    if not models or len(known) < len(models):
        return None
    last_s = max((known[model].p90_s - age for model, age in jobs.under_way), default=0.0)
    if not waiting:
        return last_s if last_s > 0 else None
    listed = sum(jobs.waiting.values())
    if not listed or slots < 1:
        return None
    mean_s = sum(known[model].mean_s * n for model, n in jobs.waiting.items()) / listed
    last_s = max(last_s, *(known[model].p90_s for model in jobs.waiting))
    return waiting * mean_s / slots + last_s


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
