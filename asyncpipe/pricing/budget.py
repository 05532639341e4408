"""A cap on what a folder's jobs may cost: pure."""

from __future__ import annotations

from enum import Enum, auto

from asyncpipe.errors import BudgetReached
from asyncpipe.pricing.price import Price, from_micro


class Fit(Enum):
    """Whether a job may be submitted as far as its price goes."""

    NOW = auto()
    LATER = auto()  # if what is in flight gives money back
    NEVER = auto()  # whatever becomes of what is in flight


class Budget:
    """Committed money never exceeds ``cap`` micro-dollars; None: no cap.

    ``committed`` is what is charged or reserved, ``releasable`` the part of it that predictions in
    flight may still give back. A job's price is held from its admission until its intent reserves
    it, so that no two jobs are promised the same money.
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
        left = self._cap - self.committed - self._held - price.micro
        if left >= 0:
            return Fit.NOW
        return Fit.LATER if left + self.releasable + self._held >= 0 else Fit.NEVER

    def hold(self, job_id: int, price: Price) -> None:
        """Keep a job's price back; it must fit now."""
        self._holds[job_id] = price
        self._held += price.micro

    def take(self, job_id: int) -> Price:
        """End a hold: its intent reserves the price now, or nothing comes of it."""
        price = self._holds.pop(job_id)
        self._held -= price.micro
        return price

    def move(self, *, committed: int, releasable: int) -> None:
        """Note by how much an event changed what is committed, and what may come back."""
        self.committed += committed
        self.releasable += releasable

    def refusal(self, price: Price) -> BudgetReached:
        """Say why a job of this price is not submitted."""
        assert self._cap is not None, "without a cap everything fits"
        return BudgetReached(
            f"the budget of {_usd(self._cap)} USD is reached: {_usd(self.committed)} are charged "
            f"or reserved, and the next job costs {_usd(price.micro)}. What does not fit "
            "was not submitted: raise --max-cost (max_cost in the job file), then run again"
        )


def _usd(micro: int) -> str:
    text = f"{from_micro(micro):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
