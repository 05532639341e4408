"""Who goes next: one coroutine that hands jobs to the drivers, each with its permit."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable

import anyio

from asyncpipe.engine.health import Waits
from asyncpipe.engine.queue import Handoff, Queue
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.tickets import OpenRun, StopReasons, Ticket, Tickets
from asyncpipe.errors import (
    AsyncpipeError,
    BudgetReached,
    CannotConnect,
    DownloadError,
    LedgerError,
    TooExpensive,
)
from asyncpipe.flow import Limiter, Permit
from asyncpipe.jobs import PAID_OPEN, JobRecord, JobState, Withdrawn
from asyncpipe.jobs import now as wall_clock
from asyncpipe.ledger import FIRST, Ledger, Named, place_in_draws
from asyncpipe.media import DiskSpace
from asyncpipe.pricing import Fit, Spending

MOST_CHASED = 1000
"""While so many paid jobs could not be downloaded nothing more is bought: memory has an end."""

EARLY_S = 1e-6
"""A timer may ring so much before its time: what is due by then is due."""

STEP_S = 3600.0
"""Longest sleep of admission when nothing is due; any news wakes it at once."""


def _of_job_alone(reason: AsyncpipeError) -> bool:
    """Whether a reason not to submit a job says nothing of others: its caller is told."""
    budget = isinstance(reason, BudgetReached) and reason.budget is not None
    return budget or isinstance(reason, TooExpensive)


class Admission:
    """Choose jobs, give each its permit, and hand them over one by one.

    ``patience_s`` is how long is waited for downloads that fail once nothing else is left to do.
    Only ``run`` gives permits, and it awaits nothing but news: pages of jobs are drawn from the
    ledger by ``draw``, and quotes asked for by ``ask_quotes``, each in a task of its own.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        tickets: Tickets,
        stops: StopReasons,
        recorder: Recorder,
        limiter: Limiter,
        spending: Spending,
        room: DiskSpace,
        waits: Waits,
        news: asyncio.Event,
        patience_s: float,
        shared: bool = False,
    ) -> None:
        self._patience_s, self._shared = patience_s, shared
        self._waits = waits
        self._ledger = ledger
        self._tickets, self._stops, self._recorder = tickets, stops, recorder
        self._limiter, self._spending, self._room = limiter, spending, room
        self._clock = limiter.gate.clock
        self._news = news
        self._hungry = asyncio.Event()
        self._unquoted = asyncio.Event()
        # What one worker of a shared ledger has at hand the others cannot take.
        self._page = limiter.workers if shared else 2 * limiter.workers
        self._runs: list[OpenRun] = []
        self._carried = 0
        self._obeyed = 0
        self._stirred = self._clock()
        self._aside: set[int] = set()
        self._revoked: set[int] = set()  # since a page was drawn
        self.paused = False
        """Whether nothing is to be submitted for now."""
        self.search_news = asyncio.Event()
        """Set when jobs are set aside, and when nothing else is left of their runs."""
        self.held: Callable[[], Collection[int]] = lambda: self._tickets
        """The jobs that are in memory, or were let go of: not to be drawn again."""
        self.queue = Queue(limiter)
        self.drivers = Handoff(news)

    # -- runs and tickets -----------------------------------------------------------------------

    async def open_run(
        self, named: Named | None, *, comparing: bool = False, waits: bool = True
    ) -> OpenRun:
        """Begin to draw the pending jobs of a run; it waits for whatever was sent before, too.

        None draws nothing: only what is under way. With ``comparing`` it does not end before
        ``compared`` is called, with ``waits`` not before other workers have carried its jobs.
        """
        run = OpenRun(named=named, models={}, comparing=comparing, stirred=self._clock())
        run.waits = waits
        run.elsewhere = int(self._shared and named is not None)  # until others were looked at
        if named is not None:
            models = await self._ledger.pending_models(named)
            run.models = dict.fromkeys(models, FIRST)
            await self._join_named(run, named)
        for ticket in self._tickets.values():
            if ticket.state is not JobState.PENDING:
                self._join(run, ticket)
        self._runs.append(run)
        self._obeyed = -1  # reasons to stop are this run's, too
        self._hungry.set()
        self._settle_runs()
        return run

    def compared(self, run: OpenRun) -> None:
        """Note that all assets of a run were looked at."""
        run.comparing = False
        self._settle_runs()

    def offer(self, record: JobRecord, run: OpenRun | None = None) -> Ticket:
        """Take a job that is known already, if it is not in memory; return its ticket.

        ``run``: the open run that waits for it, too.
        """
        ticket = self._tickets.get(record.id)
        if ticket is None:
            ticket = Ticket(record)
            self.take_up(ticket)
        if run is not None:
            self._join(run, ticket)
        self._news.set()
        return ticket

    def take_up(self, ticket: Ticket) -> None:
        """Take a job that is not in memory."""
        self._tickets[ticket.id] = ticket
        if ticket.state is JobState.PENDING:
            self.queue.add([ticket])
        else:
            self.queue.paid.append(ticket)
        self._news.set()

    # -- what other workers do ------------------------------------------------------------------

    def named_runs(self) -> list[tuple[OpenRun, Named]]:
        """The open runs that draw jobs, and which."""
        return [(run, run.named) for run in self._runs if run.named is not None]

    @property
    def waiting(self) -> dict[str, int]:
        """How many jobs are at hand that could be submitted, by model."""
        return {model: len(row) for model, row in self.queue.ready.items() if row}

    @property
    def places(self) -> int:
        """How many more jobs could be under way than are waiting here."""
        return max(0, self._limiter.free - sum(map(len, self.queue.ready.values())))

    def others(self, run: OpenRun, elsewhere: int, waiting: Iterable[str]) -> None:
        """Note how many jobs of a run others carry, and of which models there are free ones."""
        if run.closed or run not in self._runs:
            return
        run.elsewhere = elsewhere if run.waits else 0
        for model in waiting:
            if not self._stops.run and model not in self._stops.models:
                run.models.setdefault(model, FIRST)
        self._hungry.set()
        self._settle_runs()

    async def join_taken(self, taken: Iterable[Ticket]) -> None:
        """Let open runs wait for what was taken over from other workers."""
        taken = list(taken)
        for run, named in self.named_runs():
            await self._join_named(run, named)
            # One that ended meanwhile would be waited for for ever.
            here = [ticket for ticket in taken if self._tickets.get(ticket.id) is ticket]
            for ticket in here if not run.waits else ():
                self._join(run, ticket)

    def lose(self, ticket: Ticket) -> None:
        """Let go of a job that another worker has; its runs wait for that one."""
        ticket.gone = True
        self.queue.discard(ticket)
        if ticket.id in self._aside:
            self._aside.discard(ticket.id)
            for run in ticket.runs:
                run.aside -= 1
        del self._tickets[ticket.id]
        for run in [*ticket.runs]:
            ticket.excuse(run)
            run.elsewhere += 1
        self._settle_runs()

    def dropped(self) -> None:
        """Note that a driver has put down a job that was lost."""
        self._carried -= 1
        self._news.set()

    # -- callers that leave ---------------------------------------------------------------------

    def withdraw(self, ticket: Ticket, caller: asyncio.Future[JobRecord]) -> bool:
        """Let a caller go; True when that takes its job back, which nobody else wants.

        Not one that was submitted before, or that a driver has.
        """
        ticket.leave(caller)
        if ticket.awaited or ticket.accepted or not ticket.single:
            return False
        return self.revoke(ticket)

    def revoke(self, ticket: Ticket) -> bool:
        """Let go of a job whoever wants it; False for one that was sent, or that a driver has."""
        if self._tickets.get(ticket.id) is not ticket:
            return False
        if not self.queue.remove(ticket, untouched=True):
            return False
        self._revoked.add(ticket.id)
        self._let_go(ticket, ticket.record)
        return True

    def close_run(self, run: OpenRun) -> None:
        """Draw no more of a run nobody waits for; jobs that nobody else wants stay pending."""
        run.closed = True
        run.models.clear()
        if run in self._runs:
            self._runs.remove(run)
        for ticket in [ticket for ticket in self._tickets.values() if run in ticket.runs]:
            ticket.excuse(run)
            if not ticket.runs and not ticket.awaited and self.queue.remove(ticket):
                self._tickets.close(ticket, ticket.record)
        self._hungry.set()
        self._settle_runs()

    def resize(self) -> None:
        """Hold as many jobs at hand as there are workers by now."""
        self._page = 2 * self._limiter.workers
        self._hungry.set()

    @property
    def draws(self) -> bool:
        """Whether there is a run with jobs that are not at hand yet."""
        return any(run.models for run in self._runs)

    def tail(self) -> bool:
        """Whether nothing waits to be submitted: what is in flight is all there is."""
        return self.queue.empty and not self.draws

    def abandon(self, reason: AsyncpipeError) -> None:
        """Let go of everybody who waits: the pipeline is closed, or has failed."""
        for run in self._runs:
            run.abandoned = reason
            run.done.set()
        self._runs.clear()
        for ticket in [*self._tickets.values()]:
            self._tickets.close(ticket, reason)

    # -- what a driver puts down ----------------------------------------------------------------

    def put_down(self, ticket: Ticket, again_at: float | None) -> None:
        """Decide what follows for a job that a driver has put down.

        One that is pending again is submitted at ``again_at``, or in its turn; an expired one gets
        one more poll before its run ends; everything else is let go of.
        """
        self._carried -= 1
        self._tickets.tell_change()
        stopped = self._stops.of(ticket.record)
        if ticket.state is JobState.PENDING and not stopped and not ticket.adopted:
            if again_at is None:
                self.queue.add([ticket], first=True)
            else:
                self.queue.add_later(ticket, again_at)
            self._news.set()
        elif self._looks_again(ticket):
            ticket.looked_again = True
            self.queue.expire(ticket)
            self._settle_runs()
        elif ticket.state is JobState.GENERATED and ticket.chase is not None:
            self._chase_on(ticket, ticket.chase.since)
        elif stopped:
            self._refuse(ticket, stopped)
            self._settle_runs()
        else:
            self._let_go(ticket, ticket.record)

    def _chase_on(self, ticket: Ticket, since: float) -> None:
        """Keep a job whose download failed; callers who have waited long enough hear of it."""
        self._stir(ticket, since)
        self.queue.fetch_later(ticket)
        if self._clock() - max(since, ticket.asked_at) >= self._patience_s:
            ticket.tell(ticket.record)
        self._settle_runs()

    def _stir(self, ticket: Ticket, at: float) -> None:
        """Note that something came of a job."""
        self._stirred = max(self._stirred, at)
        for run in ticket.runs:
            run.stirred = max(run.stirred, at)

    def _lose_patience(self) -> float:
        """Let runs end that wait in vain for downloads; return when another may be.

        Their jobs are chased on as long as the pipeline is open.
        """
        now, patience_s = self._now, 0.0 if self._stops.drained else self._patience_s
        due = math.inf
        for run in [run for run in self._runs if run.only_chases]:
            if now - run.stirred < patience_s:
                due = min(due, run.stirred + patience_s)
                continue
            for ticket in [ticket for ticket in self._tickets.values() if run in ticket.runs]:
                ticket.excuse(run)
            self._settle_runs()
        if self._stalled and now - self._stirred >= self._patience_s:
            self._stops.note(
                DownloadError(
                    f"no download succeeded for {self._patience_s:g} s, and {MOST_CHASED} paid "
                    "jobs wait for theirs: nothing more is bought"
                )
            )
        return due

    @property
    def _now(self) -> float:
        return self._clock() + EARLY_S

    @property
    def _stalled(self) -> bool:
        """Whether too much that is paid for could not be downloaded to buy more."""
        return len(self.queue.chased) >= MOST_CHASED and not self.queue.empty

    def set_aside(self, ticket: Ticket, *, carried: bool = False) -> None:
        """Keep a job whose lost submit is searched for; ``carried``: a driver has it."""
        self._carried -= carried
        self._aside.add(ticket.id)
        for run in ticket.runs:
            run.aside += 1
        self.search_news.set()
        self._settle_runs()

    def take_back(self, ticket: Ticket) -> None:
        """Go on with a job that was set aside, as it stands now."""
        self._aside.discard(ticket.id)
        for run in ticket.runs:
            run.aside -= 1
        if ticket.state in PAID_OPEN:
            self.queue.paid.append(ticket)
            self._news.set()
        else:
            self._carried += 1
            self.put_down(ticket, None)

    def waits_for_search_only(self, ticket: Ticket) -> bool:
        """Whether nothing else is left of the runs that wait for a job."""
        return all(run.only_searched for run in ticket.runs)

    def _looks_again(self, ticket: Ticket) -> bool:
        # Not a caller's: it belongs to no run, and in a service that is never idle an end to wait
        # for may not come.
        expired = ticket.state is JobState.EXPIRED and not ticket.claimed
        return expired and not ticket.looked_again

    def _let_go(self, ticket: Ticket, outcome: JobRecord | AsyncpipeError) -> None:
        self._stir(ticket, self._clock())
        self._tickets.close(ticket, outcome)
        self._settle_runs()

    def _refuse(self, ticket: Ticket, reason: AsyncpipeError) -> None:
        """Let go of a job that is not submitted: who alone wanted it is told, and it is withdrawn.

        Not for a drain: what was accepted is kept for ``resume``.
        """
        alone = ticket.single and not ticket.accepted
        alone = alone and not ticket.runs and not ticket.record.used
        keeps = self._stops.drained or isinstance(reason, LedgerError)
        if alone and ticket.state is JobState.PENDING and not keeps:
            self._recorder.record(ticket, Withdrawn(job_id=ticket.id, at=wall_clock()))
        self._tickets.close(ticket, reason)

    def _settle_runs(self) -> None:
        """End the runs whose end has come; take up their expired jobs when nothing else is left."""
        for run in list(self._runs):
            if not run.drawn:
                continue
            if run.expired and run.expired + run.chased == run.open:
                # In a service that is never idle a run ends all the same.
                theirs = [ticket for ticket in self.queue.expired.values() if run in ticket.runs]
                self.queue.paid.extend(self.queue.take_expired(theirs))
            elif not run.open:
                run.done.set()
                self._runs.remove(run)
            if run.aside and run.only_searched:
                self.search_news.set()
        if self._stops.drained and self._aside:
            self.search_news.set()
        self._tickets.tell_change()
        self._news.set()

    async def _join_named(self, run: OpenRun, named: Named) -> None:
        """Let a run wait for its jobs in memory: whoever took them, they are its own now."""
        ids = list(self._tickets)
        for job_id in await self._ledger.named_of(ids, named):
            if (ticket := self._tickets.get(job_id)) is not None:
                ticket.adopted = ticket.single = False
                self._join(run, ticket)

    def _join(self, run: OpenRun, ticket: Ticket) -> None:
        if not run.closed and run not in ticket.runs:
            run.join(ticket)
            run.expired += ticket.id in self.queue.expired
            run.aside += ticket.id in self._aside

    # -- the choice -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand jobs over for ever; one is chosen only when a driver is there to take it."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            self._obey()
            due = min(self._lose_patience(), self._hand_over())
            if self._spending.quotes.wanted:
                self._unquoted.set()
            at = min(due, self._clock() + STEP_S)
            timer = loop.call_later(max(at - self._clock(), 0.0), self._news.set)
            try:
                await self._news.wait()
            finally:
                timer.cancel()

    def _hand_over(self) -> float:
        """Hand over all that may go now; return when there may be more."""
        while self.drivers.awaited:
            # A download needs no worker's place.
            free = self._limiter.free
            chosen = self._choose() if free else self.queue.choose_chased(self._now)
            if isinstance(chosen, float):
                return chosen
            chosen.permit = self._permit(chosen)
            self._carried += 1
            self.drivers.give(chosen)
        return math.inf

    def _permit(self, ticket: Ticket) -> Permit:
        model = ticket.job.model
        if ticket.state is JobState.PENDING:
            assert ticket.price is not None, "what fits has a price"
            ticket.hold = self._spending.budget.hold(ticket.price, ticket.job)
            self._hunger(model)
            return self._limiter.to_submit(model, ticket.hold)
        if ticket.state is JobState.GENERATED:
            return self._limiter.to_fetch()
        return self._limiter.to_poll(model)

    def _choose(self) -> Ticket | float:
        room = self.queue.empty or (self._room.enough() and not self._stalled)
        purses = self._spending.budget.purses
        if self.queue.any_short and purses.freed():
            self.queue.try_short()
        room = room and not self.paused
        chosen = self.queue.choose(self._now, room=room, fit=self._fit)
        while self.queue.unfit:
            ticket = self.queue.unfit.popleft()
            reason = self._spending.why_unfit(ticket.job)
            if ticket.runs or ticket.accepted or not _of_job_alone(reason):
                self._stops.remark(reason)
            self._hunger(ticket.job.model)
            self._refuse(ticket, reason)
            self._settle_runs()
        idle = self._carried == 0 and self.tail()
        if isinstance(chosen, float) and idle and self.queue.expired:
            first = next(iter(self.queue.expired.values()))
            return next(self.queue.take_expired([first]))
        if isinstance(chosen, float) and self.queue.any_short:
            chosen = min(chosen, self._clock() + purses.next_day_s)
        self._note_short(idle=isinstance(chosen, float))
        return chosen

    def _note_short(self, *, idle: bool) -> None:
        """Say that a budget of a label or day is waited for, while nothing else can go."""
        short, purses = self.queue.first_short if idle else None, self._spending.budget.purses
        purse = purses.short(short.job, short.price) if short and short.price else None
        if purse is None:
            self._waits.end("budget")
        else:
            self._waits.note("budget", purses.waiting(purse))

    def _fit(self, ticket: Ticket) -> Fit:
        verdict, ticket.price = self._spending.fit(ticket.job, kept=ticket.kept)
        return verdict

    def _obey(self) -> None:
        """Let go of what is not to be submitted any more: it stays pending in the ledger."""
        if self._obeyed == self._stops.noted:
            return
        self._obeyed = self._stops.noted
        if (reason := self._stops.run) is not None:
            self._drop(reason, None)
        for model, reason in self._stops.models.items():
            self._drop(reason, model)

    def _drop(self, reason: AsyncpipeError, model: str | None) -> None:
        for run in self._runs:
            for name in [model] if model else list(run.models):
                run.models.pop(name, None)
        for ticket in self.queue.forget_pending(model):
            self._refuse(ticket, reason)
        self._settle_runs()

    # -- what is drawn and asked beside it ------------------------------------------------------

    def _hunger(self, model: str) -> None:
        if any(self._wants(run, model) for run in self._runs):
            self._hungry.set()

    def _share(self, run: OpenRun) -> int:
        """How many jobs of a model are held: a page is shared among a run's models."""
        return max(1, self._page // max(1, len(run.models)))

    def _wants(self, run: OpenRun, model: str) -> bool:
        return model in run.models and 2 * self.queue.waiting(model) < self._share(run)

    async def draw(self) -> None:
        """Keep a page of every run's jobs at hand, for ever."""
        while True:
            await self._hungry.wait()
            self._hungry.clear()
            self._revoked.clear()
            for run in list(self._runs):
                while wanted := [model for model in run.models if self._wants(run, model)]:
                    await self._draw(run, wanted)

    async def _draw(self, run: OpenRun, models: list[str]) -> None:
        assert run.named is not None, "without it there is no model to draw"
        limit, after = self._share(run), {model: run.models[model] for model in models}
        held, fair = self.held() if self._shared else (), self._shared and run.waits
        pages = await self._ledger.draw(run.named, after, limit=limit, held=held, fair=fair)
        if run.closed:
            return
        for model, records in pages.items():
            if model in run.models:  # else submitting was stopped meanwhile
                self._take(run, records)
                run.models[model] = place_in_draws(records[-1]) if records else after[model]
        least = 1 if fair else limit
        drawn = {model for model, records in pages.items() if len(records) < least}
        if drawn >= run.models.keys():
            await self._join_named(run, run.named)  # what another run of the same jobs drew
        for model in drawn:
            run.models.pop(model, None)
        if fair and drawn:
            # Another worker may be drawing what is left at this moment: the next look knows.
            run.elsewhere = max(run.elsewhere, 1)
        self._settle_runs()

    def _take(self, run: OpenRun, records: list[JobRecord]) -> None:
        for record in records:
            if record.id in self._revoked:  # while its page was on the way
                continue
            ticket = self._tickets.get(record.id)
            if ticket is None:
                ticket = self._tickets[record.id] = Ticket(record)
                self.queue.add([ticket])
                self._spending.quotes.want(ticket.job)
            self._join(run, ticket)

    async def ask_quotes(self) -> None:
        """Ask for the quotes that waiting jobs want, for ever; their models wait meanwhile.

        Each lot in a task of its own: one whose quotes hang holds up no other.
        """
        async with anyio.create_task_group() as tasks:
            while True:
                await self._unquoted.wait()
                self._unquoted.clear()
                tasks.start_soon(self._ask_quotes, name="asyncpipe quotes of a lot")

    async def _ask_quotes(self) -> None:
        try:
            await self._spending.quotes.ask(told=self._news.set)
        except CannotConnect as exc:
            self._stops.note(exc)
        self._news.set()
