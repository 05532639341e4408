"""Every source of prices of a run, in their order: quotes first, then the price books."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from asyncpipe.errors import UsageError
from asyncpipe.jobs.job import Job
from asyncpipe.pricing.book import PriceBook
from asyncpipe.pricing.price import Price, Unpriced, from_micro, price, to_micro
from asyncpipe.pricing.quotes import Quote, Quotes, price_key

ESTIMATE_FACTOR = Decimal("1.25")
"""How many times an estimated quote is reserved unless the user says otherwise."""

MOST_FACTOR = 100

_MOST_KEPT = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Price jobs by the provider's quote where there is one, else by the first book that can.

    Of a quote that the provider itself calls an estimate, ``estimate_factor`` times as much is
    reserved. Raises UsageError for a factor that is no Decimal of 1 or more.
    """

    books: tuple[PriceBook, ...]
    quotes: Quotes = field(default_factory=Quotes)
    estimate_factor: Decimal = ESTIMATE_FACTOR
    _known: dict[bytes, Price] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        factor: object = self.estimate_factor
        if not isinstance(factor, Decimal) or not (
            factor.is_finite() and 1 <= factor <= MOST_FACTOR
        ):
            raise UsageError(
                f"estimate_factor: {factor!r} must be a Decimal from 1 to {MOST_FACTOR}, "
                'e.g. Decimal("1.25")'
            )

    def of(self, job: Job) -> Price:
        """Price one job; raises Unpriced and UsageError as ``price`` does.

        Jobs of one price key cost the same by tables, too: a million rows are priced a few times.
        """
        key = price_key(job)
        quote = self.quotes.by_key(key)
        if quote is not None:
            return self._quoted(quote)
        return self._by_table(key, job)

    def _by_table(self, key: bytes, job: Job) -> Price:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            known = self._known[key] = price(job, self.books)
        return known

    def lacks(self, job: Job) -> bool:
        """Whether only a quote could price a job; may raise UsageError for a rate that cannot."""
        rates = [book.rates[job.model] for book in self.books if job.model in book.rates]
        if rates and rates[0].unit is not None:
            return False  # at once, for a million rows: it holds where no tier does
        try:
            self._by_table(price_key(job), job)
        except Unpriced:
            return True
        return False

    def _quoted(self, quote: Quote) -> Price:
        micro = to_micro(quote.amount)
        margin = Decimal(0)
        if quote.estimated:
            margin = (micro * (self.estimate_factor - 1)).to_integral_value(rounding=ROUND_CEILING)
        return Price(
            amount=from_micro(micro),
            micro=micro,
            source=f"provider quote of {quote.asked_at.date()}",
            estimated=quote.estimated,
            margin=int(margin),
        )
