"""What a job may be made by: its own model, then what it falls back to, one after the other.

A lane is a model, or ``provider:model`` where another provider has it. Windows, pauses, prices and
reasons to stop are a lane's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from asyncpipe.jobs.job import Job

PASSED_ON = "passed_on"
"""The note of an attempt that its job has fallen back from."""

_NAMED = re.compile(r"([A-Za-z_]\w*):(?!//)(.+)", re.ASCII | re.DOTALL)


class Lane(NamedTuple):
    """Who makes a job, and as what; no provider: the pipeline's own."""

    provider: str
    model: str


@lru_cache(maxsize=1000)
def read_lane(text: str) -> Lane:
    """Read ``model`` or ``provider:model``; a colon after a slash is the model's own."""
    found = _NAMED.fullmatch(text)
    return Lane(found[1], found[2]) if found else Lane("", text)


def ways_of(job: Job) -> tuple[str, ...]:
    """The lanes of a job, its own model first.

    A job with files of this machine stays with the provider that has them.
    """
    if not job.inputs:
        return (job.model, *job.fallback)
    return (job.model, *(each for each in job.fallback if not read_lane(each).provider))


def in_lane(job: Job, lane: str) -> Job:
    """The job as it is made in a lane of its."""
    if lane == job.model:
        return job
    return replace(job, model=lane, type=job.kind, fallback=())


def providers_in(job: Job) -> set[str]:
    """The providers that a job may fall back to, by name."""
    return {lane.provider for lane in map(read_lane, job.fallback) if lane.provider}
