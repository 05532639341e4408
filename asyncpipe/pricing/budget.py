"""A cap on what a folder's jobs may cost: pure."""

from __future__ import annotations

from enum import Enum, auto

from asyncpipe.errors import BudgetReached
from asyncpipe.pricing.money import usd_text
from asyncpipe.pricing.price import Price


class Fit(Enum):
    """Whether a job may be submitted as far as its price goes."""

    NOW = auto()
    LATER = auto()  # if what is in flight gives money back
    NEVER = auto()  # whatever becomes of what is in flight


class Budget:
    """Committed money never exceeds ``cap`` micro-dollars by what we submit; None: no cap.

    ``committed`` is what is charged or reserved, ``releasable`` the part of it that predictions in
    flight may still give back. What a job reserves, its price and margin, is held from its
    admission until its intent, so that no two jobs are promised the same money. Only a provider
    that charges more than was reserved, or a cap lowered later, brings it above the cap: then
    nothing fits.
    """

    def __init__(self, cap: int | None, *, committed: int = 0, releasable: int = 0) -> None:
        self._cap = cap
        self.committed = committed
        self.releasable = releasable
        self._holds: dict[int, Price] = {}
        self._held = 0

    def fit(self, price: Price) -> Fit:
        """Whether a job of this price may go now, later or never."""
        if self._cap is None:
            return Fit.NOW
        left = self._cap - self.committed - self._held - price.to_reserve
        if left >= 0:
            return Fit.NOW
        return Fit.LATER if left + self.releasable + self._held >= 0 else Fit.NEVER

    def hold(self, job_id: int, price: Price) -> None:
        """Keep back what a job reserves; it must fit now."""
        self._holds[job_id] = price
        self._held += price.to_reserve

    def take(self, job_id: int) -> Price:
        """End a hold: its intent reserves the money now, or nothing comes of it."""
        price = self._holds.pop(job_id)
        self._held -= price.to_reserve
        return price

    @property
    def covers_holds(self) -> bool:
        """Whether all that was held still fits: no prediction has cost more than it reserved."""
        return self._cap is None or self.committed + self._held <= self._cap

    @property
    def exceeded(self) -> bool:
        """Whether more is committed than the cap allows."""
        return self._cap is not None and self.committed > self._cap

    def move(self, *, committed: int, releasable: int) -> None:
        """Note by how much an event changed what is committed, and what may come back."""
        self.committed += committed
        self.releasable += releasable

    def refusal(self, price: Price) -> BudgetReached:
        """Say why a job of this price is not submitted."""
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
