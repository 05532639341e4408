"""A provider's bill: what it says each model cost on each day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True, slots=True)
class BilledDay:
    """One day of the bill, in UTC: USD by model, and how far the bill knows the day.

    ``partial``: more may come. ``covered_until`` is where the API says its knowledge ends.
    """

    day: date
    amounts: Mapping[str, Decimal]
    covered_until: datetime | None = None
    partial: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """What the provider says it charged, by day; days it said nothing of are not in it.

    ``requests`` are how many of each model it counts on those days; None: not told.
    """

    days: Mapping[date, BilledDay] = field(default_factory=dict)
    requests: Mapping[str, int] | None = None


@runtime_checkable
class HasBill(Protocol):
    """What a provider may have besides: it says what it charged, day by day."""

    async def bill(self, days: Iterable[date]) -> Bill:
        """Ask for the bill of ``days`` (UTC); costs nothing. Raises ProviderError."""
