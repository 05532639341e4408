"""What a job costs, by which price book; no network."""

from asyncpipe.pricing.budget import Budget, Fit
from asyncpipe.pricing.money import checked_cap, from_micro, to_micro
from asyncpipe.pricing.price import ESTIMATE_FACTOR, Price, Prices, Unpriced, price
from asyncpipe.pricing.quotes import Quote, Quotes, price_key
from asyncpipe.pricing.rates import PriceBook, Rate, Tier, books_of, built_in

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
