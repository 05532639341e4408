"""What a job costs, by which price book; no network."""

from asyncpipe.pricing.book import PriceBook, Rate, built_in
from asyncpipe.pricing.price import Price, Unpriced, from_micro, price, to_micro

__all__ = [
    "Price",
    "PriceBook",
    "Rate",
    "Unpriced",
    "built_in",
    "from_micro",
    "price",
    "to_micro",
]
