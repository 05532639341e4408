"""One opened pipeline: its parts in the order in which each needs the others, and its tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from asyncpipe._fs import forget_parts
from asyncpipe._tasks import tasks_apart, within
from asyncpipe.engine.account import ask_account, settle_account
from asyncpipe.engine.admission import Admission
from asyncpipe.engine.aftercare import Aftercare, Backlog, to_come_again
from asyncpipe.engine.again import is_keyed
from asyncpipe.engine.answers import Answers
from asyncpipe.engine.callbacks import Callbacks, Deliveries, calls_back
from asyncpipe.engine.chase import PATIENCE_S
from asyncpipe.engine.decide import PredictionOwners, RetryPolicy
from asyncpipe.engine.drive import Driver
from asyncpipe.engine.fetch import Fetcher
from asyncpipe.engine.health import Wait, Waits
from asyncpipe.engine.hooks import hearing
from asyncpipe.engine.ingest import mark_interrupted
from asyncpipe.engine.intake import Intake
from asyncpipe.engine.notices import Notices, notice_of
from asyncpipe.engine.poll import Inquiry, Poller
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.relay import QuoteRelay, Relay
from asyncpipe.engine.search import Searcher
from asyncpipe.engine.sharing import Sharing
from asyncpipe.engine.submit import Submitter
from asyncpipe.engine.tickets import StopReasons, Ticket, Tickets
from asyncpipe.engine.upload import Uploads
from asyncpipe.errors import AsyncpipeError, DiskError, DownloadError, LedgerError
from asyncpipe.flow import (
    LATENCY,
    Gate,
    Latency,
    Limiter,
    Memory,
    Pace,
    Windows,
    latencies_of,
    lessons,
    recall,
)
from asyncpipe.http import on_loopback
from asyncpipe.jobs import (
    PAID_OPEN,
    Deadlines,
    Hook,
    JobRecord,
    JobState,
    JobType,
    Limits,
    Links,
    OutputPlace,
    Polling,
    SoughtAgain,
    Withdrawn,
    now,
)
from asyncpipe.ledger import (
    STATE_FOLDER,
    Lease,
    NamesIn,
    Origin,
    SharedLedger,
    SharedPlace,
    bucket_of,
    check_local,
    folder_of,
    lock_of,
    make_folders,
    open_ledger,
    open_shared,
)
from asyncpipe.media import Bucket, BucketStore, DiskSpace, Downloader, Store
from asyncpipe.pricing import SharedMoney, SpendingLimits, Tell, to_micro
from asyncpipe.providers import HasKeys, Provider, account_of, key_variables, retention_of
from asyncpipe.report import MANIFEST_NAME, ManifestWriter, Totals, read_head
from asyncpipe.webhooks import Notice, Notify

logger = logging.getLogger("asyncpipe.engine")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """What a pipeline's constructor was told, checked."""

    workers: int
    limits: Limits
    retries: RetryPolicy
    deadlines: Deadlines
    polling: Polling
    patience_s: float | None
    min_free_bytes: int
    ambiguous: str
    search_s: float
    fetch_missing: bool
    local_files: OutputPlace | None
    spending: SpendingLimits
    links: Links | None
    tell: Tell
    same_account: bool
    fallback_to: tuple[Provider, ...] = ()
    lease_s: float
    hooks: tuple[Hook, ...]
    take_up: bool
    rng: Random
    notify: Notify | None


