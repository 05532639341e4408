"""Callers that wait for jobs to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs import JobRecord, JobState


class Waiters:
    """Private futures by job: cancelling one concerns nobody else."""

    def __init__(self) -> None:
        self._futures: dict[int, dict[asyncio.Future[JobRecord], None]] = {}

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._futures

    def add(self, record: JobRecord) -> asyncio.Future[JobRecord]:
        """Make a future that the job's end resolves; whoever gives it up says so by ``leave``."""
        future: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(record.id, {})[future] = None
        return future

    def leave(self, job_id: int, future: asyncio.Future[JobRecord]) -> None:
        """Wait no more; without it a job that never ends would keep all who ever asked for it."""
        waiting = self._futures.get(job_id, {})
        waiting.pop(future, None)
        if not waiting:
            self._futures.pop(job_id, None)

    def anybody(self, job_id: int) -> bool:
        """Whether somebody still waits for a job."""
        return any(not future.done() for future in self._futures.get(job_id, ()))

    def tell(self, job_id: int, outcome: JobRecord | AsyncpipeError) -> None:
        """Resolve everybody who waits for a job."""
        for future in self._futures.pop(job_id, ()):
            if future.done():
                continue
            if isinstance(outcome, JobRecord):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def fail(self, reason: AsyncpipeError, *, those: Callable[[int], bool]) -> None:
        """Tell the callers of the jobs that ``those`` picks by id that they wait in vain."""
        for job_id in [job_id for job_id in self._futures if those(job_id)]:
            self.tell(job_id, reason)


logger = logging.getLogger("asyncpipe.stops")


class Stops:
    """The first reason counts; jobs that are paid for are never stopped."""

    def __init__(self) -> None:
        self._run: AsyncpipeError | None = None
        self._models: dict[str, AsyncpipeError] = {}
        self._remark: AsyncpipeError | None = None
        self._for_good = False
        self.noted = 0
        """How many reasons were told so far: with it those told since are not forgotten."""

    @property
    def everything(self) -> bool:
        """Whether nothing at all is to be submitted."""
        return self._run is not None

    @property
    def drained(self) -> bool:
        """Whether whoever runs this wants to leave."""
        return self._for_good

    @property
    def first(self) -> AsyncpipeError | None:
        """The run's reason, or the first model's, or why jobs were left out, or None."""
        return self._run or next(iter(self._models.values()), None) or self._remark

    def of(self, record: JobRecord) -> AsyncpipeError | None:
        """Why a job is not to be submitted now, or None."""
        if record.state is not JobState.PENDING:
            return None
        return self._run or self._models.get(record.job.model)

    def note(self, reason: AsyncpipeError, model: str | None) -> None:
        """Stop ``model``, or everything."""
        self.noted += 1
        if self._run is not None or model in self._models:
            return
        if model is None:
            self._run = reason
        else:
            self._models[model] = reason
        logger.warning("stopping: %s", reason, extra={"action": "run.stopped"})

    def explain(self, reason: AsyncpipeError) -> None:
        """Say more of why the run was stopped."""
        self._run = reason

    def remark(self, reason: AsyncpipeError) -> None:
        """Some jobs are left out; others go on."""
        if self._remark is None:
            logger.warning("leaving out: %s", reason, extra={"action": "job.left_out"})
        self._remark = reason

    def keep(self) -> None:
        """Whoever closes the pipeline means it: no new job starts submitting again."""
        self._for_good = True

    def forget(self, noted: int) -> None:
        """There are new jobs to try; not, when a reason came while they were taken in.

        ``noted`` is what ``noted`` was before: a disk may have filled up with them.
        """
        if self._for_good or self.noted != noted:
            return
        self._run = self._remark = None
        self._models.clear()
