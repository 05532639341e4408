"""Rates per model, and the tables they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from asyncpipe.errors import UsageError

UNITS = ("per_image", "per_second", "per_job")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one model costs, in USD: per image, per second of video or audio, or per job.

    Exactly one is set, as Decimal and not negative; raises UsageError otherwise.
    """

    per_image: Decimal | None = None
    per_second: Decimal | None = None
    per_job: Decimal | None = None

    def __post_init__(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(given) != 1:
            raise UsageError(
                f"a rate is exactly one of {', '.join(UNITS)}; this one has {given or 'none'}"
            )
        amount = getattr(self, given[0])
        if not isinstance(amount, Decimal):
            # A float is refused, not converted: 0.1 + 0.2 is how a budget leaks.
            raise UsageError(f'{given[0]}: {amount!r} must be a Decimal, e.g. Decimal("0.04")')
        if not amount.is_finite() or amount < 0:
            raise UsageError(f"{given[0]}: {amount} must be a finite amount of USD, not negative")

    @property
    def unit(self) -> str:
        """Which of the three is set."""
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def amount(self) -> Decimal:
        """The USD for one unit."""
        amount: Decimal = getattr(self, self.unit)
        return amount


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceBook:
    """Rates by model id, in USD; ``source`` says where they come from, ``as_of`` when."""

    rates: Mapping[str, Rate]
    source: str
    as_of: date | None = None

    @property
    def title(self) -> str:
        """The source, with its date where it has one."""
        return f"{self.source} of {self.as_of}" if self.as_of else self.source


def books_of(prices: Mapping[str, Rate] | None) -> tuple[PriceBook, ...]:
    """The price books of a run: the job file's rates, if there are any, then the built-in ones."""
    own = [PriceBook(rates=dict(prices), source="job file")] if prices else []
    return (*own, built_in())


def built_in() -> PriceBook:
    """Return the built-in price book: the article's five models at the article's prices.

    They are the article's figures of 2026-02-28 and go stale: real prices have been seen ten times
    as high (atlas-api §10), and two of the ids are the article's only. A job file's ``prices`` go
    before them.
    """
    return PriceBook(
        rates={
            "black-forest-labs/flux-2-pro/text-to-image": Rate(per_image=Decimal("0.04")),
            "google/imagen4-ultra/text-to-image": Rate(per_image=Decimal("0.06")),
            "bytedance/seedance-v1.5-pro/text-to-video": Rate(per_second=Decimal("0.022")),
            "google/veo3.1/text-to-video": Rate(per_second=Decimal("0.03")),
            "openai/sora-v2/text-to-video": Rate(per_second=Decimal("0.15")),
        },
        source="built-in table",
        as_of=date(2026, 2, 28),
    )