class Engine:
    """The parts of one opened pipeline, from the lock to the tasks, each after what it needs."""

    def __init__(
        self, provider: Provider, where: Path | SharedPlace, settings: EngineSettings
    ) -> None:
        self.provider, self.settings = provider, settings
        self.relay = Relay(provider, settings.fallback_to)
        self.where, self.folder = where, folder_of(where)
        self.store, self._names_in = self._store()
        self.clock = asyncio.get_running_loop().time
        self.news = asyncio.Event()
        self.stops = StopReasons(self.news)
        self.waits = Waits(self.clock)
        self.tickets = Tickets()
        self.taking_up = 0
        """How many are about to take up what was accepted."""
        self.watches = self.tickets.watches
        self.callbacks = Callbacks(self.clock)
        self.notices = (
            Notices(settings.notify, settings.tell, hidden=key_variables())
            if settings.notify is not None
            else None
        )
        self.deliveries = Deliveries(self.relay, self.callbacks, self.clock)
        self.shared: SharedLedger | None = None
        self.sharing: Sharing | None = None
        self.money: SharedMoney | None = None

    def _store(self) -> tuple[Store, NamesIn | None]:
        """What media go to, and for a bucket, what gives the names in it."""
        public_only = not on_loopback(self.provider.origin)
        if (url := bucket_of(self.where)) is None:
            shared = isinstance(self.where, SharedPlace)
            return Downloader(self.folder, public_only=public_only, shared=shared), None
        store = BucketStore(url, public_only=public_only)
        return store, partial(_names_in, store.bucket)

    async def open(self, stack: AsyncExitStack) -> None:
        """Open everything; ``stack`` takes it down again.

        Raises FolderInUse, LedgerError, and UsageError for another provider's or account's folder.
        """
        self.hooks = await stack.enter_async_context(hearing(self.settings.hooks))
        self.tickets.closed = self.hooks.let_go
        if bucket_of(self.where) is not None:  # a folder's is opened once its lock is held
            await stack.enter_async_context(self.store)
        await self._open_ledger(stack)
        await self._open_connections(stack)
        account = await ask_account(self.provider, self.settings.tell)
        await settle_account(
            self.ledger, self.origin, account, self.where, accept=self.settings.same_account
        )
        self._make_admission(stack)
        self._make_driver()
        self.tasks = await stack.enter_async_context(tasks_apart("asyncpipe engine"))
        self._start()
        if self.sharing is not None:
            await self.sharing.look()
        await self.adopt()
        unknown = await self.ledger.take([JobState.UNKNOWN], but=self._held())
        self._offer(filter(to_come_again, unknown))
        await self.searcher.begin()
        if self.sharing is not None:
            self.tasks.start_soon(self.sharing.run, name="asyncpipe sharing")
        if self.settings.take_up:
            await self.take_up()

    async def adopt(self) -> None:
        """Take up paid work that nobody waits for: of earlier runs, or left by a batch."""
        self._offer(await self.ledger.take(PAID_OPEN, but=self._held()))

    async def send_again(self) -> None:
        """Take up lost submits that a key tells of: where nothing was bought they buy it now."""
        keyed = any(isinstance(each, HasKeys) for each in self.relay)
        if not keyed or self.settings.ambiguous == "hold":
            return
        self.searcher.let_go([each for each, t in self.tickets.items() if is_keyed(t.record)])
        for record in await self.ledger.take([JobState.UNKNOWN], but=list(self.tickets)):
            if is_keyed(record):
                self._offer([record])
            elif record.id not in self.tickets:
                self.ledger.release(record.id)

    async def take_up(self, noted: int | None = None) -> None:
        """Carry what callers asked for one by one and nobody does: of earlier runs, or stopped.

        Where there is any, what had stopped submitting is forgotten, if that was ``noted`` last.
        """
        if (named := await self.intake.take_up(ours=True)) is not None:
            if noted is not None:
                self.stops.forget(noted)
            run = await self.admission.open_run(named, waits=False)
            run.accepted = True

    def take_up_soon(self) -> None:
        """The same in a task of its own; not where the user said that it be left alone."""
        if self.settings.take_up:
            self.taking_up += 1
            self.tasks.start_soon(self._take_up_now, name="asyncpipe take up")

    async def _take_up_now(self) -> None:
        try:
            await self.take_up()
        finally:
            self.taking_up -= 1
            self.tickets.tell_change()

    @property
    def waiting(self) -> list[Wait]:
        """What submitting waits for at the moment."""
        found, trouble = self.waits.all, self.ledger.trouble
        if trouble is not None:
            found.append(Wait(error=trouble[0], since=trouble[1]))
        if (problem := self.room.problem) is not None:
            since = now() - timedelta(seconds=self.room.low_s)
            found.append(Wait(error=problem, since=since))
        return found

    def accept(self, record: JobRecord) -> Ticket:
        """Take a caller's job, or one he had accepted, that is to be done whoever waits for it."""
        ticket = self.admission.offer(record)
        ticket.adopted, ticket.accepted = False, True
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a job back that was not sent yet; False for one that was, or is being sent."""
        revoked = self.admission.revoke(ticket)
        if revoked:
            self.recorder.record(ticket, Withdrawn(job_id=ticket.id, at=now()))
        return revoked

    def _held(self) -> Collection[int]:
        return self.sharing.held if self.sharing is not None else self.tickets

    async def seek_again(self) -> None:
        """Have media fetched once more that were given up."""
        for record in await self.ledger.take([JobState.LOST, JobState.MISSING]):
            self.recorder.append(record, SoughtAgain(job_id=record.id, at=now()))

    def _offer(self, records: Iterable[JobRecord]) -> None:
        for record in records:
            if record.id not in self.tickets:
                self.admission.offer(record).adopted = True

    async def _open_ledger(self, stack: AsyncExitStack) -> None:
        """Lock the folder, or enter the place, and make sense of what a killed run left."""
        folder, provider = self.folder, self.provider
        if not isinstance(self.where, SharedPlace):
            check_local(folder)
        if bucket_of(self.where) is None:
            make_folders(folder, (JobType.IMAGE.folder, JobType.VIDEO.folder, STATE_FOLDER))
        self.origin = Origin(
            provider=provider.name, origin=provider.origin, simulated=provider.simulated
        )
        shared = await self._enter_place(stack)
        if shared is None:
            stack.enter_context(lock_of(folder))
            opening = open_ledger(folder, self.origin, self.stops.note)
            self.ledger = await stack.enter_async_context(opening)
            forget_parts(folder / MANIFEST_NAME)
        await self._check_unused()
        totals = Totals.of(await self.ledger.sums())
        self.money = None if shared is None else SharedMoney()
        self.spending = self.settings.spending.open(
            provider,
            self.money or totals,
            self.money or self.tickets,
            tell=self.settings.tell,
            in_memory=self.tickets if shared is None else None,
            quoter=QuoteRelay(self.relay) if self.relay.others else None,
            others={each.name: each for each in self.relay.others},
        )
        purses = self.spending.budget.purses
        purses.begin(await self.ledger.spent_on(purses.names, purses.day))
        self.recorder = Recorder(
            self.ledger,
            totals,
            self.spending.budget,
            self.stops,
            hooks=self.hooks,
            watches=self.watches,
            shared=shared,
        )
        await mark_interrupted(self.ledger, self.recorder.append)
        self.manifests = ManifestWriter(self.ledger, self.where, self.settings.links)
        self.intake = Intake(
            ledger=self.ledger,
            where=self.where,
            relay=self.relay,
            spending=self.spending,
            recorder=self.recorder,
            tickets=self.tickets,
            fetch_missing=self.settings.fetch_missing,
            local_files=self.settings.local_files,
            shared=shared,
        )
        stack.push_async_callback(within, self._finish)

    async def _enter_place(self, stack: AsyncExitStack) -> SharedLedger | None:
        """Become a worker of a shared ledger; None where the folder has one of its own."""
        if not isinstance(self.where, SharedPlace):
            return None
        spending = self.settings.spending
        cap = spending.max_cost
        opening = open_shared(
            self.where,
            self.origin,
            lease_s=self.settings.lease_s,
            cap=None if cap is None else to_micro(cap),
            budgets={purse.name: purse.cap for purse in spending.purses},
            taken=self._names_in,
            on_gone=self._lose,
        )
        self.shared = await stack.enter_async_context(opening)
        self.ledger = self.shared
        return self.shared

    def _lose(self, ids: Collection[int]) -> None:
        if self.sharing is not None:
            self.sharing.lose(ids)

    async def _write_manifest(self) -> None:
        """Write it beside the run; a bucket's store may be away for a while, and is tried again."""
        try:
            await self.manifests.write()
        except DiskError as exc:
            if bucket_of(self.where) is None:
                raise
            logger.warning("no manifest for now: %s", exc, extra={"action": "manifest.failed"})

    async def _finish(self) -> None:
        """Write what is left and the manifest; a ledger that failed has said so already."""
        self.recorder.tell()
        try:
            totals = self.recorder.totals
            await self.manifests.write_changes(totals.total - totals.pending)
            await self.intake.end()
        except (LedgerError, DiskError) as exc:
            logger.warning("no manifest: %s", exc, extra={"action": "manifest.failed"})

    async def _open_connections(self, stack: AsyncExitStack) -> None:
        for each in self.relay:
            await stack.enter_async_context(each)
        if bucket_of(self.where) is None:
            await stack.enter_async_context(self.store)

    async def _check_unused(self) -> None:
        """Raise LedgerError where a bucket shows that another ledger knows what was bought for it.

        With this one everything would be bought again.
        """
        if bucket_of(self.where) is None or await self.ledger.last_row():
            return
        head = await asyncio.to_thread(read_head, self.where)
        if head is not None and "total_jobs" not in head:
            raise LedgerError(
                f"{self.where}/{MANIFEST_NAME} is there, and is no manifest of asyncpipe's: it "
                "would be written over; choose another prefix"
            )
        if head is not None and (jobs := head["total_jobs"]):
            raise LedgerError(
                f"{self.where} holds a manifest of {jobs} jobs, and this ledger knows none of "
                "them: it would buy them again. Say --ledger and --place as the run that made it "
                "did, choose another prefix, or remove the manifest if nothing in it is wanted"
            )

    def _make_admission(self, stack: AsyncExitStack) -> None:
        """Make what says who goes when, with what earlier runs learned of it."""
        settings, provider = self.settings, self.provider
        learned = settings.limits.window == "learned"
        memory = memory_of(provider, "window") if learned else None
        self._windows = windows = Windows(
            max_workers=settings.workers,
            limits=settings.limits,
            learned=learned,
            shared=self.shared is not None,
            kept=memory.load() if memory else {},
        )
        pace = Pace(cap=settings.limits.requests_per_second)
        gate = Gate(pace, clock=self.clock, news=self.news.set)
        self.limiter = Limiter(gate, settings.rng, windows.of, workers=settings.workers)
        if memory is not None:
            stack.callback(_keep_windows, memory, self.limiter)
        self.room = DiskSpace(
            self.folder,
            settings.min_free_bytes if bucket_of(self.where) is None else 0,
            self.clock,
            settings.patience_s,
            self.stops.note,
        )
        self.admission = Admission(
            self.ledger,
            tickets=self.tickets,
            stops=self.stops,
            recorder=self.recorder,
            limiter=self.limiter,
            spending=self.spending,
            room=self.room,
            waits=self.waits,
            news=self.news,
            patience_s=PATIENCE_S if settings.patience_s is None else settings.patience_s,
            shared=self.shared is not None,
        )
        self.latencies = latencies_of(
            settings.polling,
            memory_of(provider, LATENCY),
            settings.rng,
            tail=self.admission.tail,
        )
        stack.callback(self.latencies.keep)

    def _make_driver(self) -> None:
        """Make what carries one job, stage by stage."""
        settings, rng = self.settings, self.settings.rng
        answers, owners = Answers(settings.tell), PredictionOwners()
        inquiry = Inquiry(self.relay, self.limiter, answers)
        uploads = Uploads(self.provider, self.ledger, rng)
        submitter = Submitter(
            relay=self.relay,
            ledger=self.ledger,
            recorder=self.recorder,
            uploads=uploads,
            limiter=self.limiter,
            spending=self.spending,
            stops=self.stops,
            owners=owners,
            answers=answers,
            retries=settings.retries,
            patience_s=settings.patience_s,
            rng=rng,
            money=self.money,
            waits=self.waits,
            may_send=partial(_may_send, self.shared.lease) if self.shared else None,
            holds=settings.ambiguous == "hold",
        )
        poller = Poller(
            inquiry=inquiry,
            ledger=self.ledger,
            recorder=self.recorder,
            policy=self.latencies.polls,
            deadlines=settings.deadlines,
            retries=settings.retries,
            owners=owners,
            stops=self.stops,
            clock=self.clock,
            tell=settings.tell,
            callbacks=self.callbacks,
            backstop_s=self._backstop_s,
        )
        self.aftercare = Aftercare(self.ledger, self._offer, self.clock)
        self.searcher = self._make_searcher(inquiry, owners)
        self._make_sharing()
        self.fetcher = self._make_fetcher(inquiry)
        self.driver = Driver(
            admission=self.admission,
            uploads=uploads,
            submitter=submitter,
            poller=poller,
            fetcher=self.fetcher,
            recorder=self.recorder,
            aftercare=self.aftercare,
            searcher=self.searcher,
        )

    def _backstop_s(self, route: str) -> float | None:
        """How seldom a prediction of this route is polled that is called back; None: it is not."""
        polling, maker = self.settings.polling, self.relay.bought_from(route)
        called = maker is not None and calls_back(maker)
        return polling.backstop_s / polling.speed if called else None

    def _make_fetcher(self, inquiry: Inquiry) -> Fetcher:
        """Make what brings media home."""
        return Fetcher(
            inquiry=inquiry,
            ledger=self.ledger,
            store=self.store,
            downloads=self.settings.limits.downloads,
            recorder=self.recorder,
            stop=self.stops.note,
            clock=self.clock,
            rng=self.settings.rng,
            retention_s=retention_of(self.provider),
        )

    def _notice(self, *, ended: bool) -> Notice:
        """What is to be told now."""
        return notice_of(
            folder=str(bucket_of(self.where) or self.folder),
            totals=self.recorder.totals,
            stopped=self.stops.first,
            ended=ended,
            simulated=self.provider.simulated,
        )

    async def tell_end(self) -> None:
        """Tell whoever is to be told that a batch has ended."""
        if self.notices is not None:
            await self.notices.ended(self._notice(ended=True))

    def _make_sharing(self) -> None:
        """Make what looks at what other workers do, where there may be some."""
        if self.shared is None or self.money is None:
            return
        self.sharing = Sharing(
            self.shared,
            tickets=self.tickets,
            admission=self.admission,
            recorder=self.recorder,
            searcher=self.searcher,
            limiter=self.limiter,
            budget=self.spending.budget,
            money=self.money,
            adopt_open=self.adopt,
        )

    def _make_searcher(self, inquiry: Inquiry, owners: PredictionOwners) -> Searcher:
        """Make what looks for lost submits."""
        return Searcher(
            provider=self.provider,
            ledger=self.ledger,
            recorder=self.recorder,
            admission=self.admission,
            tickets=self.tickets,
            inquiry=inquiry,
            gate=self.limiter.gate,
            owners=owners,
            stops=self.stops,
            enabled=self.settings.ambiguous.startswith("find"),
            resubmit=self.settings.ambiguous == "find-resubmit",
            search_s=self.settings.search_s,
            tell=self.settings.tell,
            memory=memory_of(self.provider, "absence"),
            put_down=self.aftercare.put_down,
        )

    def _start(self) -> None:
        """Start every task there is, streams' and comparisons' apart."""
        start = self.tasks.start_soon
        start(self.admission.run, name="asyncpipe admission")
        start(self.admission.draw, name="asyncpipe draw")
        start(self.admission.ask_quotes, name="asyncpipe quotes")
        start(self.spending.balance.keep, self.news.set, name="asyncpipe balance")
        start(self.aftercare.run, name="asyncpipe aftercare")
        start(self.searcher.run, name="asyncpipe search")
        if self.notices is not None:
            self.stops.heard = self.notices.stopped
            start(self.notices.run, partial(self._notice, ended=False), name="asyncpipe notices")
        if self.settings.take_up:
            start(Backlog(self.stops, self.take_up).run, name="asyncpipe backlog")
        start(self.recorder.keep_manifest, self._write_manifest, name="asyncpipe manifest")
        self._drivers = 0
        self._start_drivers()

    def _start_drivers(self) -> None:
        """Start as many as there may be work for; those that are too many wait for none."""
        settings = self.settings
        for n in range(self._drivers, settings.workers + 2 * settings.limits.downloads):
            self.tasks.start_soon(self.driver.run, name=f"asyncpipe driver {n + 1}")
            self._drivers = n + 1

    def set(self, settings: EngineSettings) -> None:
        """Go by other settings from now on, as far as they can be changed while it runs."""
        self.settings, limits = settings, settings.limits
        self._windows = replace(self._windows, max_workers=settings.workers, limits=limits)
        self.limiter.set(self._windows, workers=settings.workers)
        self.fetcher.resize(limits.downloads)
        cap = settings.spending.max_cost
        self.spending.budget.set(None if cap is None else to_micro(cap))
        self.admission.resize()
        self._start_drivers()

    def stop(self) -> None:
        """Submit nothing more; what was submitted goes on, the rest stays pending."""
        reason = AsyncpipeError("the run was drained before this job was submitted")
        self.stops.drain(reason)


def _may_send(lease: Lease) -> bool:
    return lease.may_send


def memory_of(provider: Provider, subject: str) -> Memory | None:
    """The memory for ``subject`` at ``provider``'s account; None for what is not worth keeping.

    A simulator, or whatever else runs on this machine, says nothing of a real API.
    """
    if provider.simulated or on_loopback(provider.origin):
        return None
    return Memory(subject, origin=provider.origin, account=account_of(provider))


def learned_before(provider: Provider) -> Callable[[str, Mapping[str, Any]], Latency | None]:
    """What earlier runs at ``provider`` learned: a model and a job's parameters to its times."""
    return recall(memory_of(provider, LATENCY))


def _names_in(bucket: Bucket, folder: str) -> list[str]:
    """The names in a bucket's folder; none while they cannot be had: they only save a nicer one.

    Whoever stores an object never takes another's name.
    """
    try:
        return bucket.names(folder)
    except (DiskError, DownloadError) as exc:
        logger.warning("%s", exc, extra={"action": "names.failed"})
        return []


def _keep_windows(memory: Memory, limiter: Limiter) -> None:
    """Keep for the next run what this one learned of limits; never raises."""
    memory.save(lessons(limiter.limited))
