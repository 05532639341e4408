"""What a job costs, by which price book; no network."""

from asyncpipe.pricing.book import PriceBook, books_of, built_in
from asyncpipe.pricing.budget import Budget, Fit
from asyncpipe.pricing.price import Price, Unpriced, checked_cap, from_micro, price, to_micro
from asyncpipe.pricing.prices import ESTIMATE_FACTOR, Prices
from asyncpipe.pricing.quotes import Quote, Quotes, price_key
from asyncpipe.pricing.rate import Rate, Tier

__all__ = [
    "ESTIMATE_FACTOR",
    "Budget",
    "Fit",
    "Price",
    "PriceBook",
    "Prices",
    "Quote",
    "Quotes",
    "Rate",
    "Tier",
    "Unpriced",
    "books_of",
    "built_in",
    "checked_cap",
    "from_micro",
    "price",
    "price_key",
    "to_micro",
]
