"""What a job costs, and what may be spent.

Prices come from the provider's quotes or from price books; ``Budget`` holds the cap. Whoever can
tell a quote, a balance or a bill is asked through small protocols of this room's own.
"""

from asyncpipe.pricing.balance import HasBalance
from asyncpipe.pricing.bill import Bill, BilledDay, HasBill
from asyncpipe.pricing.budget import Budget, Fit, Hold, SharedMoney
from asyncpipe.pricing.money import (
    MOST_USD,
    checked_cap,
    from_micro,
    to_micro,
    told_micro,
    usd,
    usd_text,
)
from asyncpipe.pricing.price import MOST_FACTOR, Price, Prices, Unpriced, outputs_asked
from asyncpipe.pricing.purses import Purse, PurseState
from asyncpipe.pricing.quotes import Quote, price_key
from asyncpipe.pricing.quoting import HasQuotes, Quotes, Tell
from asyncpipe.pricing.rates import (
    CONDITIONS,
    UNITS,
    PriceBook,
    Rate,
    Tier,
    books_of,
    plain_size,
    price_book_of,
)
from asyncpipe.pricing.spending import Spending, SpendingLimits

__all__ = [
    "CONDITIONS",
    "MOST_FACTOR",
    "MOST_USD",
    "UNITS",
    "Bill",
    "BilledDay",
    "Budget",
    "Fit",
    "HasBalance",
    "HasBill",
    "HasQuotes",
    "Hold",
    "Price",
    "PriceBook",
    "Prices",
    "Purse",
    "PurseState",
    "Quote",
    "Quotes",
    "Rate",
    "SharedMoney",
    "Spending",
    "SpendingLimits",
    "Tell",
    "Tier",
    "Unpriced",
    "books_of",
    "checked_cap",
    "from_micro",
    "outputs_asked",
    "plain_size",
    "price_book_of",
    "price_key",
    "to_micro",
    "told_micro",
    "usd",
    "usd_text",
]
