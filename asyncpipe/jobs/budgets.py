"""Budgets of some of the jobs: how they are named, and what of a job counts against which."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

from asyncpipe.errors import UsageError
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import JobRecord

DAY, LABEL = "day", "label:"
"""How budgets are named: that of a day, and what those of labels begin with."""


@lru_cache(maxsize=1000)
def label_of_budget(name: str) -> tuple[str, str] | None:
    """The label, and its value, that a budget is for; None for that of a day.

    Raises UsageError for a name that is neither.
    """
    if name == DAY:
        return None
    label, _, value = name.removeprefix(LABEL).partition("=")
    if not (name.startswith(LABEL) and label and value):
        raise UsageError(f"budgets: {name!r} is neither {DAY} nor {LABEL}NAME=VALUE")
    return label, value


def counts_against(job: Job, label: tuple[str, str] | None) -> bool:
    """Whether a job's cost counts against a label's budget; against a day's it always does."""
    return label is None or job.labels.get(label[0]) == label[1]


def committed_against(record: JobRecord, label: tuple[str, str] | None, day: date) -> int:
    """Micro-dollars charged or reserved for a job that count against a budget.

    Against that of ``day`` the attempts whose submit was intended on it, in UTC, whenever they are
    charged.
    """
    if label is not None:
        return record.committed if counts_against(record.job, label) else 0
    return sum(
        each.charged + each.reserved
        for each in (record.attempt, *record.earlier)
        if each.intended_at is not None and each.intended_at.date() == day
    )


def days_of(record: JobRecord) -> list[date]:
    """The days, in UTC, on which a job's submits were intended."""
    times = (each.intended_at for each in (*record.earlier, record.attempt))
    return list(dict.fromkeys(at.date() for at in times if at is not None))
