"""What is done before anything is submitted: validate, price, write every job as pending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from functools import partial
from itertools import islice
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from asyncpipe.errors import JobFileError, Problem, UsageError
from asyncpipe.jobfile import MOST_PROBLEMS, iter_jobs, parse_jobs
from asyncpipe.jobs import Job, JobRecord, JobState, Unknown, may_take_media, now
from asyncpipe.ledger import Ledger, claim_stems, queries
from asyncpipe.media import BadInputs, LocalFiles
from asyncpipe.pricing import Purse
from asyncpipe.providers import Provider, uploader

JobLike = Job | Mapping[str, Any]
"""A job, or a mapping with a job file's keys."""

PAGE = 1000
"""Jobs written to the ledger in one transaction."""


async def write_jobs(
    ledger: Ledger,
    jobs: Iterable[JobLike],
    *,
    run: int,
    provider: str,
    purse: Purse,
    added: Callable[[int], None],
    attachments: Attachments,
) -> tuple[int, bool]:
    """Write every job as pending, or mark it as seen by ``run``; return how many they are.

    And whether any takes in a file of this machine: then their sameness is not the job file's
    alone. ``added`` hears how many are new.

    Raises JobFileError or UsageError for a job that is malformed, has no price, or comes twice;
    then nothing of ``run`` is drawn, and so nothing spent.
    """
    position, local = 0, False
    source = iter_jobs(jobs)
    problems: list[Problem] = []
    while page := await attachments.of_page(list(islice(source, PAGE)), problems, position):
        if problems:  # look through the rest for more, and write none of it
            position += len(page)
            continue
        local = local or any(job.inputs for job in page)
        await purse.ask_unpriced(page)
        rows = [(job.key(provider), job) for job in page]
        await check_prices(rows, purse, ledger)
        page_added, cut = await ledger.see_through(
            partial(queries.add_jobs, rows=rows, run=run, position=position)
        )
        added(page_added.new)
        if cut is not None:
            raise cut
        if page_added.twice:
            raise UsageError(
                f"the same job twice: {', '.join(page_added.twice[:5])}; "
                "to make several of one, use count:"
            )
        position += len(page)
    check_found(problems)
    return position, local


async def check_prices(rows: Iterable[tuple[str, Job]], purse: Purse, ledger: Ledger) -> None:
    """Raise UsageError naming every model that cannot be priced and has something to be bought.

    What was bought before is finished whatever has become of its price.
    """
    problems: dict[str, str] = {}
    models: dict[str, str] = {}
    for key, job in rows:
        try:
            purse.price(job)
        except UsageError as exc:
            problems.setdefault(job.model, str(exc))
            models[key] = job.model
    if not problems:
        return
    bought = await ledger.ask(partial(queries.bought, keys=list(models)))
    unbought = {model for key, model in models.items() if key not in bought}
    if unbought:
        raise UsageError("\n".join(problems[model] for model in problems if model in unbought))


def one_job(job: JobLike) -> Job:
    """Validate one job; raises JobFileError or UsageError."""
    return job if isinstance(job, Job) else next(iter(parse_jobs([job])))


class Counted(Enum):
    """Where totals counted a job before it was added."""

    NOWHERE = auto()
    AS_REMOVED = auto()
    ALREADY = auto()
    IN_A_BATCH = auto()  # named by a run of this session: it is not one caller's alone


def add_one(
    connection: Connection, *, key: str, job: Job, run: int, since: int, folder: Path
) -> tuple[JobRecord, Counted]:
    """Write one job unless it is there already, fix its stem, return it as it stands.

    Rows that bear ``since`` or a later run are named by this session; ``run`` is its own.
    """
    known = queries.record_by_key(connection, key)
    counted = Counted.NOWHERE if known is None else Counted.ALREADY
    if known is None or known.state in (JobState.PENDING, JobState.CANCELLED):
        if known is not None and known.state is JobState.PENDING:
            seen = "SELECT seen_run, used FROM jobs WHERE id=?"
            seen_run, used = connection.execute(seen, (known.id,)).fetchone()
            if seen_run >= since and seen_run != run:
                return claim_stems(connection, [known], folder)[0], Counted.IN_A_BATCH
            counted = Counted.AS_REMOVED if seen_run < since and not used else counted
        queries.add_jobs(connection, [(key, job)], run=run, position=0)
        known = queries.record_by_key(connection, key)
    assert known is not None
    return claim_stems(connection, [known], folder)[0], counted


async def mark_interrupted(ledger: Ledger) -> None:
    """Turn jobs whose submit had no recorded answer when their process ended into unknown ones."""
    ids = await ledger.ask(partial(queries.ids_in_state, state=JobState.SUBMITTING))
    error = "the process ended between the submit and its answer: it may have been bought"
    for job_id in ids:
        ledger.append(Unknown(job_id=job_id, at=now(), error=error))
    await ledger.durable()


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
