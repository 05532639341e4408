"""Budgets of some of the jobs: of those with a label, and of those that one day submits. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from asyncpipe.errors import BudgetReached
from asyncpipe.jobs import (
    Job,
    JobRecord,
    committed_against,
    counts_against,
    days_of,
    label_of_budget,
    now,
)
from asyncpipe.pricing.money import checked_cap, usd_text
from asyncpipe.pricing.price import Price


@dataclass(frozen=True, slots=True)
class Purse:
    """What some jobs may cost together: those with a ``label``, or those that one day submits.

    ``name`` is as people write it; ``cap`` is in micro-dollars. Days are UTC's.
    """

    name: str
    cap: int
    label: tuple[str, str] | None = None

    def covers(self, job: Job) -> bool:
        """Whether what a job costs counts against it."""
        return counts_against(job, self.label)

    def share(self, record: JobRecord, day: date) -> int:
        """Micro-dollars of a job's that count against it, were it of ``day``."""
        return committed_against(record, self.label, day)

    def releasable(self, record: JobRecord, day: date) -> int:
        """The part of it that the provider may still give back."""
        return min(record.releasable, self.share(record, day))


def purses_of(budgets: Mapping[str, Decimal] | None) -> tuple[Purse, ...]:
    """Read ``budgets``; raises UsageError naming what is wrong."""
    return tuple(
        purse_of(name, checked_cap(amount, f"budgets[{name!r}]"))
        for name, amount in (budgets or {}).items()
    )


def purse_of(name: str, cap: int) -> Purse:
    """The purse that a name stands for; raises UsageError for a name that stands for none."""
    return Purse(name, cap, label_of_budget(name))


class InMemory(Protocol):
    """The jobs that are in memory."""

    def releasable_in(self, purse: Purse, day: date) -> int:
        """Micro-dollars of a purse's that the provider may still give back in this run."""


@dataclass(frozen=True, slots=True)
class PurseState:
    """What a shared ledger says of one: its lowest cap, what is committed, what may come back."""

    cap: int
    committed: int
    releasable: int


