"""Prices that are known without asking: the article's five models at the article's prices."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from asyncpipe.pricing import PriceBook, Rate


def built_in() -> PriceBook:
    """Return the built-in price book.

    They are the article's figures of 2026-02-28 and go stale: real prices have been seen ten times
    as high, and two of the ids are the article's only. A job file's ``prices`` go
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
