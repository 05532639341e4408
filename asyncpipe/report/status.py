"""Where an output folder stands: read beside a running run, from one moment of its ledger."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from asyncpipe._text import columns, printable, wrapped
from asyncpipe.flow import Latency
from asyncpipe.jobs import JobState, now
from asyncpipe.ledger import (
    STATE_FOLDER,
    Holder,
    LedgerReader,
    MoneyRow,
    Sums,
    Where,
    WorkerRow,
    folder_of,
    holder,
    reading,
    rows_of,
)
from asyncpipe.pricing import from_micro, usd
from asyncpipe.report.eta import LATEST, about, latency_of, left_s
from asyncpipe.report.manifest import money
from asyncpipe.report.summary import not_found
from asyncpipe.report.totals import Totals, delays_of

COLUMNS = 78

RECEIPT = (
    "Charged is the price of each delivered prediction by the ledger, not a receipt; "
    "`asyncpipe reconcile` compares it with the provider's bill."
)

DELAYS = 5
"""Causes of media that could not be fetched that are listed."""

_PENDING = {
    JobState.PENDING: "not submitted yet",
    JobState.SUBMITTING: "being submitted",
    JobState.SUBMITTED: "submitted",
    JobState.GENERATED: "to be downloaded",
    JobState.EXPIRED: "expired",
}

_RESERVED = {
    JobState.UNKNOWN: "unknown",
    JobState.SUBMITTING: "in_flight",
    JobState.SUBMITTED: "in_flight",
    JobState.EXPIRED: "expired",
}

RESERVED_FOR = {
    "unknown": "unknown jobs",
    "in_flight": "in flight",
    "expired": "expired jobs",
    "held": "lost answers of jobs submitted anew",
    "other": "others",
}
"""What money is reserved for, by its key in ``Money.reserved``."""


@dataclass(slots=True, kw_only=True)
class Money:
    """Amounts in micro-dollars; ``reserved`` by what for, ``released`` came back after failures.

    Of ``charged``, ``estimated`` is charged by the provider's estimates, and ``overrun`` is what
    was charged beyond what had been reserved.
    """

    charged: int = 0
    estimated: int = 0
    overrun: int = 0
    reserved: Counter[str] = field(default_factory=Counter)
    released: int = 0

    def add(self, other: Money) -> None:
        """Count ``other`` in."""
        self.charged += other.charged
        self.estimated += other.estimated
        self.overrun += other.overrun
        self.reserved.update(other.reserved)
        self.released += other.released


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """An output folder at one moment.

    ``jobs`` counts by state, without ``removed`` ones; ``failed_charged`` counts failed jobs that
    were charged, without lost ones, ``in_doubt`` those that an earlier lost answer may have been
    charged for. ``lost_answers`` counts attempts of unknown outcome whose jobs went on,
    ``overruns`` predictions that cost more than was reserved. ``failures_returned`` counts
    predictions that failed and whose money came back, ``refusals`` submits that surely bought
    nothing. ``workers`` are those of a shared ledger. ``left_s`` is about how many seconds the run
    that is under way will take; ``delays`` counts jobs whose media could not be fetched yet, by
    cause, ``not_found`` those unknown ones whose prediction surely is not in the provider's list.
    """

    folder: Where
    at: datetime
    simulated: bool
    provider: str
    job_file: str | None
    holder: Holder | None
    jobs: Counter[JobState]
    removed: int
    failed_charged: int
    in_doubt: int
    lost_answers: int
    overruns: int
    models: dict[str, Money]
    failures_returned: int
    refusals: int
    left_s: float | None
    delays: Counter[str] = field(default_factory=Counter)
    not_found: int = 0
    workers: Sequence[WorkerRow] = ()

    @property
    def money(self) -> Money:
        """All models together."""
        total = Money()
        for part in self.models.values():
            total.add(part)
        return total

    @property
    def charged(self) -> Decimal:
        """What all jobs were charged so far, in USD."""
        return from_micro(self.money.charged)

    @property
    def reserved(self) -> Decimal:
        """What is still kept back, in USD."""
        return from_micro(self.money.reserved.total())

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values, as `asyncpipe status --json` prints them."""
        document: dict[str, Any] = orjson.loads(orjson.dumps(status_document(self)))
        return document

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by outcome."""
        failed = self.jobs[JobState.FAILED]
        return {
            "succeeded": self.jobs[JobState.SUCCEEDED],
            **({"missing": missing} if (missing := self.jobs[JobState.MISSING]) else {}),
            "failed, not charged": failed - self.failed_charged - self.in_doubt,
            "failed, charged": self.failed_charged + self.jobs[JobState.LOST],
            "unknown": self.jobs[JobState.UNKNOWN] + self.in_doubt,
            "pending": sum(self.jobs[state] for state in _PENDING),
        }


def read_status(folder: Where) -> Status:
    """Read where ``folder`` stands, without holding it; raises LedgerError without a ledger."""
    held = holder(folder_of(folder) / STATE_FOLDER / "lock")
    with reading(folder) as ledger, rows_of("a total"):
        sums, origin, workers = ledger.sums(), ledger.origin(), ledger.workers()
        live = any(worker.left_s > 0 for worker in workers)
        if held is None and not live:
            sums = interrupted(sums)
        totals = Totals.of(sums)
        return Status(
            folder=folder,
            at=now(),
            simulated=origin is not None and origin.simulated,
            provider=origin.provider if origin else "none",
            job_file=ledger.job_file(),
            holder=held,
            workers=workers,
            jobs=totals.jobs,
            removed=totals.removed,
            failed_charged=sums.failed_charged,
            in_doubt=totals.in_doubt,
            lost_answers=totals.lost_answers,
            overruns=totals.overruns,
            models=_by_model(sums.money),
            failures_returned=sum(row["returned"] for row in sums.money),
            refusals=sum(row["refusals"] for row in sums.money),
            left_s=_left_s(ledger, totals) if held or live else None,
            delays=delays_of(totals),
            not_found=totals.not_found,
        )


def interrupted(sums: Sums) -> Sums:
    """What a killed run left: whatever it was submitting is unknown, as the next run will say."""
    submitting, unknown = JobState.SUBMITTING, JobState.UNKNOWN
    states = dict(sums.states)
    if left := states.pop(submitting, 0):
        states[unknown] = states.get(unknown, 0) + left
    money: list[MoneyRow] = [
        {**row, "state": unknown.value} if row["state"] == submitting.value else row
        for row in sums.money
    ]
    return replace(sums, states=states, money=money)


def _left_s(ledger: LedgerReader, totals: Totals) -> float | None:
    """By the times measured in this folder so far; the run itself may know more."""

    def latency(model: str) -> Latency | None:
        return latency_of(ledger.times(model, LATEST))

    waiting = totals.jobs[JobState.PENDING]
    return left_s(ledger.open_work(), waiting, latency, totals.in_flight, at=now())


def _by_model(rows: Sequence[MoneyRow]) -> dict[str, Money]:
    models: defaultdict[str, Money] = defaultdict(Money)
    for row in rows:
        part = models[row["model"]]
        part.charged += row["charged"]
        part.estimated += row["estimated"]
        part.overrun += row["overrun"]
        part.released += row["released"]
        if row["reserved"]:
            kind = "held" if row["earlier"] else _RESERVED.get(JobState(row["state"]), "other")
            part.reserved[kind] += row["reserved"]
    return dict(sorted(models.items()))


def status_lines(status: Status) -> list[str]:
    """Write a status for people."""
    kind = " (simulated: no real money)" if status.simulated else ""
    lines = [f"{printable(str(status.folder))}{kind}", *_held(status)]
    lines += columns([("jobs", str(sum(status.counts.values()))), *_count_rows(status)])
    lines += ["money", *columns(_money_rows(status))]
    if len(status.models) > 1:
        lines.append("by model")
        lines += columns([(m, _model_text(part)) for m, part in status.models.items()])
    parts = [RECEIPT, *next_steps(status)]
    return [*lines, "", *(line for part in parts for line in wrapped(part, COLUMNS))]


def _held(status: Status) -> list[str]:
    if status.workers:
        return [*map(_worker_text, status.workers)]
    if status.holder is None:
        return ["nothing works in it now"]
    since = status.holder.since.isoformat(sep=" ", timespec="seconds")
    left = "" if status.left_s is None else f"; {about(status.left_s)} left"
    return [f"{printable(status.holder.who)} works in it since {since}{left}"]


def _worker_row(worker: WorkerRow) -> dict[str, Any]:
    return {
        "name": worker.name,
        "started_at": _utc(worker.started_at),
        "lease_left_s": round(worker.left_s, 1),
        "shard": worker.shard,
        "jobs": worker.jobs,
    }


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _worker_text(worker: WorkerRow) -> str:
    since = _utc(worker.started_at).replace("T", " ")
    shard = "" if worker.shard is None else f", shard {worker.shard}"
    jobs = f"{worker.jobs} job" + ("" if worker.jobs == 1 else "s")
    if worker.left_s <= 0:
        return f"{printable(worker.name)} ended {about(-worker.left_s)} ago, {jobs} in hand{shard}"
    lease = f"lease of {worker.left_s:.0f} s"
    return f"{printable(worker.name)} works in it since {since}, {jobs} in hand{shard}; {lease}"


def _count_rows(status: Status) -> list[tuple[str, str]]:
    rows = [(name, str(count)) for name, count in status.counts.items()]
    rows += [
        (f"  {word}", str(status.jobs[state]))
        for state, word in _PENDING.items()
        if status.jobs[state]
    ]
    if status.removed:
        rows.append(("removed", f"{status.removed} no longer in the job file, never submitted"))
    if status.jobs[JobState.CANCELLED]:
        rows.append(("withdrawn", f"{status.jobs[JobState.CANCELLED]} before they were submitted"))
    return rows


def _money_rows(status: Status) -> list[tuple[str, str]]:
    total = status.money
    rows = [("charged", usd(total.charged))]
    if total.estimated:
        rows.append(("  estimated", f"{usd(total.estimated)} of it, by the provider's estimates"))
    if status.overruns:
        n = status.overruns
        rows.append(("  overrun", f"{usd(total.overrun)} of it, {n} cost more than was reserved"))
    rows.append(("reserved", usd(total.reserved.total())))
    rows += [
        (f"  {word}", usd(total.reserved[key]))
        for key, word in RESERVED_FOR.items()
        if total.reserved[key]
    ]
    if status.failures_returned:
        n = status.failures_returned
        rows.append(("released", f"{usd(total.released)} of {n} failed at the provider"))
    if status.refusals:
        rows.append(("refused", f"submits that bought nothing: {status.refusals}"))
    return rows


def _model_text(part: Money) -> str:
    text = f"{usd(part.charged):>14} charged"
    if part.reserved.total():
        text += f"   {usd(part.reserved.total())} reserved"
    return text + (f"   {usd(part.released)} released" if part.released else "")


def next_steps(status: Status) -> list[str]:
    """Say what to do next, most urgent first."""
    if status.holder is not None:
        return ["A run is under way: let it end, or look again."]
    file = printable(status.job_file or "JOBFILE")
    folder = printable(shlex.quote(str(status.folder)))
    counts, steps = status.counts, []
    if status.not_found:
        steps.append(not_found(status.not_found, folder))
    if doubtful := counts["unknown"] - status.not_found:
        steps.append(
            f"{doubtful} unknown: compare with your bill (asyncpipe reconcile {folder}), "
            f"then decide: asyncpipe resolve {folder} --lost-charged or --lost-free; where nobody "
            "knows, --resubmit or --give-up."
        )
    held = status.money.reserved["held"]
    if status.lost_answers:
        steps.append(
            f"{usd(held)} stay reserved for {status.lost_answers} lost answers of jobs that went "
            f"on: compare with your bill, then asyncpipe resolve {folder} --lost-charged or "
            "--lost-free."
        )
    unsubmitted = status.jobs[JobState.PENDING]
    bought = counts["pending"] - unsubmitted
    for cause, count in status.delays.most_common(DELAYS):
        steps.append(f"{count} paid and not downloaded: {printable(cause)[:300]}.")
    if bought:
        steps.append(f"{bought} bought and not here yet: asyncpipe collect {folder} fetches them.")
    if unsubmitted:
        steps.append(f"{unsubmitted} not submitted yet: run {file} into this folder again.")
    if missing := counts.get("missing"):
        steps.append(
            f"{missing} missing: put their files back where they were; asyncpipe verify "
            f"{folder} asks the provider once more."
        )
    if counts["failed, not charged"]:
        steps.append(
            f"{counts['failed, not charged']} failed and not charged: see their errors with "
            f"asyncpipe export {folder} --format csv; run with --retry-failed submits again those "
            "moderation let pass."
        )
    return steps or ["Nothing is left to do."]


def status_document(status: Status) -> dict[str, Any]:
    """Write a status for programs; amounts are USD."""
    held = status.holder
    return {
        "folder": str(status.folder),
        "at": status.at.isoformat(timespec="seconds"),
        "simulated": status.simulated,
        "provider": status.provider,
        "job_file": status.job_file,
        "held_by": held.who if held else None,
        **({"workers": [*map(_worker_row, status.workers)]} if status.workers else {}),
        "held_since": held.since.isoformat(timespec="seconds") if held else None,
        "jobs": {
            "total": sum(status.counts.values()),
            **{name.replace(", ", "_").replace(" ", "_"): n for name, n in status.counts.items()},
            "pending_by_state": {state.value: status.jobs[state] for state in _PENDING},
            "removed": status.removed,
            "withdrawn": status.jobs[JobState.CANCELLED],
        },
        "money": _money_document(status.money),
        "money_by_model": {model: _money_document(part) for model, part in status.models.items()},
        "lost_answers": status.lost_answers,
        "overruns": status.overruns,
        "left_s": None if status.left_s is None else round(status.left_s),
        "failures_returned": status.failures_returned,
        "not_downloaded": dict(status.delays),
        "refusals": status.refusals,
        "currency": "USD",
        "note": RECEIPT,
        "next_steps": next_steps(status),
    }


def _money_document(part: Money) -> dict[str, Any]:
    return {
        "charged": money(part.charged),
        "estimated": money(part.estimated),
        "overrun": money(part.overrun),
        "reserved": money(part.reserved.total()),
        "reserved_for": {key: money(part.reserved[key]) for key in RESERVED_FOR},
        "released": money(part.released),
    }
