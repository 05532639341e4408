"""What a pipeline is told about money, and the parts that follow: prices, quotes, balance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from asyncpipe.errors import AsyncpipeError, TooExpensive, UsageError
from asyncpipe.jobs import Job
from asyncpipe.pricing.balance import Balance, checked_least
from asyncpipe.pricing.budget import Budget, Committed, Fit, Hold, InFlight
from asyncpipe.pricing.money import checked_cap, usd_text
from asyncpipe.pricing.price import ESTIMATE_FACTOR, Price, Prices
from asyncpipe.pricing.purses import InMemory, Purse, Purses, purses_of
from asyncpipe.pricing.quoting import Quotes, Tell, ask_unpriced
from asyncpipe.pricing.rates import PriceBook, Rate, books_of, of_others, price_book_of

NOBODY: Mapping[str, object] = {}


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

    def fit(self, job: Job, *, kept: bool = False) -> tuple[Fit, Price | None]:
        """Whether a job may go now, and its price; later, while that is still to be asked.

        One that is ``kept`` until it is done waits for the day that has money for it.
        """
        if self.quotes.want(job):
            return Fit.LATER, None
        try:
            price = self.price(job)
        except UsageError:  # its only price was a quote that is not to be had any more
            return Fit.NEVER, None
        if self.too_expensive(job, price) is not None:
            return Fit.NEVER, price
        fit = self.budget.fit(price, job, kept=kept)
        return (self.balance.fit(price) if fit is Fit.NOW else fit), price

    def too_expensive(self, job: Job, price: Price) -> TooExpensive | None:
        """Why a job of that price goes beyond its own ``max_cost``, or None."""
        if job.max_cost is None or price.to_reserve <= checked_cap(job.max_cost):
            return None
        margin = f" ({usd_text(price.margin)} of it against a low estimate)" if price.margin else ""
        return TooExpensive(
            f"the job may cost {usd_text(job.max_cost)} USD at most, and {job.model} takes "
            f"{usd_text(price.to_reserve)}{margin} for it (by {price.source}). Nothing was "
            "reserved: raise the job's max_cost, or ask for less"
        )

    def covers(self, hold: Hold) -> bool:
        """Whether the money that was held for a job may still be spent."""
        return self.budget.covers(hold) and self.balance.covers_holds

    def why_unfit(self, job: Job) -> AsyncpipeError:
        """Say why a job is not submitted: its price, or that there is none."""
        try:
            price = self.price(job)
        except UsageError as exc:
            return exc
        if (dear := self.too_expensive(job, price)) is not None:
            return TooExpensive(f"{job.name or job.model}: {dear}")
        if self.budget.fit(price, job) is not Fit.NOW:
            return self.budget.refusal(price, job)
        return self.balance.refusal(price)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpendingLimits:
    """What may be spent, and by which prices; amounts in USD as Decimal.

    ``max_cost`` caps what a folder's jobs, earlier runs included, are charged or may still be; what
    does not fit stays pending. ``budgets`` cap what jobs with a label (``label:NAME=VALUE``) cost,
    and what one ``day`` submits, in UTC; with ``wait_for_day`` what does not fit the day waits for
    the next one. Nothing is submitted that would leave less than ``min_balance`` in
    the account. None: no limit. A job's price is the provider's quote (free; ``quotes=False``
    asks for none), else that of ``prices`` (by model id), of ``price_book`` (see
    ``load_price_file``) or of the provider's own table; one that the provider calls an estimate is
    reserved times ``estimate_factor``. Raises UsageError naming the field that is wrong.
    """

    max_cost: Decimal | None = None
    budgets: Mapping[str, Decimal] | None = None
    wait_for_day: bool = False
    min_balance: Decimal | None = None
    prices: Mapping[str, Rate] | None = None
    price_book: PriceBook | None = None
    quotes: bool | Quotes = True
    estimate_factor: Decimal = ESTIMATE_FACTOR

    def __post_init__(self) -> None:
        if self.max_cost is not None:
            checked_cap(self.max_cost)
        purses_of(self.budgets)
        checked_least(self.min_balance)
        self._prices(None)

    @property
    def purses(self) -> tuple[Purse, ...]:
        """The budgets of labels and of days."""
        return purses_of(self.budgets)

    def _prices(self, own: PriceBook | None) -> Prices:
        books = books_of(self.prices, self.price_book, own)
        return Prices(books=books, estimate_factor=self.estimate_factor)

    def open(
        self,
        provider: object,
        committed: Committed,
        in_flight: InFlight,
        *,
        tell: Tell,
        in_memory: InMemory | None = None,
        quoter: object = None,
        others: Mapping[str, object] = NOBODY,
    ) -> Spending:
        """Make the parts; in the pipeline's own loop, whose clock they go by.

        Where others spend as well nobody knows all that is ``in_memory``: the ledger says it.
        ``others`` are providers besides, by name, whose models are priced as ``name:model``;
        ``quoter`` is what is asked for quotes instead of the ``provider``.
        """
        quotes = self.quotes
        if isinstance(quotes, bool):
            quotes = Quotes((quoter or provider) if quotes else None, tell=tell)
        elif quoter is not None:
            quotes.ask_of(quoter)
        users = books_of(self.prices, self.price_book)
        more = [
            book
            for name, each in others.items()
            for book in of_others(users, price_book_of(each), name)
        ]
        prices = self._prices(price_book_of(provider))
        cap = None if self.max_cost is None else checked_cap(self.max_cost)
        purses = Purses(self.purses, in_memory, self.wait_for_day)
        budget = Budget(cap, committed, in_flight, purses)
        return Spending(
            budget=budget,
            prices=replace(prices, books=(*more, *prices.books), quotes=quotes.quotes),
            quotes=quotes,
            balance=Balance(provider, budget, least=self.min_balance, tell=tell),
            tell=tell,
        )