@dataclass(slots=True, eq=False)
class Purses:
    """What is committed and held of every purse: read once, then folded along.

    ``wait``: what does not fit a day waits for the next. Sums are by name, those of days by their
    dates. Where others spend as well nobody knows all that is ``in_memory``: then what the
    ledger says of each (``note``) counts, and what was reserved here since; nothing is folded.
    ``folds`` counts what was.
    """

    own: tuple[Purse, ...] = ()
    in_memory: InMemory | None = None
    wait: bool = False
    clock: Callable[[], datetime] = now
    day: date = date.min
    committed: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    folds: int = 0
    _all: tuple[Purse, ...] = ()
    _releasable: dict[str, int] = field(default_factory=dict)
    _stirred: bool = False

    def __post_init__(self) -> None:
        self._all = self.own
        self.day = self.clock().date()

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def names(self) -> list[str]:
        """The names of those whose sums are to be read."""
        return [purse.name for purse in self.own]

    def begin(self, spent: Mapping[str, int]) -> None:
        """Take what a ledger counted, by name; a day's is that of ``day``."""
        self.committed = self._dated(spent)

    def of(self, job: Job) -> list[Purse]:
        """Those that a job counts against."""
        return [purse for purse in self._all if purse.covers(job)]

    # -- what changes ---------------------------------------------------------------------------

    def fold(self, before: JobRecord, after: JobRecord) -> None:
        """Count what became of a job."""
        if not self._all or self.in_memory is None:
            return
        self.folds += 1
        days = days_of(after)
        for purse in self.of(after.job):
            for day in days if purse.label is None else days[:1]:
                was, now_ = purse.share(before, day), purse.share(after, day)
                _add(self.committed, _key(purse, day), now_ - was)
                self._stirred |= now_ < was or after.releasable < before.releasable

    def turn(self) -> None:
        """Begin a new day, where one has begun."""
        today = self.clock().date()
        if today != self.day:
            self.day, self._stirred = today, True

    def hold(self, purses: Iterable[Purse], micro: int) -> None:
        """Keep back what a job reserves."""
        for purse in purses:
            _add(self.held, purse.name, micro)

    def end_hold(self, purses: Iterable[Purse], micro: int, *, spent: bool) -> None:
        """Keep it back no longer; ``spent``: an intent has reserved it."""
        for purse in purses:
            self.held[purse.name] -= micro
            self._stirred |= not spent

    def note(self, told: Mapping[str, PurseState]) -> None:
        """Take what a shared ledger says: the purses of all who share it bind everybody."""
        self.turn()
        own = {purse.name: purse.cap for purse in self.own}
        caps = own | {name: min(own.get(name, s.cap), s.cap) for name, s in told.items()}
        self._all = tuple(purse_of(name, cap) for name, cap in caps.items())
        before = self.committed, self._releasable
        self.committed = self._dated({name: state.committed for name, state in told.items()})
        self._releasable = self._dated({name: state.releasable for name, state in told.items()})
        self._stirred |= before != (self.committed, self._releasable)

    def add(self, job: Job, micro: int) -> None:
        """Count what an intent of ours has reserved, where the ledger is shared."""
        for purse in self.of(job):
            self._reserved(purse, micro)

    def full(self, job: Job) -> None:
        """Note that the ledger refused an intent: others have reserved what was left of one."""
        for purse in self.of(job):
            self._reserved(purse, max(0, purse.cap - self.committed_in(purse)))

    def _reserved(self, purse: Purse, micro: int) -> None:
        for sums in (self.committed, self._releasable):
            _add(sums, _key(purse, self.day), micro)

    def freed(self) -> bool:
        """Whether jobs that waited may be looked at again: asked once, it is no more."""
        self.turn()
        stirred, self._stirred = self._stirred, False
        return stirred

    # -- what follows ---------------------------------------------------------------------------

    def committed_in(self, purse: Purse) -> int:
        """Micro-dollars charged or reserved that count against a purse: a day's today."""
        return self.committed.get(_key(purse, self.day), 0)

    def _taken_of(self, purse: Purse) -> int:
        return self.committed_in(purse) + self.held.get(purse.name, 0)

    def _dated(self, sums: Mapping[str, int]) -> dict[str, int]:
        return {_key(purse_of(name, 0), self.day): micro for name, micro in sums.items()}

    def _may_come_back(self, purse: Purse) -> int:
        if self.in_memory is None:
            return self._releasable.get(_key(purse, self.day), 0)
        return self.in_memory.releasable_in(purse, self.day)

    def short(self, job: Job, price: Price, *, kept: bool = False) -> Purse | None:
        """The purse that a job does not fit into now, or None; one that it never will comes first.

        What it never will: whatever becomes of what is in flight, and of the day.
        """
        self.turn()
        short = [p for p in self.of(job) if self._taken_of(p) + price.to_reserve > p.cap]
        return min(short, key=lambda purse: self.waits(purse, price, kept=kept), default=None)

    def waits(self, purse: Purse, price: Price, *, kept: bool = False) -> bool:
        """Whether a job of that price, which does not fit into a purse now, may fit later.

        A ``kept`` one is not refused for what another day may have.
        """
        if (self.wait or kept) and purse.label is None and price.to_reserve <= purse.cap:
            return True
        back = self._may_come_back(purse) + self.held.get(purse.name, 0)
        return self._taken_of(purse) - back + price.to_reserve <= purse.cap

    def covers_holds(self, purses: Iterable[Purse]) -> bool:
        """Whether all that was held of these still fits."""
        return all(self._taken_of(purse) <= self._cap_of(purse) for purse in purses)

    def _cap_of(self, purse: Purse) -> int:
        return next((each.cap for each in self._all if each.name == purse.name), purse.cap)

    @property
    def next_day_s(self) -> float:
        """In how many seconds a day's budget is a new one; infinity where there is none."""
        if not any(purse.label is None for purse in self._all):
            return math.inf
        at = self.clock()
        midnight = datetime.combine(at.date() + timedelta(days=1), datetime.min.time(), UTC)
        return (midnight - at).total_seconds()

    def waiting(self, purse: Purse) -> BudgetReached:
        """Say what jobs wait for."""
        until = "money of it comes back" if purse.label else "money comes back, or the next day"
        return BudgetReached(
            f"the budget of {usd_text(purse.cap)} USD for {self._what(purse)} has no room: jobs "
            f"wait until {until}",
            budget=purse.name,
        )

    def _what(self, purse: Purse) -> str:
        return f"{self.day:%Y-%m-%d} (UTC)" if purse.label is None else purse.name

    def refusal(self, purse: Purse, price: Price) -> BudgetReached:
        """Say why a job is not submitted."""
        next_day = " or wait for the next day (wait_for_day)" if purse.label is None else ""
        return BudgetReached(
            f"the budget of {usd_text(purse.cap)} USD for {self._what(purse)} is reached: "
            f"{usd_text(self.committed_in(purse))} are charged or reserved, and the next "
            f"job needs {usd_text(price.to_reserve)}. What does not fit was not submitted, other "
            f"jobs were. Raise budgets ({purse.name!r}) in the job file{next_day}, then run again",
            budget=purse.name,
        )


def _key(purse: Purse, day: date) -> str:
    return f"{purse.name} {day}" if purse.label is None else purse.name


def _add(sums: dict[str, int], key: str, micro: int) -> None:
    sums[key] = sums.get(key, 0) + micro
