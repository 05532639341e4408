"""The engine's front: the only starter of tasks; admit, drive, collect, drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from asyncpipe._fs import forget_parts
from asyncpipe._tasks import tasks_apart, ungrouped, within
from asyncpipe.engine.drive import Settling
from asyncpipe.engine.engine import Calls, Limits, join_parts
from asyncpipe.engine.ingest import JobLike, mark_interrupted, one_job
from asyncpipe.engine.intake import Intake, explain
from asyncpipe.engine.queue import Handover
from asyncpipe.engine.recorder import Collector, Hook, Recording
from asyncpipe.engine.stream import Lookahead
from asyncpipe.engine.tickets import Stops, Waiters
from asyncpipe.errors import AsyncpipeError, DiskError, LedgerError, UsageError
from asyncpipe.http import on_loopback
from asyncpipe.jobfile import load_price_file
from asyncpipe.jobs import (
    ENDED,
    Caps,
    Deadlines,
    Job,
    JobRecord,
    JobState,
    JobType,
    Polling,
    Withdrawn,
    checked_window,
    now,
)
from asyncpipe.ledger import (
    STATE_FOLDER,
    FolderLock,
    Ledger,
    Origin,
    check_local,
    make_folders,
    queries,
)
from asyncpipe.media import GIB, Downloader
from asyncpipe.pricing import ESTIMATE_FACTOR, Budget, Quoting, Rate, Spending, Tell
from asyncpipe.providers import Provider
from asyncpipe.report import (
    MANIFEST_NAME,
    Manifest,
    ManifestWriter,
    Result,
    Totals,
    ask_result,
    count_open,
    left_s,
    read_totals,
)

logger = logging.getLogger("asyncpipe.pipeline")


class Pipeline:
    """Run jobs into one output folder; a service keeps one for its lifetime.

    ``max_workers`` bounds the predictions in flight: below it each model's window learns what the
    API takes, unless ``window`` is ``fixed``; ``limits`` are caps of your own, with a job file's
    keys (``requests_per_second``, ``models``). ``downloads`` bounds the files fetched at once;
    ``retries`` is how often a failure that the provider does not charge for is submitted again;
    ``patience_s`` ends the run when no submit was accepted for so long (None: never). Nothing is
    submitted while less than ``min_free_bytes`` are free on the disk. With ``resubmit_unknown`` a
    submit whose answer was lost is sent again, at most ``retries`` times, and may be paid twice.
    ``max_cost`` in USD caps what the folder's jobs, earlier runs included, are charged or may
    still be; what does not fit stays pending. Nothing is submitted while the account has less than
    ``min_balance`` USD. A job's price is the provider's quote (free; ``quotes=False`` asks for
    none), else that of ``prices`` (by model id), ``price_file`` or the built-in table; an estimated
    one is reserved times ``estimate_factor``. ``on_event`` is called for every event, ``on_remark``
    (default: the log) with what users should know. Jobs run in the pipeline's own tasks: leaving
    early loses nothing paid for. Raises FolderInUse, LedgerError, UsageError (another's folder).
    """

    def __init__(
        self,
        provider: Provider,
        output_dir: str | Path = "pipeline_output",
        *,
        max_workers: int = 64,
        window: str = "learned",
        limits: Caps | Mapping[str, Any] | None = None,
        downloads: int = 8,
        retries: int = 2,
        deadlines: Deadlines | None = None,
        polling: Polling | None = None,
        max_cost: Decimal | None = None,
        min_balance: Decimal | None = None,
        prices: Mapping[str, Rate] | None = None,
        price_file: str | Path | None = None,
        quotes: bool | Quoting = True,
        estimate_factor: Decimal = ESTIMATE_FACTOR,
        patience_s: float | None = None,
        min_free_bytes: int = GIB,
        resubmit_unknown: bool = False,
        on_event: Hook | None = None,
        on_remark: Tell = logger.warning,
        seed: int | None = None,
    ) -> None:
        if max_workers < 1 or downloads < 1 or retries < 0:
            raise UsageError("max_workers and downloads must be at least 1, retries at least 0")
        self.folder = Path(output_dir)
        self._provider = provider
        self._limits = Limits(
            workers=max_workers,
            window=checked_window(window),
            caps=Caps.of(limits),
            downloads=downloads,
            retries=retries,
            deadlines=deadlines or Deadlines(),
            polling=polling or Polling(),
            patience_s=patience_s,
            min_free_bytes=min_free_bytes,
            resubmit_unknown=resubmit_unknown,
            rng=Random(seed),
        )
        self._spending = Spending.checked(
            max_cost=max_cost,
            min_balance=min_balance,
            prices=prices,
            book=None if price_file is None else load_price_file(price_file),
            quotes=quotes,
            estimate_factor=estimate_factor,
            tell=on_remark,
        )
        self._hooks = (on_event,) if on_event else ()
        self._waiters = Waiters()
        self._stops = Stops()
        self._opened = self._built = False
        self._exit = AsyncExitStack()

    @property
    def stopped(self) -> AsyncpipeError | None:
        """Why submitting was stopped before the end, for all models or for one, or None."""
        return self._stops.first

    @property
    def waiting(self) -> AsyncpipeError | None:
        """What submitting waits for at the moment besides the provider, or None."""
        return self._room.problem if self._opened else None

    async def left_s(self) -> float | None:
        """About how many seconds the open jobs will take; None while too little is known."""
        self._check_open()
        if self.stopped is not None:
            return None
        jobs, totals = await self._ledger.ask(count_open), self.totals
        return left_s(jobs, totals.jobs[JobState.PENDING], self._latencies.of, totals.in_flight)

    @property
    def totals(self) -> Totals:
        """What the folder's ledger holds, counted along as events come; as it was when closed."""
        self._check_open(ever=True)
        return self._collector.totals

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._exit = stack.pop_all()
        self._opened = True
        return self

    def _check_open(self, *, ever: bool = False) -> None:
        if not (self._built if ever else self._opened):
            raise UsageError("the pipeline is not open: use it inside `async with Pipeline(…)`")

    async def _open(self, stack: AsyncExitStack) -> None:
        check_local(self.folder)
        make_folders(self.folder, (JobType.IMAGE.folder, JobType.VIDEO.folder, STATE_FOLDER))
        stack.enter_context(FolderLock(self.folder / STATE_FOLDER / "lock"))
        provider = self._provider
        # Made here, not in __init__: a pipeline may be made outside a loop, and entered again.
        self._ledger = Ledger(self.folder, self._stop)
        self._manifests = ManifestWriter(self._ledger, self.folder)
        stack.push_async_callback(within, self._ledger.aclose)
        await self._ledger.open(
            Origin(provider=provider.name, origin=provider.origin, simulated=provider.simulated)
        )
        await mark_interrupted(self._ledger)
        forget_parts(self.folder / MANIFEST_NAME)
        adopted = await self._ledger.ask(queries.paid_open)
        totals = await self._ledger.ask(read_totals)
        self._collector = Collector(totals, self._manifests.write, self._hooks)
        self._budget = self._spending.budget(totals.charged + totals.reserved)
        self._purse = self._spending.open(provider)
        self._emit = Recording(self._ledger, self._collector, self._budget, self._stop)
        self._intake = Intake(
            ledger=self._ledger,
            folder=self.folder,
            provider=provider,
            purse=self._purse,
            totals=totals,
            emit=self._emit,
        )
        stack.push_async_callback(within, self._finish)
        await stack.enter_async_context(provider)
        downloader = await stack.enter_async_context(
            Downloader(self.folder, public_only=not on_loopback(provider.origin))
        )
        stack.callback(self._build(downloader, self._budget))
        await self._start(stack)
        self._settling.adopted = {record.id for record in adopted}
        await self._adopt()

    def _build(self, downloader: Downloader, budget: Budget) -> Callable[[], None]:
        calls = Calls(
            emit=self._emit,
            stop=self._stop,
            unfit=self._leave_out,
            wanted=lambda record: record.id not in self._settling.adopted,
            stopped=lambda record: self._stops.of(record) is not None,
            clock=asyncio.get_running_loop().time,
        )
        parts = join_parts(
            self._limits,
            calls,
            provider=self._provider,
            ledger=self._ledger,
            folder=self.folder,
            downloader=downloader,
            budget=budget,
            purse=self._purse,
        )
        self._room, self._admission, self._driver = parts.room, parts.admission, parts.driver
        self._latencies, self.traffic = parts.latencies, parts.traffic
        self._settling = Settling(self._admission, self._driver, self._stops, self._waiters)
        self._built = True
        return parts.keep

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start admission, the drivers and the collector: every task there is."""
        handover = Handover()
        self._tasks = await stack.enter_async_context(tasks_apart("asyncpipe engine"))
        self._tasks.start_soon(self._admission.run, handover, name="asyncpipe admission")
        self._tasks.start_soon(self._collector.run, name="asyncpipe collector")
        for n in range(self._limits.workers + 2 * self._limits.downloads):
            self._tasks.start_soon(self._settling.drive, handover, name=f"asyncpipe driver {n + 1}")

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._opened = False
        try:
            with ungrouped():
                if not isinstance(exc, asyncio.CancelledError):  # the user's own, in no group
                    return await self._exit.__aexit__(None, None, None) and None
                return await self._exit.__aexit__(exc_type, exc, traceback)
        finally:
            closed = AsyncpipeError("the pipeline was closed before the job ended; it is kept")
            self._waiters.fail(closed, those=lambda _: True)
            self._admission.abandon()
            # A stream that is closed later must find nothing to withdraw in a closed ledger.
            self._admission.drop_pending()

    async def _finish(self) -> None:
        """Write what is left and the manifest; a ledger that failed has said so already."""
        self._collector.drain()
        try:
            await self._manifests.write_changes()
            await self._intake.end()
        except (LedgerError, DiskError) as exc:
            logger.warning("no manifest: %s", exc, extra={"action": "manifest.failed"})

    async def generate(self, job: JobLike) -> Result:
        """Run one job and return its result; a failed one is a result, never raised.

        A named job that this folder knows is not bought again: its result is returned, or waited
        for. Cancelling withdraws the job if it was not submitted yet; otherwise it goes on without
        you and its result stays in the folder. Raises UsageError for a job that is malformed or
        cannot be priced, BudgetReached for one that does not fit, what stopped the pipeline before
        this job (KeyRefused, BalanceExhausted …), AsyncpipeError when it was closed meanwhile.
        """
        record = await self._admit(one_job(job))
        if record.state not in ENDED:
            waiter = self._waiters.add(record)
            try:
                await waiter
            except asyncio.CancelledError:
                self._withdraw(record, waiter)
                raise
        return await ask_result(self._ledger, record.id)

    async def stream(
        self, jobs: Iterable[JobLike] | AsyncIterable[JobLike]
    ) -> AsyncGenerator[Result, None]:
        """Yield results as jobs finish; reads at most 4 x max_workers jobs ahead.

        Leaving the loop early withdraws what was not submitted yet and loses nothing else. Raises
        what ``jobs`` raises, and UsageError for a job that is malformed or cannot be priced.
        """
        self._check_open()
        ahead = Lookahead(4 * self._limits.workers)
        self._tasks.start_soon(ahead.feed, jobs, self._admit_watched, name="asyncpipe stream feed")
        try:
            while (record := await ahead.next()) is not None:
                yield await ask_result(self._ledger, record.id)
        finally:
            for record, waiter in ahead.close():
                self._withdraw(record, waiter)

    async def _admit_watched(
        self, job: JobLike
    ) -> tuple[JobRecord, asyncio.Future[JobRecord] | None]:
        record = await self._admit(one_job(job))
        return record, None if record.state in ENDED else self._waiters.add(record)

    async def batch_generate(
        self,
        jobs: Iterable[JobLike],
        *,
        job_file: str | None = None,
        digest: str | None = None,
        retry_failed: bool = False,
    ) -> Manifest:
        """Run all jobs and return the folder's manifest when none can go on.

        Every job is validated and priced before anything is spent; the same jobs again go on where
        they were, and are not even iterated when the folder's last run took those of the same
        ``digest`` (``JobFile.digest``). With ``retry_failed`` failed ones that were not charged are
        submitted again, moderation refusals excepted. ``stopped`` says whether submitting ended
        early. Where ``manifest.json`` takes seconds to write it is written now and then, and when
        the pipeline is closed. Raises JobFileError or UsageError before anything is spent.
        """
        self._check_open()
        noted = self._stops.noted
        named = await self._intake.take_all(
            jobs,
            job_file=job_file,
            digest=digest,
            retry_failed=retry_failed,
            resubmit_unknown=self._limits.resubmit_unknown,
        )
        others = self._settling.adopted | self._settling.alone
        ours = await self._ledger.ask(partial(queries.named_of, ids=[*others], named=named))
        self._settling.name(ours)
        await self._adopt()
        self._stops.forget(noted)
        self._driver.begin()
        await self._purse.check(self._stop)
        backlog = await self._admission.open_run(named, comparing=True)
        compare = partial(self._intake.compare, named.run, backlog, self._admission)
        self._tasks.start_soon(compare, self._stops, self._stop, name="asyncpipe comparison")
        if self._stops.everything:
            self._admission.drop_pending()
        try:
            await backlog.wait()
        except asyncio.CancelledError:  # what is not submitted yet stays pending
            self._admission.close_run(backlog, keep=self._waiters.anybody)
            raise
        await explain(self._stops, self._ledger, named, self._purse)
        await self._intake.end(named.run)
        self._collector.drain()
        return await self._manifests.end_batch()

    async def _adopt(self) -> None:
        """Take up paid work of earlier runs, or what an earlier batch of this one left."""
        for record in await self._ledger.ask(queries.paid_open):
            self._admission.offer(record)

    async def collect(self) -> Manifest:
        """Poll and download what was submitted before; buy nothing; return the manifest.

        Returns when everything that this folder knows as bought is on disk, failed, or has to
        wait for another run.
        """
        self._check_open()
        await self._adopt()
        backlog = await self._admission.open_run(None)
        await backlog.wait()
        self._collector.drain()
        return await self._manifests.end_batch()

    async def _admit(self, job: Job) -> JobRecord:
        """Write one job to the ledger and offer it; return it as it stands."""
        self._check_open()
        short, noted = await self._purse.funds.too_little(), self._stops.noted
        record, alone = await self._intake.take(job)
        self._settling.adopted.discard(record.id)
        if record.state not in ENDED:
            self._stops.forget(noted)
            if record.state is JobState.PENDING and (reason := self._stops.of(record) or short):
                raise reason
            if alone:
                self._settling.alone.add(record.id)
            self._admission.offer(record)
        return record

    def _withdraw(self, record: JobRecord, waiter: asyncio.Future[JobRecord]) -> None:
        """Give up waiting for a job; nobody's any more and untouched, it is withdrawn."""
        if found := self._settling.withdraw(record, waiter):
            self._emit(found, Withdrawn(job_id=found.id, at=now()))

    def _leave_out(self, record: JobRecord, reason: AsyncpipeError) -> None:
        self._settling.leave_out(record, reason)

    def drain(self) -> None:
        """Submit nothing more; what was submitted goes on, the rest stays pending."""
        self._stop(AsyncpipeError("the run was drained before this job was submitted"))
        self._stops.keep()

    def _stop(self, reason: AsyncpipeError, model: str | None = None) -> None:
        """End submitting, of ``model`` or of all: unpaid jobs stay pending, the rest goes on."""
        self._stops.note(reason, model)
        if self._built:  # the disk may be full as early as when the ledger is opened
            self._settling.stop(reason, model)
