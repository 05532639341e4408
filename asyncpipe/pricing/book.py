"""Rates per model, and the tables they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from asyncpipe.pricing.rate import Rate


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


def books_of(
    prices: Mapping[str, Rate] | None, price_file: PriceBook | None = None
) -> tuple[PriceBook, ...]:
    """The price books of a run, in order: the job file's rates, the user's file, the built-in."""
    own = [PriceBook(rates=dict(prices), source="job file")] if prices else []
    return (*own, *([price_file] if price_file else []), built_in())


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
