"""What a pipeline is told about money, and the parts that follow: prices, quotes, balance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.jobs import Job
from asyncpipe.pricing.balance import Balance, checked_least
from asyncpipe.pricing.budget import Budget, Committed, Fit, InFlight
from asyncpipe.pricing.money import checked_cap
from asyncpipe.pricing.price import ESTIMATE_FACTOR, Price, Prices
from asyncpipe.pricing.quoting import Quotes, Tell, ask_unpriced
from asyncpipe.pricing.rates import PriceBook, Rate, books_of, price_book_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """What things cost and what there is, while a pipeline is open."""

    budget: Budget
    prices: Prices
    quotes: Quotes
    balance: Balance
    tell: Tell

    def price(self, job: Job) -> Price:
        """Price one job by what is known now; raises UsageError."""
        return self.prices.of(job)

    async def ask_unpriced(self, jobs: Iterable[Job]) -> None:
        """Ask for quotes of those jobs that no price book can price."""
        await ask_unpriced(self.quotes, self.prices, jobs)

    def fit(self, job: Job) -> tuple[Fit, Price | None]:
        """Whether a job may go now, and its price; later, while that is still to be asked."""
        if self.quotes.want(job):
            return Fit.LATER, None
        try:
            price = self.price(job)
        except UsageError:  # its only price was a quote that is not to be had any more
            return Fit.NEVER, None
        fit = self.budget.fit(price)
        return (self.balance.fit(price) if fit is Fit.NOW else fit), price

    @property
    def covers_holds(self) -> bool:
        """Whether all the money that was held may still be spent."""
        return self.budget.covers_holds and self.balance.covers_holds

    def why_unfit(self, job: Job) -> AsyncpipeError:
        """Say why a job is not submitted: its price, or that there is none."""
        try:
            price = self.price(job)
        except UsageError as exc:
            return exc
        if self.budget.fit(price) is Fit.NEVER:
            return self.budget.refusal(price)
        return self.balance.refusal(price)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpendingLimits:
    """What may be spent, and by which prices; amounts in USD as Decimal.

    ``max_cost`` caps what a folder's jobs, earlier runs included, are charged or may still be; what
    does not fit stays pending. Nothing is submitted that would leave less than ``min_balance`` in
    the account. None: no limit. A job's price is the provider's quote (free; ``quotes=False``
    asks for none), else that of ``prices`` (by model id), of ``price_book`` (see
    ``load_price_file``) or of the provider's own table; one that the provider calls an estimate is
    reserved times ``estimate_factor``. Raises UsageError naming the field that is wrong.
    """

    max_cost: Decimal | None = None
    min_balance: Decimal | None = None
    prices: Mapping[str, Rate] | None = None
    price_book: PriceBook | None = None
    quotes: bool | Quotes = True
    estimate_factor: Decimal = ESTIMATE_FACTOR

    def __post_init__(self) -> None:
        if self.max_cost is not None:
            checked_cap(self.max_cost)
        checked_least(self.min_balance)
        self._prices(None)

    def _prices(self, own: PriceBook | None) -> Prices:
        books = books_of(self.prices, self.price_book, own)
        return Prices(books=books, estimate_factor=self.estimate_factor)

    def open(
        self, provider: object, committed: Committed, in_flight: InFlight, *, tell: Tell
    ) -> Spending:
        """Make the parts; in the pipeline's own loop, whose clock they go by."""
        quotes = self.quotes
        if isinstance(quotes, bool):
            quotes = Quotes(provider if quotes else None, tell=tell)
        cap = None if self.max_cost is None else checked_cap(self.max_cost)
        budget = Budget(cap, committed, in_flight)
        return Spending(
            budget=budget,
            prices=replace(self._prices(price_book_of(provider)), quotes=quotes.quotes),
            quotes=quotes,
            balance=Balance(provider, budget, least=self.min_balance, tell=tell),
            tell=tell,
        )
