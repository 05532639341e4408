"""Look for lost submits in the provider's list of predictions, beside everything else."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import anyio

from asyncpipe._tasks import provider_code
from asyncpipe.engine.admission import Admission
from asyncpipe.engine.answers import body_of, route_of
from asyncpipe.engine.decide import PredictionOwners
from asyncpipe.engine.find import SKEW, Body, LostSubmit, Matches, Own, Place, Reading, match
from asyncpipe.engine.poll import Inquiry
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.tickets import StopReasons, Ticket, Tickets
from asyncpipe.errors import HistoryUnavailable, ProviderError
from asyncpipe.flow import Gate, Memory
from asyncpipe.jobs import (
    NOT_FOUND,
    Absent,
    Attempt,
    Event,
    Found,
    JobRecord,
    JobState,
    NotFound,
    TurnedUp,
    now,
)
from asyncpipe.ledger import Ledger
from asyncpipe.pricing import Tell
from asyncpipe.providers import (
    HasHistory,
    Listed,
    PredictionStatus,
    Provider,
    listed_page,
    lists_ended_only,
)

logger = logging.getLogger("asyncpipe.engine")

FIRST_S = 2.0
"""How soon after the first reading comes the second, at most; then each gap is twice the last."""

SHORTEST_GAP_S, LONGEST_GAP_S = 0.05, 300.0

LAGS = 2.0
"""A prediction of ours was not listed so many seconds after it was made: lost ones are looked for
that many times as long, …"""

LONGEST_SEARCHES, LONGEST_LAG_S = 5.0, 120.0
"""… up to so many times as long as was asked for, and so many seconds longer."""

FAILURES = 3
"""So many readings in a row that fail, and nobody is waited for any more."""

LOOKED = "; looked for: "
"""What stands in an error between why the answer was lost and what a search came to."""


def next_age_s(age_s: float, search_s: float) -> float:
    """How long after a submit was lost the next reading is due."""
    first = min(FIRST_S, search_s / 20)
    later = min(max(2 * age_s, first), age_s + LONGEST_GAP_S)
    return min(later, search_s) if age_s < search_s else max(later, age_s + 1.0)


def patience_s(search_s: float, lag_s: float) -> float:
    """How long a submit is looked for where the list was seen to lag behind by ``lag_s``."""
    longest = min(LONGEST_SEARCHES * search_s, search_s + LONGEST_LAG_S)
    return max(search_s, min(LAGS * lag_s, longest))


def attempts_of(record: JobRecord) -> Iterator[Attempt]:
    """Those of a job that are looked for."""
    return (each for each in (*record.earlier, record.attempt) if each.sought)


def body_sent(provider: HasHistory, record: JobRecord, attempt: Attempt) -> Body | None:
    """The request as an attempt sent it; None where the ledger cannot tell any more."""
    job = record.job
    if len(job.inputs) != len(attempt.uploads):
        return None
    job = job.sent_with(dict(zip(job.inputs, attempt.uploads, strict=True)))
    return body_of(provider, job) if job.digest == attempt.body else None


async def own_in(
    provider: HasHistory, ledger: Ledger, listed: Sequence[Listed], owners: Mapping[str, int]
) -> dict[str, Own]:
    """What was sent for the predictions of ours that a reading shows."""
    ids = {owners[row.id] for row in listed if row.id in owners}
    own: dict[str, Own] = {}
    for record in await ledger.records(sorted(ids)):
        for each in (*record.earlier, record.attempt):
            if each.prediction_id and each.intended_at:
                body = body_sent(provider, record, each)
                own[each.prediction_id] = Own(body=body, intended_at=each.intended_at)
    return own


async def hidden_of(provider: HasHistory, ledger: Ledger, ids: Collection[str]) -> list[Body]:
    """What was sent for predictions of ours that a list of ended ones does not show."""
    if not lists_ended_only(provider) or not ids:
        return []
    owners = await ledger.owners_of(set(ids))
    return [
        body
        for record in await ledger.records(sorted(set(owners.values())))
        for each in (*record.earlier, record.attempt)
        if each.prediction_id in owners and (body := body_sent(provider, record, each)) is not None
    ]


def lost_of(
    provider: HasHistory, record: JobRecord, ripe: Collection[int] = ()
) -> Iterator[LostSubmit]:
    """A job's attempts that are looked for; ``ripe`` are ids of jobs."""
    for each in attempts_of(record):
        assert each.intended_at is not None, "an intent knows when"
        assert each.lost_at is not None, "what is sought was lost"
        waits = record.state is JobState.UNKNOWN and each is record.attempt
        yield LostSubmit(
            place=(record.id, each.n),
            body=body_sent(provider, record, each),
            intended_at=each.intended_at,
            lost_at=each.lost_at,
            waits=waits,
            ripe=waits and record.id in ripe,
        )


