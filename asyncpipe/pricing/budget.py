"""A cap on what a folder's jobs may cost: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from asyncpipe.errors import BudgetReached
from asyncpipe.jobs import Job
from asyncpipe.pricing.money import usd_text
from asyncpipe.pricing.price import Price
from asyncpipe.pricing.purses import Purse, Purses


class Fit(Enum):
    """Whether a job may be submitted as far as its price goes."""

    NOW = auto()
    WAITS = auto()  # later, if money of its label or its day comes back; others need not wait
    LATER = auto()  # if what is in flight gives money back
    NEVER = auto()  # whatever becomes of what is in flight


class Committed(Protocol):
    """What a folder's jobs are charged and what is reserved for them, in micro-dollars, by now."""

    charged_micro: int
    reserved_micro: int


class InFlight(Protocol):
    """The jobs that are in memory."""

    def releasable(self) -> int:
        """Micro-dollars reserved for them that the provider may still give back in this run."""

    def unanswered(self) -> int:
        """The part of it whose submits are under way."""


@dataclass(slots=True, eq=False)
class SharedMoney:
    """What all who share a ledger are charged and reserve, in micro-dollars, as far as is known.

    What we reserved since it was last told is added; what was given back since is not, so that it
    is never too little of ours.
    """

    charged_micro: int = 0
    reserved_micro: int = 0
    _releasable: int = 0
    _unanswered: int = 0

    def note(self, *, charged: int, reserved: int, releasable: int, unanswered: int) -> None:
        """Take what the ledger says."""
        self.charged_micro, self.reserved_micro = charged, reserved
        self._releasable, self._unanswered = releasable, unanswered

    def add(self, micro: int) -> None:
        """Count what an intent of ours has reserved."""
        self.reserved_micro += micro
        self._releasable += micro
        self._unanswered += micro

    def full(self, cap: int | None) -> None:
        """Note that the ledger refused an intent: others have reserved what was left."""
        if cap is not None:
            self.add(max(0, cap - self.charged_micro - self.reserved_micro))

    def releasable(self) -> int:
        """Micro-dollars reserved for what is in flight, at anybody's."""
        return self._releasable

    def unanswered(self) -> int:
        """The part of it whose submits are under way."""
        return self._unanswered


@dataclass(slots=True, eq=False)
class Hold:
    """What one job reserves, kept back from its admission until its intent."""

    price: Price
    purses: Sequence[Purse]
    _budget: Budget
    _ended: bool = False

    def end(self, *, spent: bool = False) -> None:
        """Keep it back no longer: an intent reserves it now (``spent``), or nothing comes of it."""
        if not self._ended:
            self._ended = True
            self._budget.held -= self.price.to_reserve
            self._budget.purses.end_hold(self.purses, self.price.to_reserve, spent=spent)


class Budget:
    """Committed money never exceeds ``cap`` micro-dollars by what we submit; None: no cap.

    What a job reserves, its price and margin, is held from its admission until its intent, so that
    no two jobs are promised the same money. Only a provider that charges more than was reserved,
    or a cap lowered later, brings what is committed above the cap: then nothing fits.
    """

    def __init__(
        self,
        cap: int | None,
        committed: Committed,
        in_flight: InFlight,
        purses: Purses | None = None,
    ) -> None:
        self._own = self._cap = cap
        self.purses: Purses = Purses() if purses is None else purses
        self._committed = committed
        self._in_flight = in_flight
        self.held: int = 0

    @property
    def cap(self) -> int | None:
        """The most that may be committed; None: there is no cap."""
        return self._cap

    def set(self, cap: int | None) -> None:
        """Keep to another cap of ours from now on."""
        self._own = self._cap = cap

    def share(self, cap: int | None) -> None:
        """Keep to the lowest cap of all who share the ledger, ours among them."""
        caps = [each for each in (self._own, cap) if each is not None]
        self._cap = min(caps, default=None)

    @property
    def committed(self) -> int:
        """Micro-dollars charged or reserved."""
        return self._committed.charged_micro + self._committed.reserved_micro

    @property
    def reserved(self) -> int:
        """Micro-dollars reserved."""
        return self._committed.reserved_micro

    @property
    def releasable(self) -> int:
        """Micro-dollars reserved for what is in flight."""
        return self._in_flight.releasable()

    @property
    def unanswered(self) -> int:
        """Micro-dollars reserved for submits that are under way."""
        return self._in_flight.unanswered()

    def fit(self, price: Price, job: Job | None = None, *, kept: bool = False) -> Fit:
        """Whether a job of this price may go now, later or never; a ``kept`` one another day."""
        if (fit := self._fit(price)) is not Fit.NOW or job is None or not self.purses:
            return fit
        if (purse := self.purses.short(job, price, kept=kept)) is None:
            return Fit.NOW
        return Fit.WAITS if self.purses.waits(purse, price, kept=kept) else Fit.NEVER

    def _fit(self, price: Price) -> Fit:
        if self._cap is None:
            return Fit.NOW
        left = self._cap - self.committed - self.held - price.to_reserve
        if left >= 0:
            return Fit.NOW
        return Fit.LATER if left + self.releasable + self.held >= 0 else Fit.NEVER

    def hold(self, price: Price, job: Job | None = None) -> Hold:
        """Keep back what a job reserves; it must fit now."""
        purses = self.purses.of(job) if job is not None and self.purses else ()
        self.held += price.to_reserve
        self.purses.hold(purses, price.to_reserve)
        return Hold(price, purses, self)

    def covers(self, hold: Hold) -> bool:
        """Whether what was held for a job still fits, with all else."""
        return self.covers_holds and self.purses.covers_holds(hold.purses)

    @property
    def covers_holds(self) -> bool:
        """Whether all that was held still fits: no prediction has cost more than it reserved."""
        return self._cap is None or self.committed + self.held <= self._cap

    @property
    def exceeded(self) -> bool:
        """Whether more is committed than the cap allows."""
        return self._cap is not None and self.committed > self._cap

    def refusal(self, price: Price, job: Job | None = None) -> BudgetReached:
        """Say why a job of this price is not submitted."""
        if job is not None and self._fit(price) is Fit.NOW:
            purse = self.purses.short(job, price)
            assert purse is not None, "without a purse that is short it fits"
            return self.purses.refusal(purse, price)
        assert self._cap is not None, "without a cap everything fits"
        margin = f" ({usd_text(price.margin)} of it against a low estimate)" if price.margin else ""
        return BudgetReached(
            f"the budget of {usd_text(self._cap)} USD is {self._word}: {usd_text(self.committed)} "
            f"are charged or reserved, and the next job needs {usd_text(price.to_reserve)}{margin}"
            ". What does not fit was not submitted, in job-file order per model; what came after "
            "it and cost less may have been. Raise --max-cost (max_cost in the job file), then run "
            "again"
        )

    def excess(self) -> BudgetReached:
        """Say why nothing more is submitted: what is committed exceeds the cap."""
        assert self._cap is not None, "without a cap nothing exceeds it"
        return BudgetReached(
            f"the budget of {usd_text(self._cap)} USD is exceeded: {usd_text(self.committed)} are "
            "charged or reserved, since the provider charged more than was reserved. Nothing more "
            "is submitted: correct the prices, or raise --max-cost (max_cost in the job file), "
            "then run again"
        )

    @property
    def _word(self) -> str:
        return "exceeded" if self.exceeded else "reached"
