"""The files of jobs that come from Python: looked at when they are taken in."""

from __future__ import annotations

import asyncio

from asyncpipe.errors import JobFileError, Problem
from asyncpipe.jobfile.problems import MOST_PROBLEMS
from asyncpipe.jobs.inputs import may_take_media
from asyncpipe.jobs.job import Job
from asyncpipe.media.local import BadInputs, LocalFiles
from asyncpipe.providers.base import Provider, uploader


class Attachments:
    """Fills in the ``inputs`` of jobs; those of a job file have them already.

    Paths are relative to the working directory. ``provider`` may be one that takes no files.
    """

    def __init__(self, provider: Provider) -> None:
        self._files = LocalFiles()
        self._takes, self._provider = uploader(provider) is not None, provider.name

    async def of(self, job: Job) -> Job:
        """The job with its files known; raises JobFileError."""
        problems: list[Problem] = []
        (job,) = await self.of_page([job], problems, 0)
        check_found(problems)
        return job

    async def of_page(self, jobs: list[Job], problems: list[Problem], position: int) -> list[Job]:
        """The same for many jobs, of which ``position`` came before; what is wrong is added."""
        if not any(may_take_media(job.params) for job in jobs):
            return jobs
        return await asyncio.to_thread(self._of_page, jobs, problems, position)

    def _of_page(self, jobs: list[Job], problems: list[Problem], position: int) -> list[Job]:
        found = []
        for n, given in enumerate(jobs, start=position + 1):
            job, label = given, (given.name or f"job {n}")[:80]
            try:
                job = self._files.attach(given)
            except BadInputs as exc:
                problems += [Problem(message=fault, job=label) for fault in exc.faults]
            if job.inputs and not self._takes:
                text = f"{next(iter(job.inputs))!r}: {self._provider} takes no files: give a URL"
                problems.append(Problem(message=text, job=label))
            found.append(job)
        return found


def check_found(problems: list[Problem]) -> None:
    """Raise JobFileError when there are problems."""
    if problems:
        raise JobFileError(problems[:MOST_PROBLEMS])
