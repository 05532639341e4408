"""The public face: a pipeline that is opened, given jobs, and closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import PurePath
from random import Random
from types import TracebackType
from typing import Any, Self

from asyncpipe.engine.answers import safely
from asyncpipe.engine.controls import UNSAID, Controls, Unsaid, changed
from asyncpipe.engine.decide import RetryPolicy
from asyncpipe.engine.engine import Engine, EngineSettings
from asyncpipe.engine.handles import Handle
from asyncpipe.engine.health import Health, health_of
from asyncpipe.engine.ingest import JobLike, Jobs, one_job
from asyncpipe.engine.intake import NOTHING, explain
from asyncpipe.engine.lifetime import Lifetime, while_open
from asyncpipe.engine.options import check_provider_object, check_settings
from asyncpipe.engine.stream import NotTaken, ResultStream
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import AsyncpipeError, ClaimLost, LedgerError, UsageError, own_copy
from asyncpipe.flow import Limiter
from asyncpipe.jobfile import has_placeholder
from asyncpipe.jobs import (
    ENDED,
    Deadlines,
    Hook,
    Job,
    JobRecord,
    JobState,
    LedgerAt,
    Limits,
    Links,
    OutputPlace,
    Polling,
    Recovery,
    Storage,
    Withdrawn,
    group_of,
    now,
    place_of,
)
from asyncpipe.ledger import Named, ResultRow, where_of
from asyncpipe.pricing import SpendingLimits, Tell
from asyncpipe.providers import Provider
from asyncpipe.report import (
    Manifest,
    Outcome,
    Result,
    Totals,
    ask_result,
    files_of,
    left_s,
    refused,
    result_of,
)
from asyncpipe.webhooks import Notify, RawHeaders, Verifier

logger = logging.getLogger("asyncpipe.engine")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWork:
    """How the jobs of a shard stand: how many by state, and how many other live workers have.

    ``stopped`` is why submitting was stopped before the end, or None.
    """

    jobs: Mapping[JobState, int]
    elsewhere: int
    stopped: AsyncpipeError | None

    @property
    def totals(self) -> dict[str, int]:
        """The counts as JSON has them; ``left`` have not ended."""
        counts = {state.value: count for state, count in self.jobs.items() if count}
        left = sum(count for state, count in self.jobs.items() if state not in ENDED)
        return {**counts, "left": left}


def _one_place(name: str | OutputPlace) -> OutputPlace:
    """The place that is meant; raises UsageError for a template, which a job file may have."""
    if isinstance(name, str | PurePath) and has_placeholder(str(name)):
        raise UsageError(
            f"{name} names no folder yet: `asyncpipe run` opens one; in a program give Pipeline a "
            "folder, as load_jobs(FILE).settings.template.folder(moment) makes one"
        )
    return place_of(name)


def _several(hooks: Hook | Iterable[Hook] | None) -> tuple[Hook, ...]:
    """The hooks that are meant; raises UsageError for what nobody can call."""
    if hooks is None or callable(hooks):
        return (hooks,) if hooks else ()
    found = tuple(hooks)
    for hook in found:
        if not callable(hook):
            raise UsageError(f"on_event: {hook!r} cannot be called with an event and a job")
    return found


PAGE = 200
"""So many results are read at once."""


def _outcome_of(outcome: Outcome | str | None) -> str | None:
    if outcome is not None and outcome not in [*Outcome]:
        raise UsageError(f"outcome: {outcome!r} must be one of {', '.join(Outcome)}")
    return None if outcome is None else str(outcome)


def _label_of(label: str | None) -> tuple[str, str] | None:
    if label is None:
        return None
    name, said, value = label.partition("=")
    if not said:
        raise UsageError(f"label: {label!r} must be name=value")
    return name, value


def _checked(*providers: Provider) -> tuple[Provider, ...]:
    """The providers, each looked at; raises UsageError for what is none."""
    for each in providers:
        check_provider_object(each)
    return providers


class Pipeline:
    """Run jobs into one output folder; a service keeps one for its lifetime.

    ``max_workers`` bounds the predictions in flight, ``limits`` what else may be under way,
    ``spending`` the money; ``recovery`` says what is done about what goes wrong, ``storage`` where
    files may come from and how they are linked to. For each group a mapping of its fields will do.
    With a ``ledger`` (``postgresql://…``, or ``LedgerAt``) that others may share this is one of its
    workers. ``on_event`` is a hook, or several, that every event is given to; ``on_remark``
    (default: the log) is called with what users should know. ``notify`` are URLs that are told when
    a batch ends, stops or needs a decision, see ``Notify``. Jobs run in the pipeline's own tasks:
    leaving early loses nothing paid for. Raises FolderInUse, LedgerError, UsageError (another
    provider's or account's folder, an option that is wrong).
    """

    folder: OutputPlace
    """Where the results go."""

    def __init__(
        self,
        provider: Provider,
        output_dir: str | OutputPlace = "pipeline_output",
        *,
        max_workers: int = 64,
        limits: Limits | Mapping[str, Any] | None = None,
        spending: SpendingLimits | Mapping[str, Any] | None = None,
        deadlines: Deadlines | Mapping[str, float] | None = None,
        polling: Polling | Mapping[str, Any] | None = None,
        recovery: Recovery | Mapping[str, Any] | None = None,
        storage: Storage | Mapping[str, Any] | None = None,
        ledger: str | LedgerAt | Mapping[str, Any] | None = None,
        fallback_to: Iterable[Provider] = (),
        on_event: Hook | Iterable[Hook] | None = None,
        on_remark: Tell = logger.warning,
        notify: Notify | str | Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        self._provider, *others = _checked(provider, *fallback_to)
        recovered, stored = (
            group_of(Recovery, "recovery", recovery),
            group_of(Storage, "storage", storage),
        )
        at = {"url": ledger} if isinstance(ledger, str) else ledger
        self._ledger_at = group_of(LedgerAt, "ledger", at)
        self.folder = _one_place(output_dir)
        self._settings = EngineSettings(
            workers=max_workers,
            limits=Limits.of(limits),
            retries=RetryPolicy(recovered.retries, recovered.ambiguous == "resubmit"),
            deadlines=group_of(Deadlines, "deadlines", deadlines),
            polling=group_of(Polling, "polling", polling),
            patience_s=recovered.patience_s,
            min_free_bytes=stored.min_free_bytes,
            ambiguous=recovered.ambiguous,
            search_s=recovered.search_s,
            fetch_missing=recovered.fetch_missing,
            local_files=None if stored.local_files is None else place_of(stored.local_files),
            spending=group_of(SpendingLimits, "spending", spending),
            links=Links.of(stored.public_url, stored.presign),
            tell=safely(on_remark),
            same_account=stored.same_account,
            fallback_to=tuple(others),
            lease_s=self._ledger_at.lease_s,
            hooks=_several(on_event),
            take_up=recovered.take_up,
            rng=Random(seed),
            notify=Notify.of(notify),
        )
        check_settings(self._settings)
        self._engine: Engine | None = None
        self._life = Lifetime(self._over)

    @property
    def provider_name(self) -> str:
        """The name of the provider that jobs go to."""
        return self._provider.name

    @property
    def provider_origin(self) -> str:
        """Where that is: the address of its API."""
        return self._provider.origin

    @property
    def stopped(self) -> AsyncpipeError | None:
        """Why submitting was stopped before the end, for all models or for one, or None."""
        return self._engine.stops.first if self._engine else None

    @property
    def waiting(self) -> AsyncpipeError | None:
        """What submitting waits for at the moment, or None: see ``health``."""
        waits = self._engine.waiting if self._engine and self._life.is_open else ()
        return next((wait.error for wait in waits), None)

    def health(self) -> Health:
        """How the pipeline is, from any thread: ok, waiting, stopped, failed or closed, and why.

        It waits for what may pass by itself (the API is down or refuses, the disk is full, somebody
        holds the ledger, its database is away), which is logged as a WARNING at once and about
        once a minute. Nothing is lost meanwhile.
        """
        engine = self._engine
        stopped = engine.stops.run if engine else None
        return health_of(
            opened=self._life.is_open,
            failure=self._life.failure,
            stopped=(stopped, engine.stops.since) if engine and stopped else None,
            waits=engine.waiting if engine and self._life.is_open else (),
        )

    @property
    def turned_up(self) -> int:
        """How many submits turned up that had been taken for absent: each is paid for twice."""
        return self._engine.searcher.turned_up if self._engine else 0

    @property
    def totals(self) -> Totals:
        """What the folder's ledger holds, counted along as events come; as it was when closed."""
        return self._parts(ever=True).recorder.totals

    @property
    def limiter(self) -> Limiter:
        """What is known of the API's limits; as it was when closed."""
        return self._parts(ever=True).limiter

    @while_open
    async def left_s(self) -> float | None:
        """About how many seconds the open jobs will take; None while too little is known."""
        engine = self._parts()
        if self.stopped is not None:
            return None
        jobs, totals = await engine.ledger.open_work(), self.totals
        pending, slots = totals.jobs[JobState.PENDING], totals.in_flight
        return left_s(jobs, pending, engine.latencies.of, slots, at=now())

    async def open(self) -> None:
        """Open the pipeline for as long as you like: every task of the running loop may use it.

        What it owns lives in a task of its own, so that ``aclose`` may be called by any other.
        Cancelled, nothing stays open. Closed, it may be opened again. Raises FolderInUse,
        LedgerError, and UsageError for another provider's or account's folder, or when it is open.
        """
        await self._life.open(self._enter)
        try:
            await self._parts().hooks.opened(self)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the pipeline; jobs that have not ended are kept, and callers are told.

        It may be called again, by others, too: all wait for the end. Cancelled, it is closed all
        the same before the cancellation goes on. Raises what the pipeline had failed of.
        """
        await self._life.close()

    async def _enter(self, stack: AsyncExitStack) -> None:
        # Assembled here, not in __init__: a pipeline may be made outside a loop, opened again.
        where = where_of(self.folder, self._ledger_at.url, self._ledger_at.place)
        engine = Engine(self._provider, where, self._settings)
        await engine.open(stack)
        self._engine = engine

    def _over(self, reason: AsyncpipeError) -> None:
        if self._engine is not None:
            self._engine.admission.abandon(reason)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _parts(self, *, ever: bool = False) -> Engine:
        """The engine; ``ever``: also one that is closed, or seen from another thread."""
        if not ever or self._engine is None:
            self._life.check()
        assert self._engine is not None, "what is open has been entered"
        return self._engine

    @while_open
    async def submit(self, job: JobLike, *, on_event: Hook | None = None) -> Handle:
        """Accept one job and return a handle on it: it will be done, after a restart as well.

        It is in the ledger, durably, before this returns, and is bought once however often it is
        asked for (by name, or idempotency key); nobody has to wait for it. ``Handle.cancel`` takes
        it back. ``on_event`` hears of what happens to this job until it ends, or is put down
        unfinished. Raises UsageError for a job that is malformed or cannot be priced, and what
        stops submitting at the moment: then it was not accepted.
        """
        hooks = _several(on_event)
        found = await self._admit(one_job(job))
        if isinstance(found, Ticket):
            found.accepted = True
            self._follow(found, hooks)
        record = found if isinstance(found, JobRecord) else found.record
        await self._parts().ledger.durable()
        return self._handle(record)

    def _follow(self, ticket: Ticket, hooks: Iterable[Hook]) -> None:
        """Have hooks hear of what happens to a job that we carry."""
        engine = self._parts()
        for hook in hooks if engine.tickets.get(ticket.id) is ticket else ():
            engine.hooks.follow(ticket.id, hook)

    def _handle(self, record: JobRecord) -> Handle:
        return Handle(record.name, record.key, record.id, self)

    @while_open
    async def get(
        self,
        name: str | None = None,
        *,
        key: str | None = None,
        prediction_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Handle | None:
        """The job of that name, key, prediction or idempotency key; None where there is none.

        Any job of the ledger, a batch's or a caller's; of several of a name the newest. Raises
        UsageError unless exactly one of them is said.
        """
        asked = {
            "name": name,
            "key": key,
            "prediction_id": prediction_id,
            "idempotency_key": idempotency_key,
        }
        said = [(by, value) for by, value in asked.items() if value is not None]
        if len(said) != 1:
            raise UsageError(f"get takes exactly one of {', '.join(asked)}")
        found = await self._parts().ledger.find(*said[0])
        return None if found is None else self._handle(found.record)

    async def list(
        self,
        *,
        outcome: Outcome | str | None = None,
        label: str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Yield the results of jobs as they stand, newest first, at most ``limit`` (None: all).

        With ``outcome``, or a ``label`` as ``name=value``, only those that have it. They are read
        page by page: memory does not grow with their number, and jobs that come meanwhile are left
        out. Raises UsageError for a label without "=", an outcome there is none of.
        """
        wanted, labelled = _outcome_of(outcome), _label_of(label)
        before, left = 2**62, limit
        while left is None or left > 0:
            page = await self._page(before, min(left or PAGE, PAGE), wanted, labelled)
            for row in page:
                yield result_of(row, files_of(self._parts().where))
            if len(page) < min(left or PAGE, PAGE):
                return
            before, left = page[-1]["id"], None if left is None else left - len(page)

    @while_open
    async def _page(
        self, before: int, limit: int, outcome: str | None, label: tuple[str, str] | None
    ) -> Sequence[ResultRow]:
        return await self._parts().ledger.results_page(
            before=before, limit=limit, outcome=outcome, label=label
        )

    @while_open
    async def generate(
        self, job: JobLike, *, wait: bool = True, on_event: Hook | None = None
    ) -> Result:
        """Run one job and return its result; a failed one is a result, never raised.

        A named job that this folder knows is not bought again: its result is returned, or waited
        for. Cancelling withdraws the job if it was not submitted yet; otherwise it goes on without
        you and its result stays in the folder. ``on_event`` hears of what happens to this job, as
        the pipeline's own hooks do, until it ends. Raises IdempotencyConflict for another job than
        the one that its idempotency key stands for, TooExpensive for one that costs more than its
        ``max_cost``, ClaimLost without ``wait`` for a job that
        another worker of the ledger carries, UsageError for a job that is malformed or
        cannot be priced, BudgetReached for one that does not fit, what stopped the pipeline before
        this job (KeyRefused, BalanceExhausted …), AsyncpipeError when it was closed meanwhile.
        """
        hooks = _several(on_event)
        found = await self._admit(one_job(job), wait=wait)
        if isinstance(found, Ticket):
            self._follow(found, hooks)
            caller = found.wait()
            try:
                await caller
            except asyncio.CancelledError:
                self._withdraw(found, caller)
                raise
        engine = self._parts(ever=True)
        return await ask_result(engine.ledger, found.id, engine.where)

    async def stream(self, jobs: Jobs) -> AsyncGenerator[Result, None]:
        """Yield results as jobs finish; reads at most 4 x max_workers jobs ahead.

        A job that is malformed or cannot be priced is a failed result of its own, with its
        ``error``. ``jobs`` that do not come from an async iterable are read in a thread. Leaving
        the loop early withdraws what was not submitted yet, closes a generator, and loses nothing
        else. Raises what ``jobs`` raises, and what stopped submitting, after the results of all
        that is under way.
        """
        engine = self._parts()
        ahead = ResultStream(4 * self._settings.workers, self._withdraw)
        engine.tasks.start_soon(ahead.feed, jobs, self._admit_one, name="asyncpipe stream feed")
        try:
            while (result := await self._next(ahead)) is not None:
                yield result
        finally:
            ahead.close()

    @while_open
    async def _next(self, ahead: ResultStream) -> Result | None:
        ended = await ahead.next()
        if isinstance(ended, NotTaken):
            return refused(ended.item, ended.error)
        if ended is None:
            return None
        engine = self._parts()
        return await ask_result(engine.ledger, ended.id, engine.where)

    async def _admit_one(self, job: JobLike) -> Ticket | JobRecord:
        return await self._admit(one_job(job))

    @while_open
    async def batch_generate(
        self,
        jobs: Jobs,
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
        take_all = partial(
            self._parts().intake.take_all,
            jobs,
            job_file=job_file,
            digest=digest,
            retry_failed=retry_failed,
            resubmit_unknown=self._settings.retries.resubmit_unknown,
        )
        return await self._run(take_all)

    @while_open
    async def enqueue(
        self,
        jobs: Jobs,
        *,
        shard_size: int = 200,
        settings: Mapping[str, Any] | None = None,
        job_file: str | None = None,
        digest: str | None = None,
        retry_failed: bool = False,
    ) -> Sequence[int]:
        """Write jobs for the workers of a queue; return the shards that have work to do.

        Each has ``shard_size`` jobs; the same jobs again are in the same shards. ``settings`` are
        kept for the workers (JSON; see ``place_settings``). Needs a shared ledger. Raises what
        ``batch_generate`` does, before anything can be bought.
        """
        if shard_size < 1:
            raise UsageError("shard_size must be at least 1")
        engine = self._parts()
        named = await engine.intake.take_all(
            jobs,
            job_file=job_file,
            digest=digest,
            retry_failed=retry_failed,
            resubmit_unknown=self._settings.retries.resubmit_unknown,
        )
        shards = await engine.intake.enqueue(named, shard_size, settings or {})
        await engine.intake.end(named.run)
        return shards

    @while_open
    async def work(self, *, shard: int | None = None) -> ShardWork:
        """Carry jobs that are in a shared ledger already: those of ``shard``, or all.

        With places free what dead workers had is carried, too. Returns when nothing of it is left
        that no other worker has.
        """
        engine = self._parts()
        if engine.shared is None or engine.sharing is None:
            raise UsageError("work is shared by workers of one ledger: Pipeline(…, ledger=…)")
        engine.sharing.working = True
        await engine.shared.serve(shard)
        await self._carry(Named(run=1, single=-1, shard=shard), waits=False)
        standing = await engine.shared.standing(shard)
        return ShardWork(
            jobs={state: standing.states.get(state, 0) for state in JobState},
            elsewhere=standing.elsewhere,
            stopped=engine.stops.first,
        )

    @while_open
    async def resume(self) -> Manifest:
        """Buy what ``generate`` and ``stream`` accepted in earlier processes and did not submit.

        Returns the manifest when none can go on. Paid jobs are brought home without it, whenever a
        pipeline is open.
        """
        return await self._run(self._accepted_before)

    async def _accepted_before(self) -> Named:
        return await self._parts().intake.take_up() or NOTHING

    async def _run(self, take: Callable[[], Awaitable[Named]]) -> Manifest:
        engine = self._parts()
        noted = engine.stops.noted
        named = await take()
        await self._carry(named, noted=noted)
        await engine.intake.end(named.run)
        manifest = await engine.manifests.end_batch()
        await engine.tell_end()
        return manifest

    async def _carry(self, named: Named, *, noted: int | None = None, waits: bool = True) -> None:
        """Carry what a run names; with ``waits`` until other workers have carried theirs."""
        engine = self._parts()
        stops = engine.stops
        noted = stops.noted if noted is None else noted
        if engine.sharing is not None:
            engine.sharing.forget_left()
        await engine.adopt()
        await engine.searcher.begin()
        await engine.send_again()
        stops.forget(noted)
        engine.driver.submitter.begin()
        if (short := await engine.spending.balance.too_little()) is not None:
            stops.note(short)
        run = await engine.admission.open_run(named, comparing=waits, waits=waits)
        if waits:
            compare = partial(engine.intake.compare, named.run, run, engine.admission, stops)
            engine.tasks.start_soon(compare, name="asyncpipe comparison")
        try:
            await run.wait()
        except asyncio.CancelledError:  # what is not submitted yet stays pending
            engine.admission.close_run(run)
            raise
        await self._look_once_more()
        await explain(stops, engine.ledger, named, engine.spending)

    @while_open
    async def collect(self, *, lost: bool = False) -> Manifest:
        """Poll and download what was submitted before; buy nothing; return the manifest.

        Returns when everything that this folder knows as bought is on disk, failed, or has to
        wait for another run. With ``lost`` media that were given up are tried once more.
        """
        engine = self._parts()
        if lost:
            await engine.seek_again()
        await engine.adopt()
        await engine.searcher.begin()
        run = await engine.admission.open_run(None)
        await run.wait()
        await self._look_once_more()
        return await engine.manifests.end_batch()

    async def _look_once_more(self) -> None:
        """Look for lost submits at a run's end, and wait for what is found."""
        engine = self._parts()
        if await engine.searcher.finish():
            run = await engine.admission.open_run(None)
            await run.wait()

    async def _admit(self, job: Job, *, wait: bool = True) -> Ticket | JobRecord:
        """Write one job to the ledger and take it up; return its record if it has ended."""
        engine = self._parts()
        stops = engine.stops
        short, noted = await engine.spending.balance.too_little(), stops.noted
        taken = await engine.intake.take(job)
        record, single = taken.record, taken.alone
        if record.state in ENDED:
            return record
        if taken.elsewhere and not wait:
            raise ClaimLost(f"{record.name} is carried by another worker")
        if taken.elsewhere and engine.sharing is not None:
            return engine.sharing.wait_for(record)
        if stops.forget(noted):
            engine.take_up_soon()  # what was accepted may go on, too
        if record.state is JobState.PENDING and (reason := stops.of(record) or short):
            self._refuse(record, single=single)
            raise own_copy(reason)
        known = engine.tickets.get(record.id)
        if single and known is not None:  # a batch's job stays the batch's
            single = known.single or known.adopted
        engine.hooks.admitted(record)
        ticket = engine.admission.offer(record)
        ticket.adopted, ticket.single = False, single
        return ticket

    def _refuse(self, record: JobRecord, *, single: bool) -> None:
        """Withdraw a job that is not taken up, unless others want it, or it was submitted before.

        Its caller is told; left pending it would have later runs of the folder end unfinished.
        """
        engine = self._parts()
        failed = isinstance(engine.stops.run, LedgerError)
        if single and not record.used and record.id not in engine.tickets and not failed:
            engine.recorder.append(record, Withdrawn(job_id=record.id, at=now()))

    def _withdraw(self, ticket: Ticket, caller: asyncio.Future[JobRecord]) -> None:
        """Give up waiting for a job; nobody's any more and untouched, it is withdrawn."""
        engine = self._parts(ever=True)
        if engine.admission.withdraw(ticket, caller):
            engine.recorder.record(ticket, Withdrawn(job_id=ticket.id, at=now()))

    async def deliver(
        self, headers: RawHeaders, body: bytes, *, verifier: Verifier | None = None
    ) -> int:
        """Take a webhook of the provider's: its headers and raw body; return the status to answer.

        One that is right has its prediction polled at once, whatever else it says; 200 also where
        nobody waits for it. NotTaken ones are counted and logged without what they say: 4xx; 503
        means that it should come again. ``verifier`` is for another sender than the provider.
        Raises UsageError where nothing tells deliveries from forgeries.
        """
        if self._engine is None or not self._life.is_open:
            return 503
        return await self._engine.deliveries.take(headers, body, verifier)

    def heard(self, prediction_id: str) -> bool:
        """Poll a prediction at once, of which something was heard; whether it is being polled."""
        return self._parts().callbacks.hear([prediction_id])

    @property
    def deliveries(self) -> Mapping[str, int]:
        """How many webhooks came, by what became of them; as it was when closed.

        ``woken``: a poll was made at once; ``kept``: nobody waits for it, or not yet; or by why
        they were refused.
        """
        return self._engine.deliveries.counts if self._engine else {}

    def pause(self) -> None:
        """Submit nothing until ``go``: what was submitted goes on, the rest waits."""
        Controls(self._parts()).pause()

    def go(self) -> None:
        """Submit again, whatever had paused, stopped or drained it, and what had been accepted."""
        Controls(self._parts()).go()

    def stop(self) -> None:
        """Submit nothing more; what was submitted goes on, the rest stays pending until ``go``."""
        self._parts(ever=True).stop()

    @while_open
    async def drain(self, grace_s: float | None = None) -> Sequence[Handle]:
        """Submit nothing more; wait at most ``grace_s`` seconds (None: however long) for what was.

        Returns the jobs that are still under way then: they are kept, and go on as long as the
        pipeline is open. What was not submitted stays pending until ``go``, or the next opening.
        """
        left = await Controls(self._parts()).drain(grace_s)
        return [self._handle(ticket.record) for ticket in left]

    @while_open
    async def idle(self) -> None:
        """Wait until nothing is under way, and nothing waits that may be submitted now."""
        await Controls(self._parts()).idle()

    def set(
        self,
        *,
        max_workers: int | None = None,
        max_cost: Decimal | Unsaid | None = UNSAID,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> None:
        """Change what is said, from now on: workers, budget (None: no cap), or all limits.

        Fewer workers take effect as jobs end; a larger budget has what did not fit tried again.
        Raises UsageError naming what is wrong: then nothing is changed.
        """
        settings = changed(
            self._settings,
            max_workers=max_workers,
            max_cost=max_cost,
            limits=None if limits is None else Limits.of(limits),
        )
        if self._life.is_open:
            Controls(self._parts()).set(settings)
        self._settings = settings
