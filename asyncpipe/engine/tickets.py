"""The jobs in memory: one ticket each, in one registry; who waits for them, and what stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from asyncpipe.engine.chase import Chase
from asyncpipe.engine.watch import Watches
from asyncpipe.errors import AsyncpipeError, BudgetReached, own_copy
from asyncpipe.flow import Permit
from asyncpipe.jobs import ENDED, Job, JobRecord, JobState, now
from asyncpipe.ledger import Drawn, Named
from asyncpipe.pricing import Hold, Price, Purse

logger = logging.getLogger("asyncpipe.engine")


@dataclass(slots=True, eq=False)
class Ticket:
    """One job, from when admission or a caller takes it up to when everybody lets go of it.

    ``runs`` wait for it, and so do ``callers``, each with a future of its own. It is a caller's
    ``single`` when no batch names it: it goes with its last caller while nothing was sent. An
    ``adopted`` one is paid work of an earlier run that nobody named in this one: it is brought
    home, and what fails of it is not bought anew. ``chase`` tells of downloads that failed in this
    run and go on. It is ``accepted`` where it is to be done whether or not anybody waits for it.
    ``asked_at`` is when the last caller came, ``answered_at`` when its submit was taken
    in this run, by the loop's clock. ``gone``: another worker has the job.
    """

    record: JobRecord
    runs: list[OpenRun] = field(default_factory=list)
    callers: list[asyncio.Future[JobRecord]] = field(default_factory=list)
    single: bool = False
    adopted: bool = False
    accepted: bool = False
    looked_again: bool = False
    price: Price | None = None
    hold: Hold | None = None
    permit: Permit | None = None
    chase: Chase | None = None
    asked_at: float = 0.0
    answered_at: float | None = None
    gone: bool = False

    @property
    def id(self) -> int:
        """The job's id in the ledger."""
        return self.record.id

    @property
    def state(self) -> JobState:
        """Where the job stands."""
        return self.record.state

    @property
    def job(self) -> Job:
        """What is to be made, in the lane where it is."""
        return self.record.made_as

    @property
    def kept(self) -> bool:
        """Whether it was accepted, by this process or another: it is to be done."""
        return self.accepted or any(run.accepted for run in self.runs)

    @property
    def claimed(self) -> bool:
        """Whether callers asked for it: it belongs to no run, whether they still wait or not."""
        return self.single or bool(self.callers)

    @property
    def awaited(self) -> bool:
        """Whether a caller still waits for it."""
        return any(not future.done() for future in self.callers)

    def wait(self) -> asyncio.Future[JobRecord]:
        """A future that the job's end resolves; cancelling it concerns nobody else."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[JobRecord] = loop.create_future()
        self.callers.append(future)
        self.asked_at = loop.time()
        return future

    def leave(self, future: asyncio.Future[JobRecord]) -> None:
        """Wait no more; without it a job that never ends would keep all who ever asked for it."""
        if future in self.callers:
            self.callers.remove(future)

    def pursue(self, chase: Chase | None) -> None:
        """Go on trying to download it; None: no more."""
        change = (chase is not None) - (self.chase is not None)
        for run in self.runs:
            run.chased += change
        self.chase = chase

    def excuse(self, run: OpenRun) -> None:
        """Let a run go that waits no more."""
        self.runs.remove(run)
        run.open -= 1
        run.chased -= self.chase is not None

    def tell(self, outcome: JobRecord | AsyncpipeError) -> None:
        """Resolve everybody who waits."""
        callers, self.callers = self.callers, []
        for future in callers:
            if future.done():
                continue
            if isinstance(outcome, JobRecord):
                future.set_result(outcome)
            else:
                future.set_exception(own_copy(outcome))


class Tickets(dict[int, Ticket]):
    """Every job in memory, by its id; ``left`` hears of those let go of before their end."""

    def __init__(self) -> None:
        super().__init__()
        self.watches = Watches()
        self.closed: Callable[[int], None] = lambda job_id: None
        self._change: asyncio.Event | None = None
        self.left: Callable[[int], None] = lambda job_id: None

    def releasable(self) -> int:
        """Micro-dollars reserved for them that the provider may still give back in this run."""
        return sum(ticket.record.releasable for ticket in self.values())

    def releasable_in(self, purse: Purse, day: date) -> int:
        """Micro-dollars of a purse's that the provider may still give back in this run."""
        return sum(purse.releasable(ticket.record, day) for ticket in self.values())

    def unanswered(self) -> int:
        """Micro-dollars reserved for submits that are under way."""
        under_way = (t.record for t in self.values() if t.state is JobState.SUBMITTING)
        return sum(record.attempt.reserved for record in under_way)

    def close(self, ticket: Ticket, outcome: JobRecord | AsyncpipeError) -> None:
        """Let go of a job: its runs and its callers wait no more."""
        if self.pop(ticket.id, None) is ticket and ticket.state not in ENDED - {JobState.UNKNOWN}:
            self.left(ticket.id)
        for run in [*ticket.runs]:
            ticket.excuse(run)
        ticket.tell(outcome)
        self.watches.let_go(ticket.record)
        self.closed(ticket.id)
        self.tell_change()

    async def change(self) -> None:
        """Wait until a job is let go of, or put down."""
        if self._change is None or self._change.is_set():
            self._change = asyncio.Event()
        await self._change.wait()

    def tell_change(self) -> None:
        """Wake those who wait for a change."""
        if self._change is not None:
            self._change.set()


