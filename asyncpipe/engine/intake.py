"""How jobs come into a folder's ledger: sessions, runs, single jobs, what is wanted again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio

from asyncpipe.engine.admission import Admission
from asyncpipe.engine.ingest import (
    PAGE,
    Again,
    Attachments,
    Jobs,
    check_prices,
    in_lanes,
    write_jobs,
)
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.relay import Relay
from asyncpipe.engine.tickets import OpenRun, StopReasons, Tickets
from asyncpipe.engine.verify import Comparison
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    FolderInUse,
    IdempotencyConflict,
    UsageError,
)
from asyncpipe.jobs import (
    STOOD,
    AskedAgain,
    Event,
    Job,
    JobRecord,
    JobState,
    OutputPlace,
    Resubmitted,
    RetryAsked,
    Withdrawn,
    now,
)
from asyncpipe.ledger import (
    FIRST,
    Counted,
    Ledger,
    Named,
    SharedLedger,
    SharedPlace,
    place_in_draws,
)
from asyncpipe.pricing import Prices, Spending, from_micro

MOST_NAMES = 10_000
"""So many names are remembered that were told to stand for more than one job."""


MOST_COUNTS = 20
"""So often budgets are counted anew while things happen; then they stay as they were counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenIn:
    """A job as it stands; ``alone``: it is its caller's alone, no batch names it.

    ``elsewhere``: another worker carries it.
    """

    record: JobRecord
    alone: bool
    elsewhere: bool


