"""What becomes of one job, for whoever follows it from now on."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncpipe.jobs import ENDED, Event, JobRecord, JobState

LIMIT = 256
"""So many updates are kept for one who does not come for them; the oldest are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobUpdate:
    """Where a job stands since something happened to it; of the first update nothing did.

    ``event`` is what happened, or None, ``at`` when, in UTC, ``error`` what is wrong at the moment,
    or None.
    """

    state: JobState
    at: datetime | None
    event: Event | None = None
    prediction_id: str | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """What happened, in a word: the name of the event's class, or ``State``."""
        return "State" if self.event is None else type(self.event).__name__

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it, for server-sent events and their like."""
        return {
            "event": self.name,
            "state": self.state.value,
            "at": None if self.at is None else self.at.isoformat(),
            "prediction_id": self.prediction_id,
            "error": self.error,
        }


def update_of(record: JobRecord, event: Event | None = None) -> JobUpdate:
    """Tell where a job stands, after ``event`` if there was one."""
    attempt = record.attempt
    return JobUpdate(
        state=record.state,
        at=event.at if event is not None else attempt.ended_at or attempt.submitted_at,
        event=event,
        prediction_id=attempt.prediction_id,
        error=attempt.error,
    )


class Watch:
    """One who follows a job; ``over``: there is nothing more to come."""

    def __init__(self) -> None:
        self._updates: deque[tuple[JobUpdate, int]] = deque(maxlen=LIMIT)
        self._news = asyncio.Event()
        self.over = False

    def hear(self, event: Event, record: JobRecord) -> None:
        """Keep an update."""
        self._updates.append((update_of(record, event), record.version))
        self._news.set()

    def end(self) -> None:
        """Say that nothing more comes."""
        self.over = True
        self._news.set()

    async def next(self) -> tuple[JobUpdate, int] | None:
        """The next update and the version of the job since; None when there is no other."""
        while not self._updates:
            if self.over:
                return None
            self._news.clear()
            await self._news.wait()
        return self._updates.popleft()


class Watches:
    """Everybody who follows a job, by its id."""

    def __init__(self) -> None:
        self._by_job: dict[int, list[Watch]] = {}

    def open(self, job_id: int) -> Watch:
        """Follow a job from now on."""
        watch = Watch()
        self._by_job.setdefault(job_id, []).append(watch)
        return watch

    def close(self, job_id: int, watch: Watch) -> None:
        """Follow it no more."""
        left = [each for each in self._by_job.get(job_id, ()) if each is not watch]
        self._by_job[job_id] = left
        if not left:
            del self._by_job[job_id]

    def hear(self, event: Event, record: JobRecord) -> None:
        """Tell those who follow the job of an event; synchronous, and nearly free without any."""
        for watch in self._by_job.get(record.id, ()):
            watch.hear(event, record)
            if record.state in ENDED and record.state is not JobState.UNKNOWN:
                watch.end()

    def let_go(self, record: JobRecord) -> None:
        """Note that a job is in memory no more; what is unknown by then stays so."""
        if record.state is JobState.UNKNOWN:
            for watch in self._by_job.get(record.id, ()):
                watch.end()