@dataclass(slots=True, eq=False)
class OpenRun:
    """One run that somebody waits for: its jobs in the ledger, drawn in pages, and its tickets.

    ``models`` has, for each with jobs not drawn yet, the place of the last. ``open`` counts its
    tickets, ``expired`` those of them that wait for a last look, ``chased`` those whose download
    has failed and goes on, ``aside`` those whose lost submits are searched for. ``stirred`` is when
    something came of any, by the loop's clock. ``comparing``: assets of jobs that had succeeded are
    still being looked at; more may come. ``elsewhere`` counts its jobs that other workers carry, as
    far as anybody knows, if it ``waits`` for them. Its jobs were ``accepted`` one by one.
    ``closed``: nobody waits any more, nothing joins it.
    """

    named: Named | None  # which rows it draws; None: it draws nothing
    models: dict[str, Drawn]
    comparing: bool = False
    open: int = 0
    expired: int = 0
    chased: int = 0
    stirred: float = 0.0
    aside: int = 0
    elsewhere: int = 0
    waits: bool = True
    accepted: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: AsyncpipeError | None = None
    closed: bool = False

    def join(self, ticket: Ticket) -> None:
        """Wait for a job, too."""
        if self not in ticket.runs:
            ticket.runs.append(self)
            self.open += 1
            self.chased += ticket.chase is not None

    @property
    def only_chases(self) -> bool:
        """Whether nothing is left to do but downloads that have failed before."""
        return self.drawn and 0 < self.chased == self.open

    @property
    def drawn(self) -> bool:
        """Whether no more jobs come."""
        return not self.models and not self.comparing and not self.elsewhere

    @property
    def only_searched(self) -> bool:
        """Whether nothing else is left to do than to look for lost submits."""
        return self.drawn and self.open == self.aside + self.expired + self.chased

    async def wait(self) -> None:
        """Wait for the end; raises AsyncpipeError when the pipeline was closed before it."""
        await self.done.wait()
        if self.abandoned is not None:
            raise own_copy(self.abandoned)


class StopReasons:
    """Why submitting has stopped, for all or for a model: the first reason counts.

    Jobs that are paid for are never stopped. Stages read it; ``news`` is set at every reason, for
    admission to let go of what is not to be submitted any more.
    """

    def __init__(self, news: asyncio.Event) -> None:
        self._news = news
        self._run: AsyncpipeError | None = None
        self._models: dict[str, AsyncpipeError] = {}
        self._remark: AsyncpipeError | None = None
        self._for_good = False
        self.heard: Callable[[], None] = lambda: None
        """Called when submitting has stopped, for all or for a model; not when it is drained."""
        self.since = now()
        """When the run's reason came, in UTC."""
        self.stopped = asyncio.Event()
        """Set when everything is stopped."""
        self.noted = 0
        """How many reasons were told so far: with it those told since are not forgotten."""

    @property
    def run(self) -> AsyncpipeError | None:
        """Why nothing at all is to be submitted, or None."""
        return self._run

    @property
    def models(self) -> dict[str, AsyncpipeError]:
        """Why nothing of some models is to be submitted, by model."""
        return self._models

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
        return self._run or self._models.get(record.made_as.model)

    def note(self, reason: AsyncpipeError, model: str | None = None) -> None:
        """Stop ``model``, or everything: unpaid jobs stay pending, the rest goes on."""
        self.noted += 1
        self._news.set()
        if self._run is not None or model in self._models:
            return
        if model is None:
            self._run, self.since = reason, now()
            self.stopped.set()
        else:
            self._models[model] = reason
        logger.warning("stopping: %s", reason, extra={"action": "run.stopped"})
        if not self._for_good:
            self.heard()

    def explain(self, reason: AsyncpipeError) -> None:
        """Say more of why the run was stopped."""
        self._run = reason

    def remark(self, reason: AsyncpipeError) -> None:
        """Some jobs are left out; others go on."""
        if self._remark is None:
            logger.warning("leaving out: %s", reason, extra={"action": "job.left_out"})
        self._remark = reason

    def drain(self, reason: AsyncpipeError) -> None:
        """Stop for good: whoever closes the pipeline means it."""
        self._for_good = True
        self.note(reason)

    def go(self) -> None:
        """Forget everything, a drain as well."""
        self._for_good = False
        self.forget(self.noted)

    def forget_budget(self) -> None:
        """Forget that the budget was used up."""
        if isinstance(self._run, BudgetReached):
            self._run = None
        if isinstance(self._remark, BudgetReached):
            self._remark = None

    def forget(self, noted: int) -> bool:
        """There are new jobs to try; not, when a reason came while they were taken in.

        ``noted`` is what ``noted`` was before: a disk may have filled up with them. Returns whether
        something had stopped others.
        """
        if self._for_good or self.noted != noted:
            return False
        stopped = self._run is not None or bool(self._models)
        self._run = self._remark = None
        self._models.clear()
        return stopped