class Intake:
    """Write jobs as pending, once each, and keep the totals right."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        where: Path | SharedPlace,
        relay: Relay,
        spending: Spending,
        recorder: Recorder,
        tickets: Tickets,
        fetch_missing: bool,
        local_files: OutputPlace | None,
        shared: SharedLedger | None = None,
    ) -> None:
        self._shared = shared
        self._ledger, self._where = ledger, where
        self._provider, self._spending = relay.main.name, spending
        self._attachments = Attachments(relay, local_files)
        self._totals, self._emit = recorder.totals, recorder.append
        self._tickets, self._fetch_missing = tickets, fetch_missing
        self._session: int | None = None
        self._since = 0  # rows that bear this run or a later one are named by this session
        self._repeats: dict[int, int] = {}  # runs over jobs an earlier run took, by that run
        self._namesakes: set[str] = set()  # said so far
        self._beginning = anyio.Lock()
        # One at a time: between reading that a job has ended and asking for it again nobody else
        # may do the same, or the second would call a job pending that is in flight.
        self._turn = anyio.Lock()

    async def take(self, job: Job) -> TakenIn:
        """Write one job unless it is there, its assets compared.

        Raises IdempotencyConflict where its idempotency key stands for another job.
        """
        job = await self._attachments.of(job)
        await self._spending.ask_unpriced(in_lanes([job]))
        if job.name is None:
            job = job.once()
        key = job.key(self._provider)
        await check_prices([(key, job)], self._spending, self._ledger, _NOTHING)
        run = await self._begin()
        async with self._turn:
            one, cut = await self._ledger.add_job(key, job, run=run, since=self._since)
            record, counted = one.record, one.counted
            if one.conflict:
                raise _conflict(job, key, record)
            if one.namesake:
                self._say_again(record.name)
            if counted in (Counted.NOWHERE, Counted.AS_REMOVED):
                if counted is Counted.AS_REMOVED:
                    self._totals.set_removed(self._totals.removed - 1)
                else:
                    self._totals.added(1)
            if cut is not None:
                self._take_back(record, counted)
                raise cut
            if record.state in STOOD and self._fetch_missing:
                record = await self._comparison(None).of(record)
            if record.state is JobState.CANCELLED:
                record = self._emit(record, AskedAgain(job_id=record.id, at=now()))
        alone = counted is not Counted.IN_A_BATCH
        return TakenIn(record=record, alone=alone, elsewhere=one.elsewhere)

    def _say_again(self, name: str) -> None:
        """Say, once for a name, that what has it differs from what this folder knows by it."""
        if name in self._namesakes:
            return
        self._namesakes.add(name)
        if len(self._namesakes) > MOST_NAMES:
            self._namesakes.clear()
        self._spending.tell(
            f"{name}: this folder has another job of that name; its model, prompt or fields "
            "differ, so this one is bought as well, and the old files stay"
        )

    def _take_back(self, record: JobRecord, counted: Counted) -> None:
        """Withdraw a job whose caller left while it was written."""
        new = counted in (Counted.NOWHERE, Counted.AS_REMOVED)
        if new and record.state is JobState.PENDING and not record.used:
            self._emit(record, Withdrawn(job_id=record.id, at=now()))

    async def take_all(
        self,
        jobs: Jobs,
        *,
        job_file: str | None,
        digest: str | None = None,
        retry_failed: bool,
        resubmit_unknown: bool,
    ) -> Named:
        """Write the jobs of one run; return which rows it names.

        When the folder's last run took the jobs of the same ``digest``, they are not read again.
        What ended before is pending again where it is withdrawn, or failed or unknown and wanted
        again. Raises JobFileError or UsageError before anything of the run can be drawn.
        """
        await self._work_on(job_file, digest)
        session = await self._begin()
        again = Again(retry_failed=retry_failed, resubmit=resubmit_unknown)
        async with self._ledger.taking_in(), self._turn:
            run = await self._repeat(job_file, digest)
            if run is None:
                run = await self._write(jobs, job_file, digest, again)
            await self._ask_again(await self._ledger.to_buy(run, **again))
            last = await self._ledger.last_row()
        return Named(run=run, last=last, single=session)

    async def _work_on(self, job_file: str | None, digest: str | None) -> None:
        """Raise FolderInUse where other workers are at the jobs of another file."""
        if self._shared is None or not digest:
            return
        busy = await self._shared.working_on(job_file, digest)
        if busy is not None:
            raise FolderInUse(
                f"{self._where}: {busy} works here on another job file: wait for it to end "
                "(asyncpipe status shows how far it is), or choose another place with --output-dir"
            )

    async def enqueue(self, named: Named, size: int, settings: Mapping[str, Any]) -> list[int]:
        """Part the jobs of a run into shards; return those with work to do."""
        if self._shared is None:
            raise UsageError("a queue's jobs are in a ledger that its workers share: --ledger")
        async with self._turn:
            await self._shared.keep_settings(settings)
            return await self._shared.set_shards(named, size)

    async def take_up(self, *, ours: bool = False) -> Named | None:
        """Name the jobs that callers asked for one by one and that were not submitted.

        Those of earlier sessions; ``ours``: this one's as well, and none that is in memory. None
        where there is no such job.
        """
        session, held = self._session or NOBODYS, [*self._tickets] if ours else ()
        async with self._turn:
            but = NOBODYS if ours else session
            run = await self._ledger.take_up(now(), session=but, but=held)
            if run is None:
                return None
            return Named(run=run, last=await self._ledger.last_row(), single=session)

    async def compare(
        self,
        run: int,
        open_run: OpenRun,
        admission: Admission,
        stops: StopReasons,
    ) -> None:
        """Look at the assets of jobs of ``run`` that succeeded; offer those with one missing.

        Beside the run, which ends after this: a million looks take longer than anybody wants to
        wait for the first submit. A drain ends it early; what cannot be looked at stops the run.
        """
        comparison = self._comparison(run)
        found: list[JobRecord] | None = [] if self._fetch_missing else None
        try:
            while found is not None and open_run.comparing and not stops.drained:
                async with self._turn:
                    found = await comparison.step()
                for record in found or ():
                    admission.offer(record, open_run)
        except AsyncpipeError as exc:
            stops.note(exc)
        finally:
            admission.compared(open_run)

    async def _repeat(self, job_file: str | None, digest: str | None) -> int | None:
        """Take the rows of the folder's last run as they are, if they are of the same jobs."""
        if digest is None:
            return None
        repeated = await self._ledger.repeat_run(
            now(), since=self._since, job_file=job_file, digest=digest
        )
        if repeated is None:
            return None
        self._repeats[repeated.seen] = repeated.run
        self._since = min(self._since, repeated.seen)
        await self._count_removed()
        return repeated.seen

    async def _write(
        self, jobs: Jobs, job_file: str | None, digest: str | None, again: Again
    ) -> int:
        run = await self._ledger.start_run(now(), session=self._since, job_file=job_file)
        try:
            count, local = await write_jobs(
                self._ledger,
                jobs,
                run=run,
                provider=self._provider,
                spending=self._spending,
                added=self._totals.added,
                attachments=self._attachments,
                again=again,
            )
        finally:
            await self._count_removed()
        if local:  # a photo may change while the job file stays: look at it each time
            digest = None
        if changed := await self._ledger.end_pass(run, digest=digest, jobs=count):
            self._spending.tell(
                f"{changed} jobs are finished here under the same name, and have changed since: "
                "they are other jobs now and will be bought; the old files stay"
            )
        await self._recount()
        return run

    async def _recount(self) -> None:
        """Count anew what budgets have come to: jobs may have got other labels."""
        purses = self._spending.budget.purses
        for _ in range(MOST_COUNTS if purses.names else 0):
            folds = purses.folds
            spent = await self._ledger.spent_on(purses.names, purses.day)
            if folds == purses.folds:  # else something happened that may be in it or not
                return purses.begin(spent)

    async def end(self, run: int | None = None) -> None:
        """Note that a run is over, or the session."""
        over = self._repeats.pop(run, run) if run else self._session
        if over is not None:
            await self._ledger.end_run(over, now())

    def _comparison(self, run: int | None) -> Comparison:
        return Comparison(self._ledger, self._where, self._emit, hashing=False, run=run)

    async def _begin(self) -> int:
        """Note, with the first job, that a session began; what it does not name is removed."""
        async with self._beginning:
            if self._session is None:
                begun, cut = await self._ledger.begin_session(now())
                self._session, self._since = begun.id, begun.since
                self._totals.set_removed(begun.removed)
                if cut is not None:
                    raise cut
            return self._session

    async def _count_removed(self) -> None:
        removed, cut = await self._ledger.removed()
        self._totals.set_removed(removed)
        if cut is not None:
            raise cut

    async def _ask_again(self, ids: Sequence[int]) -> None:
        """Make jobs that ended pending again.

        Not those in memory: whoever carries one decides, and a record has one history.
        """
        for start in range(0, len(ids), PAGE):
            for record in await self._ledger.records(ids[start : start + PAGE]):
                event, ticket = _AGAIN.get(record.state), self._tickets.get(record.id)
                if ticket is not None:
                    ticket.adopted = False
                elif event is not None:
                    self._emit(record, event(job_id=record.id, at=now()))


