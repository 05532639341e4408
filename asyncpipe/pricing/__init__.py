"""What a job costs, by which price book; no network."""

from asyncpipe.pricing.book import PriceBook, Rate, books_of, built_in
from asyncpipe.pricing.budget import Budget, Fit
from asyncpipe.pricing.memo import Prices
from asyncpipe.pricing.price import Price, Unpriced, checked_cap, from_micro, price, to_micro

__all__ = [
    "Budget",
    "Fit",
    "Price",
    "PriceBook",
    "Prices",
    "Rate",
    "Unpriced",
    "books_of",
    "built_in",
    "checked_cap",
    "from_micro",
    "price",
    "to_micro",
]