@dataclass(slots=True)
class _Wanted:
    """When a job's submit was lost, by the loop's clock, and when it is looked for next."""

    lost_at: float
    due: float


class Searcher:
    """Looks for lost submits: one reading of the list serves all of them.

    It holds their jobs meanwhile, without a permit: at least ``search_s`` seconds, and as long as
    the runs that wait for them have other work. With ``resubmit`` those that surely bought nothing
    are submitted again, once each, until one of them turns up after all; ``memory`` tells the
    other runs of the account that one did. ``put_down`` hears of jobs that are let go of.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        ledger: Ledger,
        recorder: Recorder,
        admission: Admission,
        tickets: Tickets,
        inquiry: Inquiry,
        gate: Gate,
        owners: PredictionOwners,
        stops: StopReasons,
        enabled: bool,
        resubmit: bool,
        search_s: float,
        tell: Tell,
        memory: Memory | None,
        put_down: Callable[[Ticket], None] = lambda ticket: None,
    ) -> None:
        self._provider = provider if enabled and isinstance(provider, HasHistory) else None
        self._ledger, self._recorder = ledger, recorder
        self._admission, self._tickets = admission, tickets
        self._inquiry, self._gate, self._owners, self._stops = inquiry, gate, owners, stops
        self._resubmit, self._search_s, self._tell = resubmit, search_s, tell
        self._memory, self._put_down = memory, put_down
        self._clock = gate.clock
        self._wanted: dict[int, _Wanted] = {}
        self._failures = 0
        self._lag_s = 0.0  # the oldest prediction of ours that a reading did not show
        self._missed: dict[str, float] = {}  # since when readings lack them, by the loop's clock
        self._reading = anyio.Lock()
        self.refuted = False
        """Whether a submit that was taken for absent has turned up, ever."""
        self.turned_up = 0
        """How many did so since this pipeline was opened."""

    # -- which jobs are looked for --------------------------------------------------------------

    def take(self, ticket: Ticket) -> bool:
        """Take a job whose submit was lost from a driver; False where it is not to be found."""
        if self._provider is None or self._stops.drained or not ticket.record.attempt.sought:
            return False
        self._want(ticket)
        self._admission.set_aside(ticket, carried=True)
        return True

    async def begin(self) -> None:
        """Look once more for what is left of earlier runs."""
        if self._provider is None:
            return
        if self._resubmit and not self.refuted:
            here = await self._ledger.absence_failed()
            self.refuted = here or (self._memory is not None and bool(self._memory.load()))
        for record in await self._ledger.take([JobState.UNKNOWN], but=list(self._tickets)):
            if record.id in self._tickets:
                continue
            if record.attempt.sought:
                ticket = self._tickets[record.id] = Ticket(record, adopted=True)
                self._want(ticket)
                self._admission.set_aside(ticket)
            else:
                self._ledger.release(record.id)

    async def finish(self) -> bool:
        """Look once more, at a run's end, for attempts that their jobs have gone on from.

        False where there are none.
        """
        if self._provider is None or self._stops.drained:
            return False
        sought = await self._ledger.sought()
        looked = any(each.sought for record in sought for each in record.earlier)
        if looked:
            await self._look()
        return looked

    def _want(self, ticket: Ticket) -> None:
        lost_at = ticket.record.attempt.lost_at or now()
        clock = self._clock()
        self._wanted[ticket.id] = _Wanted(clock - (now() - lost_at).total_seconds(), due=clock)

    def has(self, job_id: int) -> bool:
        """Whether a job is held here while its lost submit is looked for."""
        return job_id in self._wanted

    def forget(self, job_id: int) -> None:
        """Look for a job's lost submit no more: another worker does."""
        self._wanted.pop(job_id, None)

    # -- when -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read the list whenever it is due, for ever."""
        news = self._admission.search_news
        while True:
            news.clear()
            if self._stops.drained:
                self.let_go(list(self._wanted))
            due = self._due()
            if due <= self._clock():
                await self._look()
                continue
            try:
                async with asyncio.timeout_at(None if due == math.inf else due):
                    await news.wait()
            except TimeoutError:
                continue

    def _due(self) -> float:
        return min((self._due_of(job_id) for job_id in self._wanted), default=math.inf)

    def _due_of(self, job_id: int) -> float:
        wanted = self._wanted[job_id]
        if self._failures:
            return wanted.due
        last = self._is_ripe(wanted, self._clock()) and self._is_last(job_id)
        return self._clock() if last else wanted.due

    def _ripe(self, clock: float) -> set[int]:
        return {each for each, wanted in self._wanted.items() if self._is_ripe(wanted, clock)}

    def _is_ripe(self, wanted: _Wanted, clock: float) -> bool:
        return clock >= wanted.lost_at + patience_s(self._search_s, self._lag_s)

    def _is_last(self, job_id: int) -> bool:
        """Whether those who wait for a job wait for nothing else."""
        return self._admission.waits_for_search_only(self._tickets[job_id])

    async def _look(self) -> None:
        """Read the list once; let go of what it was the last reading for."""
        async with self._reading:
            if self._provider is None:  # others found meanwhile that there is no list
                return self.let_go(list(self._wanted))
            began = self._clock()
            last = [each for each in self._ripe(began) if self._is_last(each)]
            try:
                async with self._ledger.searching():
                    await self._search(began)
                self._failures = 0
            except HistoryUnavailable as exc:
                self._tell(f"lost submits cannot be looked for: {exc}")
                self._provider = None
                return self.let_go(list(self._wanted))
            except ProviderError as exc:
                self._failures += 1
                logger.info("no search: %s", exc, extra={"action": "search.failed"})
                last = last if self._failures >= FAILURES else []
            for wanted in self._wanted.values():
                age_s = max(began - wanted.lost_at, 0.0)
                due = wanted.lost_at + next_age_s(age_s, patience_s(self._search_s, self._lag_s))
                pause_s = self._pause_s()
                wanted.due = max(due, self._clock() + pause_s)
            self.let_go(self._ripe(began).intersection(last))

    def _pause_s(self) -> float:
        if not self._failures:
            return SHORTEST_GAP_S
        return min(2.0 ** min(self._failures, 30), max(1.0, self._search_s / 4))

    def let_go(self, ids: Iterable[int]) -> None:
        """Look for some jobs no more; those that are not looked for are nothing to it."""
        for job_id in [each for each in ids if each in self._wanted]:
            del self._wanted[job_id]
            ticket = self._tickets[job_id]
            self._admission.take_back(ticket)
            self._put_down(ticket)

    # -- one reading ----------------------------------------------------------------------------

    async def _search(self, began: float) -> None:
        provider = self._provider
        assert provider is not None, "nothing is looked for without a list"
        at, sought = now(), await self._ledger.sought()
        intents = [a.intended_at for r in sought for a in attempts_of(r) if a.intended_at]
        if not intents:
            return
        since = min(intents) - SKEW
        ours = await self._ledger.predictions(since)
        listed = await self._read(provider, since, {record.job.model for record in sought})
        owners = await self._ledger.owners_of({row.id for row in listed})
        own = await own_in(provider, self._ledger, listed, owners)
        shown = {row.id for row in listed}
        self._missed = {
            each: self._missed.get(each, began) for each, _ in ours if each not in shown
        }
        late = {
            each: max((at - made_at).total_seconds(), began - self._missed[each])
            for each, made_at in ours
            if each in self._missed
        }
        self._lag_s = max(self._lag_s, *late.values(), 0.0)
        lacking = {each for each, lag_s in late.items() if lag_s >= self._search_s}
        hidden = await hidden_of(provider, self._ledger, late)
        submitting = await self._ledger.records_in([JobState.SUBMITTING])
        ripe = self._ripe(began)
        # The last wait: from here on nothing happens before what is found is recorded.
        records = {record.id: record for record in await self._ledger.sought()}
        for job_id in records.keys() & self._tickets.keys():
            records[job_id] = self._tickets[job_id].record
        claimed = {row.id for row in listed if row.id in owners or self._owners.has(row.id)}
        reading = Reading(
            at=at,
            listed=listed,
            claimed=claimed,
            own=own,
            lacking=lacking,
            ended_only=lists_ended_only(provider),
            hidden=hidden,
        )
        lost = [each for record in records.values() for each in lost_of(provider, record, ripe)]
        await self._act(match(lost, reading, self._under_way(provider, submitting)), records)

    async def _read(
        self, provider: HasHistory, since: datetime, models: Collection[str]
    ) -> list[Listed]:
        listed: list[Listed] = []
        await self._gate.poll_turn()
        with provider_code("a search", logger=logger, action="search.failed"):
            async for page in provider.history(since, now(), models=models):
                listed += listed_page(page)
                await self._gate.poll_turn()
        return listed

    def _under_way(self, provider: HasHistory, others: Iterable[JobRecord]) -> list[Body]:
        """What is being submitted, by us or by ``others`` who share the ledger."""
        records = {record.id: record for record in others}
        for job_id, ticket in self._tickets.items():
            records[job_id] = ticket.record
        bodies = (
            body_sent(provider, record, record.attempt)
            for record in records.values()
            if record.state is JobState.SUBMITTING
        )
        return [body for body in bodies if body is not None]

    # -- what follows ---------------------------------------------------------------------------

    async def _act(self, matches: Matches, records: Mapping[int, JobRecord]) -> None:
        """Record what was found, and hand on the jobs that go on, once it is on disk."""
        late: list[tuple[Place, Listed]] = []
        going_on: list[JobRecord] = []
        for place, row in matches.adopted.items():
            record = records[place[0]]
            self._owners.claim(row.id, record.id)
            if record.state is JobState.UNKNOWN and record.attempt.n == place[1]:
                going_on.append(self._adopt(record, row))
            else:
                late.append((place, row))
        for (job_id, n), ids in matches.ambiguous.items():
            self._say(records[job_id], n, _unclear(ids))
        for job_id, _ in matches.absent:
            record = records[job_id]
            if self._may_resubmit(record):
                error = f"{_reason(record)}{LOOKED}{NOT_FOUND}"
                absent = Absent(job_id=job_id, at=now(), error=error)
                going_on.append(self.record(record, absent))
            else:
                self._say(record, record.attempt.n, NOT_FOUND)
        await self._ledger.durable()
        await self.go_on(going_on)
        for place, row in late:
            await self._book(place, row)

    def _adopt(self, record: JobRecord, row: Listed) -> JobRecord:
        assert self._provider is not None, "nothing is looked for without a list"
        logger.info("%s: found as %s", record.name, row.id, extra={"action": "submit.found"})
        found = Found(
            job_id=record.id,
            at=now(),
            prediction_id=row.id,
            route=route_of(self._provider, record.job),
            created=row.created,
        )
        return self.record(record, found)

    async def go_on(self, records: Sequence[JobRecord]) -> None:
        """Hand on jobs whose prediction is found, or is absent, unless another worker has them."""
        free = []
        for record in records:
            if record.id in self._wanted:
                del self._wanted[record.id]
                self._admission.take_back(self._tickets[record.id])
            elif record.id not in self._tickets:
                free.append(record.id)
        for record in await self._ledger.claim(free) if free else ():
            if record.id not in self._tickets:
                self._admission.offer(record).adopted = True

    def _may_resubmit(self, record: JobRecord) -> bool:
        ticket = self._tickets.get(record.id)
        held = ticket is not None and record.id in self._wanted and not ticket.adopted
        once = not any(each.absent for each in record.earlier)
        return self._resubmit and not self.refuted and held and once

    def _say(self, record: JobRecord, n: int, text: str) -> None:
        """Let the ledger say of an unknown job what was found; only what is new."""
        error = f"{_reason(record)}{LOOKED}{text}"
        unknown = record.state is JobState.UNKNOWN and record.attempt.n == n
        if unknown and record.attempt.error != error:
            self.record(record, NotFound(job_id=record.id, at=now(), error=error))

    def record(self, record: JobRecord, event: Event) -> JobRecord:
        """Record what was found out of a job, in memory or not; return it as it stands then."""
        ticket = self._tickets.get(record.id)
        if ticket is None:
            return self._recorder.append(record, event)
        self._recorder.record(ticket, event)
        return ticket.record

    async def _book(self, place: Place, row: Listed) -> None:
        """Charge an attempt that its job has gone on from: its prediction was bought after all."""
        charged = True
        try:
            answer = await self._inquiry.poll(row.id)
            failed = answer.status is PredictionStatus.FAILED
            charged = not (failed and answer.released)
        except ProviderError as exc:
            logger.info("%s: %s", row.id, exc, extra={"action": "poll.failed"})
        job_id, n = place
        (record,) = await self._ledger.records([job_id])
        if (ticket := self._tickets.get(job_id)) is not None:
            record = ticket.record
        attempt = next((each for each in record.earlier if each.n == n and each.sought), None)
        if attempt is None:
            return
        if attempt.absent and charged:
            self.refuted, self.turned_up = True, self.turned_up + 1
            if self._memory is not None:
                self._memory.save({record.job.model: row.id})
            self._tell(
                f"{record.name}: prediction {row.id} turned up, though it had been taken for "
                "absent: it is paid for twice. Nothing of this account is resubmitted any more "
                "because it is absent"
            )
        up = TurnedUp(job_id=job_id, at=now(), attempt=n, prediction_id=row.id, charged=charged)
        self.record(record, up)


def _reason(record: JobRecord) -> str:
    """Why the answer was lost, without what was found since."""
    return (record.attempt.error or "").partition(LOOKED)[0]


def _unclear(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:5]) + (" and more" if len(ids) > 5 else "")
    return f"the provider lists {shown}; which is this job's nobody can tell: resolve --prediction"
