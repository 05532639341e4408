"""Who goes next: one coroutine that hands jobs to the drivers, a permit in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from asyncpipe.engine.decide import limits_of
from asyncpipe.engine.queue import Backlog, Handover, Queue, read_page
from asyncpipe.errors import AsyncpipeError, ProviderError
from asyncpipe.flow import Traffic
from asyncpipe.jobs import JobRecord, JobState
from asyncpipe.ledger import Ledger, Named, pending_models
from asyncpipe.media import Room
from asyncpipe.pricing import Budget, Fit, Price, Purse
from asyncpipe.providers import Prediction

STEP_S = 3600.0
"""Longest sleep of admission when nothing is due; any news wakes it at once."""


class Admission:
    """Draw jobs, take a permit for each, and hand them over one by one.

    Only this coroutine takes permits; whoever carries a job gives its permit back with
    ``release``. In flight are never more than ``max_workers`` predictions.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        *,
        max_workers: int,
        room: Room,
        budget: Budget,
        purse: Purse,
        unfit: Callable[[JobRecord, AsyncpipeError], None],
        traffic: Traffic,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._clock = clock
        self._room = room
        self.budget, self._purse, self._unfit = budget, purse, unfit
        self._permits = asyncio.Semaphore(max_workers)
        self._page = 2 * max_workers
        self._news = asyncio.Event()
        self._backlogs: list[Backlog] = []
        self._held: set[int] = set()  # ids that are queued or carried by a driver
        self._carried = 0
        self._price: Price | None = None  # of the job that was last found to fit
        self.traffic, traffic.gate.news = traffic, self._wake
        self.queue = Queue(traffic)

    def _wake(self) -> None:
        self._news.set()

    async def open_run(self, run: Named | None, *, comparing: bool = False) -> Backlog:
        """Begin to draw the pending jobs of ``run``; whatever is under way now counts as its.

        None draws nothing: only what is under way. With ``comparing`` it does not end before
        ``compared`` is called.
        """
        models: list[str] = []
        if run is not None:
            models = await self._ledger.ask(partial(pending_models, named=run))
        backlog = Backlog(
            named=run,
            models=dict.fromkeys(models, 0),
            open=set(self._held),
            comparing=comparing,
        )
        backlog.settle()
        self._backlogs.append(backlog)
        self._news.set()
        return backlog

    def compared(self, backlog: Backlog) -> None:
        """Note that all assets of a run were looked at."""
        backlog.comparing = False
        self._forget(set())

    def offer(self, record: JobRecord, backlog: Backlog | None = None) -> None:
        """Take a job that is known already; one that is held is not taken twice.

        ``backlog``: the open run that waits for it, too.
        """
        if backlog is not None:
            backlog.open.add(record.id)
        if record.id in self._held:
            return
        self._held.add(record.id)
        self.budget.move(committed=0, releasable=record.releasable)
        if record.state is JobState.PENDING:
            self.queue.add([record])
        else:
            self.queue.paid.append(record)
        self._news.set()

    def holds(self, job_id: int) -> bool:
        """Whether a job is queued or under way."""
        return job_id in self._held

    def tail(self) -> bool:
        """Whether nothing waits to be submitted: what is in flight is all there is."""
        return self.queue.empty and not any(backlog.models for backlog in self._backlogs)

    def answered(self, record: JobRecord, answer: Prediction | ProviderError) -> float:
        """Learn from the answer to a submit; returns how long the model pauses, in seconds."""
        self._news.set()
        told = limits_of(answer)
        return self.traffic.answered(record.id, record.job.model, told, self._clock())

    def release(self, record: JobRecord) -> None:
        """Give one permit back: the provider works on one prediction less."""
        self.traffic.ended(record.id, record.job.model)
        self._permits.release()
        self._news.set()

    def put_back(self, record: JobRecord) -> None:
        """Take back a permit, the place in its model's turn and money that were not used."""
        self.budget.take(record.id)
        self.traffic.put_back(record.id, record.job.model)
        self.release(record)

    def put_down(self) -> None:
        """Note that a driver has put its job down."""
        self._carried -= 1
        self._news.set()

    def give_back(self, record: JobRecord, when: float | None = None) -> None:
        """Take back a job that is pending again, to be submitted at ``when`` or in its turn."""
        if when is None:
            self.queue.add([record], first=True)
        else:
            self.queue.add_later(record, when)

    def last_look(self, record: JobRecord) -> None:
        """Keep an expired job for one more poll when nothing else is left of its run."""
        self.queue.expired[record.id] = record
        self._forget(set())

    def let_go(self, record: JobRecord) -> None:
        """Forget a job that is done with: what it may still give back is not waited for."""
        self.budget.move(committed=0, releasable=-record.releasable)
        self._forget({record.id})

    def close_run(self, backlog: Backlog, *, keep: Callable[[int], bool]) -> None:
        """Draw no more of a run nobody waits for; jobs that ``keep`` does not want stay pending."""
        if backlog not in self._backlogs:
            return
        self._backlogs.remove(backlog)
        backlog.comparing = False
        others = set().union(*(other.open for other in self._backlogs))
        alone = {i for i in backlog.open - others if not keep(i)}
        self._forget({i for i in alone if self.queue.remove(i)})

    def withdraw(self, job_id: int) -> JobRecord | None:
        """Take a job back that was never submitted and that no driver carries; None if not so."""
        found = self.queue.remove(job_id, untouched=True)
        if found:
            self._forget({job_id})
        return found

    def abandon(self) -> None:
        """Let go of everybody who waits for a run: the pipeline is closed."""
        for backlog in self._backlogs:
            backlog.abandoned = True
            backlog.done.set()
        self._backlogs.clear()

    def drop_pending(self, model: str | None = None) -> None:
        """Admit no more unpaid jobs, of ``model`` or of all; they stay pending in the ledger."""
        for backlog in self._backlogs:
            for name in [model] if model else list(backlog.models):
                backlog.models.pop(name, None)
        self._forget({record.id for record in self.queue.forget_pending(model)})

    def _forget(self, ids: set[int]) -> None:
        self._held -= ids
        for backlog in list(self._backlogs):
            backlog.open -= ids
            # In a service that is never idle a run ends all the same.
            for job_id in backlog.left_over(self.queue.expired):
                self.queue.paid.append(self.queue.expired.pop(job_id))
            backlog.settle()
            if backlog.done.is_set():
                self._backlogs.remove(backlog)
        self._news.set()

    async def run(self, out: Handover) -> None:
        """Hand jobs over for ever; one is sent only when a driver is there to take it."""
        while True:
            await self._permits.acquire()
            chosen = await self._wait_for_next()
            self._carried += 1
            if chosen.state in (JobState.SUBMITTED, JobState.EXPIRED):
                self.traffic.resumed(chosen.id, chosen.job.model)
            await out.give(chosen)

    async def _wait_for_next(self) -> JobRecord:
        while True:
            self._news.clear()
            await self._draw()
            await self._purse.quoting.fill()
            chosen = self._choose()
            if not isinstance(chosen, float):
                return chosen
            if self._purse.quoting.wanted:  # a job came up whose price is to be asked first
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(chosen - self._clock(), 0.0), STEP_S)):
                    await self._news.wait()

    def _choose(self) -> JobRecord | float:
        submits = not self.queue.empty
        room = not submits or self._room.enough()
        chosen = self.queue.choose(self._clock(), room=room, fit=self._fit)
        if isinstance(chosen, JobRecord) and chosen.state is JobState.PENDING:
            assert self._price is not None, "what fits has a price"
            self.budget.hold(chosen.id, self._price)
        while self.queue.unfit:
            record = self.queue.unfit.popleft()
            self._unfit(record, self._purse.why_unfit(self.budget, record.job))
            self._forget({record.id})
        idle = self._carried == 0 and self.tail()
        if isinstance(chosen, float) and idle and self.queue.expired:
            return self.queue.expired.pop(next(iter(self.queue.expired)))
        return chosen

    def _fit(self, record: JobRecord) -> Fit:
        verdict, self._price = self._purse.fit(self.budget, record.job)
        return verdict

    async def _draw(self) -> None:
        """Keep a page of every model at hand."""
        for backlog in list(self._backlogs):
            for model in list(backlog.models):
                while model in backlog.models and self.queue.waiting(model) < self._page // 2:
                    await self._draw_page(backlog, model)

    async def _draw_page(self, backlog: Backlog, model: str) -> None:
        assert backlog.named is not None, "without it there is no model to draw"
        read = partial(
            read_page,
            folder=self._folder,
            named=backlog.named,
            model=model,
            after=backlog.models[model],
            limit=self._page,
        )
        records = await self._ledger.ask(read)
        if model not in backlog.models:  # submitting was stopped meanwhile
            return
        if len(records) < self._page:
            del backlog.models[model]
            backlog.open |= self._held  # what another run of the same jobs drew meanwhile
        else:
            backlog.models[model] = records[-1].id
        backlog.open.update(record.id for record in records)
        fresh = [record for record in records if record.id not in self._held]
        self._held.update(record.id for record in fresh)
        for record in fresh:
            self._purse.quoting.want(record.job)
        self.queue.add(fresh)
        backlog.settle()
