"""What is done before anything is submitted: validate, price, write every job as pending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias, TypedDict

import anyio

from asyncpipe._tasks import ungrouped
from asyncpipe.engine.relay import Relay
from asyncpipe.engine.source import JobSource
from asyncpipe.errors import JobFileError, Problem, TooExpensive, UsageError
from asyncpipe.jobfile import MOST_PROBLEMS, JobReader, parse_jobs
from asyncpipe.jobs import (
    Event,
    Job,
    JobDict,
    JobRecord,
    OutputPlace,
    Unknown,
    fold,
    in_lane,
    may_take_media,
    now,
    providers_in,
    ways_of,
)
from asyncpipe.ledger import Interrupted, Ledger
from asyncpipe.media import BadInputs, LocalFiles
from asyncpipe.pricing import Spending
from asyncpipe.providers import Uploader

JobLike: TypeAlias = Job | JobDict | Mapping[str, Any]
"""A job, or a mapping with a job file's keys."""

Jobs: TypeAlias = Iterable[JobLike] | AsyncIterable[JobLike]
"""Several of them, as they come: whatever ``for`` or ``async for`` goes through."""


class Again(TypedDict):
    """What a run buys besides jobs that were never bought."""

    retry_failed: bool
    resubmit: bool


Rows = Sequence[tuple[str, Job]]
"""Jobs with their keys."""

PAGE = 1000
"""Jobs written to the ledger in one transaction."""


async def write_jobs(
    ledger: Ledger,
    jobs: Jobs,
    *,
    run: int,
    provider: str,
    spending: Spending,
    added: Callable[[int], None],
    attachments: Attachments,
    again: Again,
) -> tuple[int, bool]:
    """Write every job as pending, or mark it as seen by ``run``; return how many they are.

    And whether any takes in a file of this machine: then their sameness is not the job file's
    alone. ``added`` hears how many are new; ``again`` is what the run buys besides those.

    Raises JobFileError or UsageError for a job that is malformed, has no price, or comes twice,
    and what ``jobs`` raises; then nothing of ``run`` is drawn, and so nothing spent.
    """
    position, local = 0, False
    reader = JobReader()
    problems: list[Problem] = []
    written = anyio.Event()
    written.set()

    async def write(rows: Rows, position: int, written: anyio.Event) -> None:
        page, cut = await ledger.add_jobs(rows, run=run, position=position)
        added(page.new)
        if cut is not None:
            raise cut
        if page.twice:
            raise UsageError(
                f"the same job twice: {', '.join(page.twice[:5])}; "
                "to make several of one, use count:"
            )
        written.set()

    source = JobSource(jobs)
    with ungrouped():
        # A page is read while the last is written.
        async with source, anyio.create_task_group() as tasks:
            while values := await source.page(PAGE):
                page = await attachments.of_page(reader.jobs_of(values), problems, position)
                problems += _keyed(page, position)
                if page and not problems:  # else look for more of them, and write nothing
                    local = local or any(job.inputs for job in page)
                    await spending.ask_unpriced(in_lanes(page))
                    rows = [(job.key(provider), job) for job in page]
                    await check_prices(rows, spending, ledger, again)
                    await written.wait()
                    written = anyio.Event()
                    tasks.start_soon(write, rows, position, written, name="asyncpipe-write-jobs")
                position += len(page)
    source.check()
    reader.end()
    check_found(problems)
    return position, local


def _keyed(page: Iterable[Job], position: int) -> list[Problem]:
    """What is wrong with a batch's jobs that have idempotency keys."""
    text = (
        "idempotency_key is for single jobs (generate, submit, stream); in a batch the same job is "
        "the same by its name and what it says"
    )
    return [
        Problem(message=text, job=(job.name or f"job {n}")[:80])
        for n, job in enumerate(page, start=position + 1)
        if job.idempotency_key is not None
    ]


