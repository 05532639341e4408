"""Amounts: Decimal USD outside, whole micro-dollars inside, and how both are written."""

from __future__ import annotations

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

from asyncpipe.errors import UsageError

MOST_USD = 10**9
"""A price beyond this is a slip of the keyboard, and would not fit the ledger's integers."""


def to_micro(amount: Decimal) -> int:
    """Convert USD to whole micro-dollars, halves rounded up."""
    return int((amount * 1_000_000).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def told_micro(amount: Decimal | None) -> int | None:
    """Convert what a provider says a prediction cost; None for nothing said, and for nonsense."""
    exact: object = amount
    if not isinstance(exact, Decimal) or not exact.is_finite() or not 0 <= exact <= MOST_USD:
        return None
    return to_micro(exact)


def from_micro(micro: int) -> Decimal:
    """Convert micro-dollars to USD, exactly."""
    return Decimal(micro).scaleb(-6)


def usd_text(amount: int | Decimal) -> str:
    """Write an amount (micro-dollars, or Decimal USD): at least two decimals, at most six."""
    value = from_micro(amount) if isinstance(amount, int) else amount
    whole, _, cents = f"{value:.6f}".partition(".")
    return f"{whole}.{cents.rstrip('0').ljust(2, '0')}"


def checked_cap(amount: Decimal, name: str = "max_cost") -> int:
    """Turn a budget in USD into micro-dollars, never rounding it up; raises UsageError."""
    exact: object = amount
    if not isinstance(exact, Decimal) or not exact.is_finite() or not 0 <= exact <= MOST_USD:
        raise UsageError(
            f"{name}: {amount!r} must be an amount of USD as Decimal, from 0 to {MOST_USD}"
        )
    return int((amount * 1_000_000).to_integral_value(rounding=ROUND_FLOOR))


def usd(amount: int | Decimal) -> str:
    """Write an amount (micro-dollars, or Decimal USD): at least two decimals, at most six."""
    return f"{usd_text(amount)} USD"
