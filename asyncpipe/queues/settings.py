"""What a place's jobs are worked with: kept in the ledger, for workers that have no job file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Ambiguous, Deadlines, Limits, Polling
from asyncpipe.media import GIB
from asyncpipe.pricing import PriceBook, Rate, SpendingLimits
from asyncpipe.providers import DEFAULT_PROVIDER


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceSettings:
    """Everything but the jobs, the ledger and the key that a worker's pipeline is made from.

    Amounts are USD, times seconds; what the fields mean stands at ``Pipeline``. A key is never one
    of them: each worker has its own environment. ``folder`` is where files go, None: the place.
    """

    folder: str | None = None
    provider: str = DEFAULT_PROVIDER
    base_url: str | None = None
    max_workers: int = 64
    limits: Limits = field(default_factory=Limits)
    deadlines: Deadlines = field(default_factory=Deadlines)
    polling: Polling = field(default_factory=Polling)
    retries: int = 2
    patience_s: float | None = None
    min_free_bytes: int = GIB
    ambiguous: Ambiguous = "find"
    search_s: float = 120.0
    same_account: bool = False
    max_cost: Decimal | None = None
    budgets: Mapping[str, Decimal] = field(default_factory=dict)
    wait_for_day: bool = False
    min_balance: Decimal | None = None
    prices: Mapping[str, Rate] = field(default_factory=dict)
    price_book: PriceBook | None = None
    estimate_factor: Decimal = Decimal("1.25")
    public_url: str | None = None
    presign: str | None = None

    @property
    def spending(self) -> SpendingLimits:
        """What may be spent, and by which prices."""
        return SpendingLimits(
            max_cost=self.max_cost,
            budgets=self.budgets,
            wait_for_day=self.wait_for_day,
            min_balance=self.min_balance,
            prices=self.prices,
            price_book=self.price_book,
            estimate_factor=self.estimate_factor,
        )

    def document(self) -> dict[str, Any]:
        """The same as JSON values."""
        written: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return written

    @staticmethod
    def of(document: Mapping[str, Any]) -> PlaceSettings:
        """Read what ``document`` wrote; raises UsageError naming the field that makes no sense."""
        try:
            return _adapter().validate_python(dict(document))
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(
                f"the settings of this place make no sense: {where}: {first['msg']}: enqueue its "
                "jobs again, with the same asyncpipe as the workers'"
            ) from exc


@cache
def _adapter() -> TypeAdapter[PlaceSettings]:
    return TypeAdapter(PlaceSettings)