async def check_prices(rows: Rows, spending: Spending, ledger: Ledger, again: Again) -> None:
    """Raise UsageError naming every model that cannot be priced and has something to be bought.

    And every job that is more expensive than it may be: TooExpensive, where that is all. What was
    bought before is finished whatever has become of its price.
    """
    problems: dict[str, UsageError] = {}
    wrong: dict[str, str] = {}
    for key, job in rows:
        for lane in in_lanes([job]):
            try:
                price = spending.price(lane)
            except UsageError as exc:
                problems.setdefault(lane.model, exc)
                wrong[key] = lane.model
                continue
            if (dear := spending.too_expensive(lane, price)) is not None:
                problems[key], wrong[key] = TooExpensive(f"{job.title(key)}: {dear}"), key
    if not problems:
        return
    bought = await ledger.left_alone(list(wrong), **again)
    unbought = {what for key, what in wrong.items() if key not in bought}
    said = [problem for what, problem in problems.items() if what in unbought][:MOST_PROBLEMS]
    if said:
        kind = TooExpensive if all(isinstance(each, TooExpensive) for each in said) else UsageError
        raise kind("\n".join(map(str, said)))


def in_lanes(jobs: Iterable[Job]) -> Iterator[Job]:
    """The jobs, each in every lane of its."""
    return (in_lane(job, lane) for job in jobs for lane in ways_of(job))


def one_job(job: JobLike) -> Job:
    """Validate one job; raises JobFileError or UsageError."""
    return job if isinstance(job, Job) else next(iter(parse_jobs([job])))


async def mark_interrupted(
    ledger: Ledger, emit: Callable[[JobRecord, Event], JobRecord] | None = None
) -> None:
    """Turn jobs whose submit had no recorded answer when their process ended into unknown ones.

    ``emit`` records what happens; None: it is only written down.
    """
    emit = emit or partial(written, ledger)
    for found in await ledger.interrupted():
        emit(found.record, lost_by(found))
    await ledger.durable()


SUBMIT_LIMIT_S = 300.0
"""Longest wait for the answer to a submit, also when leaving; providers give up sooner."""


def lost_by(found: Interrupted) -> Event:
    """A submit had no recorded answer when its process ended.

    Where nobody can tell that its connection is closed, it may be under way for as long as any.
    """
    at = closed_at = now()
    if found.lease_ended_at is not None:
        closed_at = max(at, found.lease_ended_at + timedelta(seconds=SUBMIT_LIMIT_S))
    error = "the process ended between the submit and its answer: it may have been bought"
    return Unknown(job_id=found.record.id, at=at, error=error, closed_at=closed_at)


def written(ledger: Ledger, record: JobRecord, event: Event) -> JobRecord:
    """Write down what happened where nobody counts along; return the job as it stands after it."""
    after = fold(record, event)
    ledger.append(after)
    return after


class Attachments:
    """Fills in the ``inputs`` of jobs; those of a job file have them already.

    Paths are relative to the working directory, and allowed below ``local_files`` alone: whoever
    sends a job to a service must not read its machine. The provider of ``relay`` may be one that
    takes no files. A job that may fall back to a provider which is not here is refused.
    """

    def __init__(self, relay: Relay, local_files: OutputPlace | None) -> None:
        self._files = LocalFiles(within=[local_files] if local_files is not None else [])
        self._takes, self._provider = isinstance(relay.main, Uploader), relay.main.name
        self._relay = relay

    async def of(self, job: Job) -> Job:
        """The job with its files known; raises JobFileError."""
        problems: list[Problem] = []
        (job,) = await self.of_page([job], problems, 0)
        check_found(problems)
        return job

    async def of_page(self, jobs: list[Job], problems: list[Problem], position: int) -> list[Job]:
        """The same for many jobs, of which ``position`` came before; what is wrong is added."""
        for n, job in enumerate(jobs, start=position + 1):
            if job.fallback:
                problems += self._strangers(job, (job.name or f"job {n}")[:80])
        if not any(may_take_media(job.params) for job in jobs):
            return jobs
        return await asyncio.to_thread(self._of_page, jobs, problems, position)

    def _strangers(self, job: Job, label: str) -> list[Problem]:
        lacking = sorted(name for name in providers_in(job) if not self._relay.has(name))
        known = ", ".join(each.name for each in self._relay)
        text = "fallback: there is no provider {!r} here, only {}: give it with fallback_to"
        return [Problem(message=text.format(name, known), job=label) for name in lacking]

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
