"""Callers that wait for jobs to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs.record import JobRecord


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