NOBODYS = -1
"""A session that no job is of."""

NOTHING = Named(run=2**62)
"""A run that names no job."""


def _conflict(job: Job, key: str, record: JobRecord) -> IdempotencyConflict:
    return IdempotencyConflict(
        f"idempotency key {job.idempotency_key!r} stands for the job {record.name} "
        f"({record.key[:12]}) here, and this is another one: {job.title(key)} ({key[:12]}). "
        "Nothing was bought: give another job another key, or send the same job again"
    )


_NOTHING = Again(retry_failed=False, resubmit=False)

_AGAIN: dict[JobState, Callable[..., Event]] = {
    JobState.CANCELLED: AskedAgain,
    JobState.FAILED: RetryAsked,
    JobState.UNKNOWN: Resubmitted,
}


MOST_PRICED = 100_000
"""Jobs that are priced to tell how much is missing; beyond, it is said to be more."""


async def explain(stops: StopReasons, ledger: Ledger, run: Named, spending: Spending) -> None:
    """Where ``run`` was stopped for lack of money, say how much is missing."""
    if isinstance(why := stops.first, BalanceExhausted):
        jobs, cost, more = await _left(ledger, run, spending.prices)
        stops.explain(await spending.balance.missing(why, jobs=jobs, cost=cost, more=more))


async def _left(ledger: Ledger, run: Named, prices: Prices) -> tuple[int, Decimal, bool]:
    """How many jobs are pending, what they cost in USD, and whether that is not all."""
    jobs = micro = 0
    for model in await ledger.pending_models(run):
        after = FIRST
        while records := await ledger.pending(run, model, after=after, limit=PAGE):
            if jobs >= MOST_PRICED:
                return jobs, from_micro(micro), True
            for record in records:
                try:
                    micro += prices.of(record.job).to_reserve
                except UsageError:  # not to be priced any more: it is not submitted either
                    continue
                jobs += 1
            after = place_in_draws(records[-1])
    return jobs, from_micro(micro), False
