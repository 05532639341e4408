"""What other workers of the same ledger do: looked at now and then, and what follows from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import astuple

import orjson

from asyncpipe.engine.admission import Admission
from asyncpipe.engine.ingest import lost_by
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.search import Searcher
from asyncpipe.engine.tickets import Ticket, Tickets
from asyncpipe.flow import Demand, Limiter, News
from asyncpipe.jobs import (
    ENDED,
    Absent,
    Event,
    Found,
    JobRecord,
    JobState,
    TurnedUp,
    now,
)
from asyncpipe.ledger import Fact, Look, SharedLedger, Spent, WorkerNews
from asyncpipe.pricing import Budget, PurseState, SharedMoney

logger = logging.getLogger("asyncpipe.engine")

LOST = {"action": "job.lost"}

LOOK_S = 1.0
"""How often a worker looks at what the others do."""


def adopt(record: JobRecord, fact: Fact) -> Event | None:
    """What another worker found out of a job makes of it; None: nothing new."""
    waits = record.state is JobState.UNKNOWN and record.attempt.n == fact.n
    if not fact.prediction_id:
        error = "the worker that had it says that it was not bought"
        lost = waits and record.attempt.sought
        return Absent(job_id=record.id, at=now(), error=error) if lost else None
    if waits and record.attempt.sought:
        return Found(
            job_id=record.id,
            at=now(),
            prediction_id=fact.prediction_id,
            route=fact.route,
            created=fact.at,
        )
    if any(each.n == fact.n and each.sought for each in record.earlier):
        return TurnedUp(
            job_id=record.id, at=now(), attempt=fact.n, prediction_id=fact.prediction_id
        )
    return None


class Sharing:
    """Shares a ledger with other workers.

    Takes over what dead ones had, adopts what others found out, and tells runs and callers of jobs
    that others carry. ``adopt_open`` takes up paid work that nobody has.
    """

    def __init__(
        self,
        ledger: SharedLedger,
        *,
        tickets: Tickets,
        admission: Admission,
        recorder: Recorder,
        searcher: Searcher,
        limiter: Limiter,
        budget: Budget,
        money: SharedMoney,
        adopt_open: Callable[[], Awaitable[None]],
    ) -> None:
        self._ledger, self._tickets, self._admission = ledger, tickets, admission
        self._recorder, self._searcher = recorder, searcher
        self._limiter, self._budget, self._money = limiter, budget, money
        self._adopt_open = adopt_open
        self.working = False
        """Whether pending jobs of dead workers are carried as well."""
        self._awaited: dict[int, Ticket] = {}
        self._left: set[int] = set()
        self._turn = asyncio.Lock()
        tickets.left = self._let_go
        admission.held = lambda: self.held

    @property
    def held(self) -> set[int]:
        """The jobs in memory, and those that were let go of before their end."""
        return {*self._tickets, *self._left}

    def forget_left(self) -> None:
        """There is a new run: what was let go of is taken up again."""
        self._left.clear()

    def wait_for(self, record: JobRecord) -> Ticket:
        """A ticket for a job that another worker carries."""
        ticket = self._awaited.get(record.id)
        if ticket is None:
            ticket = self._awaited[record.id] = Ticket(record)
        return ticket

    def lose(self, ids: Iterable[int]) -> None:
        """Let go of jobs that other workers have by now."""
        for job_id in ids:
            ticket = self._tickets.get(job_id)
            if ticket is None or ticket.gone:
                continue
            logger.info("%s: another worker has it", ticket.record.name, extra=LOST)
            self._searcher.forget(job_id)
            self._admission.lose(ticket)
            if ticket.callers:
                self._awaited[job_id] = ticket

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look once, and do what follows."""
        async with self._turn:
            runs = self._admission.named_runs()
            news = _text_of(self._limiter.news(self._admission.waiting))
            look = await self._ledger.look(
                held=list(self._tickets),
                left=list(self._left),
                awaited=[i for i, ticket in self._awaited.items() if ticket.awaited],
                runs=[named for _, named in runs],
                news=news,
            )
            self._hear(look.told)
            self._note(look.money)
            self.lose(i for i in look.gone if not self._is_over(i))
            self._end_awaited(look)
            await self._take_free(look)
            for fact in look.facts:
                await self._adopt(fact)
            if look.orphans:
                await self._take_over()
            for (run, _), elsewhere, waiting in zip(
                runs, look.elsewhere, look.waiting, strict=True
            ):
                # What was taken over by others since is elsewhere, too: the next look knows.
                self._admission.others(run, elsewhere + look.orphans, waiting)

    def _hear(self, told: Sequence[WorkerNews]) -> None:
        """Share the API's limits with all workers that live."""
        ids = [each.worker for each in told]
        if self._ledger.worker not in ids:
            return  # our lease has ended: there is nothing to share before it is renewed
        news = [_news_of(each) for each in told]
        self._limiter.hear(news, ids.index(self._ledger.worker), self._admission.waiting)

    def _let_go(self, job_id: int) -> None:
        self._left.add(job_id)
        self._ledger.release(job_id)

    def _note(self, money: Spent) -> None:
        self._money.note(
            charged=money.charged,
            reserved=money.reserved,
            releasable=money.releasable,
            unanswered=money.unanswered,
        )
        self._budget.share(money.cap)
        purses = {name: PurseState(*each) for name, each in money.purses.items()}
        self._budget.purses.note(purses)

    def _is_over(self, job_id: int) -> bool:
        """Whether a job has ended meanwhile, or was let go of."""
        ticket = self._tickets.get(job_id)
        if ticket is None:
            return True
        return ticket.state in ENDED and ticket.state is not JobState.UNKNOWN

    def _end_awaited(self, look: Look) -> None:
        for record in look.ended:
            if (ticket := self._awaited.pop(record.id, None)) is not None:
                ticket.record = record
                ticket.tell(record)
        for job_id in [i for i, ticket in self._awaited.items() if not ticket.awaited]:
            del self._awaited[job_id]

    async def _take_free(self, look: Look) -> None:
        """Carry jobs that callers of ours wait for, and nobody has any more."""
        free = [job_id for job_id in look.free if job_id in self._awaited]
        for record in await self._ledger.claim(free) if free else ():
            ticket = self._awaited.pop(record.id)
            ticket.record, ticket.gone = record, False
            if record.state in ENDED:
                ticket.tell(record)
                self._ledger.release(record.id)
            elif record.id in self._tickets:
                self._tickets[record.id].callers += ticket.callers
            else:
                self._admission.take_up(ticket)

    async def _take_over(self) -> None:
        """Go on with what workers had that live no more."""
        for found in await self._ledger.interrupted(but=self.held):
            self._recorder.append(found.record, lost_by(found))
        await self._ledger.durable()
        known = {*self._tickets}
        await self._adopt_open()
        await self._searcher.begin()
        limit = self._admission.places if self.working else 0
        for record in await self._ledger.orphans(but=self.held, limit=limit):
            self._admission.offer(record)
        taken = [ticket for job_id, ticket in self._tickets.items() if job_id not in known]
        await self._admission.join_taken(taken)

    async def _adopt(self, fact: Fact) -> None:
        """Bring what another worker found out into a job's record, if it is new there."""
        ticket = self._tickets.get(fact.job_id)
        record = ticket.record if ticket is not None else None
        if record is None:
            records = await self._ledger.claim([fact.job_id])
            record = records[0] if records else None
        if record is None:
            return
        event = adopt(record, fact)
        if event is not None:
            goes_on = not isinstance(event, TurnedUp)
            if ticket is not None and goes_on and not self._searcher.has(record.id):
                return  # a driver has it: at the next look
            after = self._searcher.record(record, event)
            await self._searcher.go_on([after] if goes_on else [])
        await self._ledger.adopted(fact)
        if ticket is None and fact.job_id not in self._tickets:
            self._ledger.release(fact.job_id)


def _text_of(news: Mapping[str, News]) -> str:
    """News as workers tell them to each other, by model."""
    return orjson.dumps(
        {
            model: [*astuple(each.demand), each.claim, each.running, each.found, each.pause_s]
            for model, each in news.items()
        }
    ).decode()


def _news_of(told: WorkerNews) -> dict[str, News]:
    """Read another worker's news, its pauses as they are by now."""
    return {
        model: News(
            demand=Demand(in_flight, waiting),
            claim=claim,
            running=running,
            found=found,
            pause_s=max(pause_s - told.age_s, 0.0),
        )
        for model, each in orjson.loads(told.news).items()
        for in_flight, waiting, claim, running, found, pause_s in [each]
    }
