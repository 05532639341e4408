"""Decide about unknown jobs and lost answers: submit anew, give up, settle, find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from asyncpipe.engine.account import settle_account
from asyncpipe.engine.find import SKEW, Place, Reading, match
from asyncpipe.engine.ingest import mark_interrupted, written
from asyncpipe.engine.search import attempts_of, hidden_of, lost_of, own_in
from asyncpipe.errors import FolderInUse, HistoryUnavailable, UsageError
from asyncpipe.jobs import (
    Event,
    Failed,
    Found,
    Job,
    JobRecord,
    JobState,
    LostSettled,
    Resubmitted,
    TurnedUp,
    now,
)
from asyncpipe.ledger import (
    Ledger,
    Origin,
    Where,
    mending,
    origin_of,
)
from asyncpipe.pricing import from_micro
from asyncpipe.providers import HasHistory, Listed, Provider, connect, lists_ended_only
from asyncpipe.report import write_manifest

GIVEN_UP = "given up: submitted, and the answer was lost; counted as charged"

GIVEN_UP_FREE = "given up: submitted, and the answer was lost; it was not charged"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the user knows or wants.

    ``lost_charged`` is about the attempts whose answer was lost: True, the bill has them, they are
    charged; False, it has not, they are released; None: not known. ``resubmit`` is about unknown
    jobs: True, pending again; False, given up; None: as the bill has it, given up what was bought
    and submitted anew what was not. Where the bill is not known, a job that is given up counts as
    charged, and one that is submitted anew keeps the money reserved.
    """

    resubmit: bool | None = None
    lost_charged: bool | None = None

    @property
    def submits_anew(self) -> bool:
        """Whether unknown jobs are pending again by it."""
        return self.lost_charged is False if self.resubmit is None else self.resubmit


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A job before and after a decision."""

    before: JobRecord
    after: JobRecord

    @property
    def settled(self) -> int:
        """How many lost answers were settled by it."""
        unknown = [r.lost + (r.state is JobState.UNKNOWN) for r in (self.before, self.after)]
        return unknown[0] - unknown[1]

    @property
    def charged(self) -> Decimal:
        """What was charged by it, in USD."""
        return from_micro(self.after.charged - self.before.charged)

    @property
    def released(self) -> Decimal:
        """What is not reserved any more, and not charged either, in USD."""
        return from_micro(self.before.committed - self.after.committed)


async def resolve(folder: Where, names: Sequence[str], decision: Decision) -> list[Resolved]:
    """Decide about the jobs called ``names`` (none: all that are concerned).

    Those are unknown jobs, failed ones that an earlier lost answer may have been charged for, and,
    where it is said what lost answers cost, all that have some. Raises UsageError for a name that
    no such job has, FolderInUse while a run holds the folder, and LedgerError when the folder has
    no ledger.
    """
    async with mending(folder) as ledger:
        await mark_interrupted(ledger)
        records = _chosen(await _concerned(ledger, decision), names, folder, decision)
        records = await _ours(ledger, records)
        resolved = []
        for record in records:
            after = record
            for event in follow(record, decision):
                after = written(ledger, after, event)
            resolved.append(Resolved(before=record, after=after))
        await ledger.durable()
        write_manifest(folder)
    return resolved


async def _ours(ledger: Ledger, records: Sequence[JobRecord]) -> list[JobRecord]:
    """The records that are ours to change; raises FolderInUse where other workers have some."""
    ours = await ledger.claim([record.id for record in records])
    if missing := {record.name for record in records} - {record.name for record in ours}:
        raise FolderInUse(
            f"other workers have {', '.join(sorted(missing)[:5])} at the moment, and look for what "
            "became of them: wait for them to end"
        )
    return ours


async def take_prediction(folder: Where, name: str, prediction_id: str) -> Resolved:
    """Note by hand which prediction an unknown job has; the next run or collect polls it.

    Raises UsageError where there is no such job, or the prediction is another job's; FolderInUse
    and LedgerError as ``resolve`` does.
    """
    provider = origin_of(folder).provider
    async with mending(folder) as ledger:
        await mark_interrupted(ledger)
        unknown = [r for r in await ledger.unresolved() if r.state is JobState.UNKNOWN]
        (before,) = _chosen(unknown, [name], folder, Decision(resubmit=True))[:1]
        (before,) = await _ours(ledger, [before])
        if (owner := (await ledger.owners_of([prediction_id])).get(prediction_id)) is not None:
            (known,) = await ledger.records([owner])
            raise UsageError(f"prediction {prediction_id} is that of {known.name!r} already")
        found = Found(
            job_id=before.id,
            at=now(),
            prediction_id=prediction_id,
            route=_route(provider, before.job),
        )
        after = written(ledger, before, found)
        await ledger.durable()
        write_manifest(folder)
    return Resolved(before=before, after=after)


def _route(provider: str, job: Job) -> str:
    """How a prediction is polled that nobody told; "" where the provider does not say."""
    try:
        known = connect(provider, keyless=True)
    except UsageError:
        return ""
    return known.route_of(job) if isinstance(known, HasHistory) else ""


async def find_lost(
    folder: Where, provider: Provider, account: str | None = None, *, same_account: bool = False
) -> list[Resolved]:
    """Look once for every lost submit of ``folder``; what is found is polled by the next run.

    ``provider`` is open, ``account`` what ``ask_account`` told of it; ``same_account`` accepts
    another one than before. Raises HistoryUnavailable where it lists no predictions, ProviderError
    where the list cannot be read; UsageError for another provider's or account's folder,
    FolderInUse while a run holds it.
    """
    if not isinstance(provider, HasHistory):
        raise HistoryUnavailable(f"{provider.name} does not list what was bought")
    origin = Origin(provider=provider.name, origin=provider.origin, simulated=provider.simulated)
    async with mending(folder, origin) as ledger:
        await mark_interrupted(ledger)
        await settle_account(ledger, origin, account, folder, accept=same_account)
        async with ledger.searching():
            resolved = await _find(ledger, provider)
        write_manifest(folder)
    return resolved


async def _find(ledger: Ledger, provider: HasHistory) -> list[Resolved]:
    at, sought = now(), {record.id: record for record in await ledger.sought()}
    intents = [a.intended_at for r in sought.values() for a in attempts_of(r) if a.intended_at]
    if not intents:
        return []
    models = {record.job.model for record in sought.values()}
    pages = provider.history(min(intents) - SKEW, at, models=models)
    listed = [row async for page in pages for row in page]
    owners = await ledger.owners_of({row.id for row in listed})
    own = await own_in(provider, ledger, listed, owners)
    lost = [each for record in sought.values() for each in lost_of(provider, record)]
    shown = {row.id for row in listed}
    ours = {each for each, _ in await ledger.predictions(min(intents) - SKEW)}
    reading = Reading(
        at=at,
        listed=listed,
        claimed=owners.keys(),
        own=own,
        ended_only=lists_ended_only(provider),
        hidden=await hidden_of(provider, ledger, ours - shown),
    )
    resolved = []
    for place, row in match(lost, reading).adopted.items():
        before = sought[place[0]]
        found = _found(before, place, row, provider)
        after = sought[place[0]] = written(ledger, before, found)
        resolved.append(Resolved(before=before, after=after))
    await ledger.durable()
    return resolved


def _found(record: JobRecord, place: Place, row: Listed, provider: HasHistory) -> Event:
    """A job that waits goes on with it; of one that has gone on the money is known."""
    job_id, n = place
    if record.state is JobState.UNKNOWN and record.attempt.n == n:
        route = provider.route_of(record.job)
        return Found(
            job_id=job_id, at=now(), prediction_id=row.id, route=route, created=row.created
        )
    return TurnedUp(job_id=job_id, at=now(), attempt=n, prediction_id=row.id)


def follow(record: JobRecord, decision: Decision) -> Iterator[Event]:
    """Yield what follows for one job."""
    if record.state is JobState.UNKNOWN:
        yield from _latest(record, decision)
    if decision.lost_charged is None and decision.submits_anew:
        return
    for each in record.earlier:
        if each.settled is None:
            yield _settled(record, each.n, charged=decision.lost_charged is not False)


def _latest(record: JobRecord, decision: Decision) -> Iterator[Event]:
    """What becomes of an unknown job, and of the attempt that made it so."""
    at, charged = now(), decision.lost_charged
    if decision.submits_anew:
        yield Resubmitted(job_id=record.id, at=at)
        if charged is not None:
            yield _settled(record, record.attempt.n, charged=charged)
    elif charged is False:
        yield Failed(job_id=record.id, at=at, error=GIVEN_UP_FREE, found_free=True)
    else:
        yield Failed(job_id=record.id, at=at, error=GIVEN_UP, charged=True)


def _settled(record: JobRecord, attempt: int, *, charged: bool) -> LostSettled:
    return LostSettled(job_id=record.id, at=now(), attempt=attempt, charged=charged)


async def _concerned(ledger: Ledger, decision: Decision) -> list[JobRecord]:
    records = await ledger.unresolved()
    if decision.lost_charged is not None:
        return records
    # A job that is given up failed; one that succeeded, or may yet, only has money to settle.
    given_up = not decision.submits_anew
    return [r for r in records if r.state is JobState.UNKNOWN or (given_up and r.in_doubt)]


def _chosen(
    records: list[JobRecord], names: Sequence[str], folder: Where, decision: Decision
) -> list[JobRecord]:
    missing = set(names) - {record.name for record in records}
    if missing:
        known = ", ".join(record.name for record in records[:10]) or "none"
        kind = "unknown job" if decision.submits_anew else "job with a lost answer"
        raise UsageError(
            f"{folder} has no {kind} called {', '.join(sorted(missing))}; there are: {known}"
        )
    return [record for record in records if not names or record.name in names]
