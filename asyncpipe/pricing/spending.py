"""What a pipeline is told about money, and the parts that follow: prices, quotes, funds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.jobs import Job
from asyncpipe.pricing.balance import Funds, checked_least
from asyncpipe.pricing.budget import Budget, Committed, Fit, InFlight
from asyncpipe.pricing.money import checked_cap
from asyncpipe.pricing.price import Price, Prices
from asyncpipe.pricing.quoting import Quoting, Tell, ask_unpriced
from asyncpipe.pricing.rates import PriceBook, Rate, books_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Purse:
    """What things cost and what there is, while a pipeline is open."""

    budget: Budget
    prices: Prices
    quoting: Quoting
    funds: Funds
    tell: Tell

    def price(self, job: Job) -> Price:
        """Price one job by what is known now; raises UsageError."""
        return self.prices.of(job)

    async def ask_unpriced(self, jobs: Iterable[Job]) -> None:
        """Ask for quotes of those jobs that no price book can price."""
        await ask_unpriced(self.quoting, self.prices, jobs)

    def fit(self, job: Job) -> tuple[Fit, Price | None]:
        """Whether a job may go now, and its price; later, while that is still to be asked."""
        if self.quoting.want(job):
            return Fit.LATER, None
        try:
            price = self.price(job)
        except UsageError:  # its only price was a quote that is not to be had any more
            return Fit.NEVER, None
        return self.budget.fit(price), price

    def why_unfit(self, job: Job) -> AsyncpipeError:
        """Say why a job is not submitted: its price, or that there is none."""
        try:
            return self.budget.refusal(self.price(job))
        except UsageError as exc:
            return exc


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """What a pipeline's constructor was told about money, checked; ``cap`` in micro-dollars."""

    cap: int | None
    least: Decimal | None
    prices: Prices
    quotes: bool | Quoting
    tell: Tell

    @classmethod
    def checked(
        cls,
        *,
        max_cost: Decimal | None,
        min_balance: Decimal | None,
        prices: Mapping[str, Rate] | None,
        book: PriceBook | None,
        quotes: bool | Quoting,
        estimate_factor: Decimal,
        tell: Tell,
    ) -> Spending:
        """Check what was told; raises UsageError. ``book`` is that of the user's price file."""
        return cls(
            cap=None if max_cost is None else checked_cap(max_cost),
            least=checked_least(min_balance),
            prices=Prices(books=books_of(prices, book), estimate_factor=estimate_factor),
            quotes=quotes,
            tell=tell,
        )

    def open(self, provider: object, committed: Committed, in_flight: InFlight) -> Purse:
        """Make the parts; in the pipeline's own loop, whose clock they go by."""
        quoting = self.quotes
        if isinstance(quoting, bool):
            quoting = Quoting(provider if quoting else None, tell=self.tell)
        return Purse(
            budget=Budget(self.cap, committed, in_flight),
            prices=replace(self.prices, quotes=quoting.quotes),
            quoting=quoting,
            funds=Funds(provider, least=self.least, tell=self.tell),
            tell=self.tell,
        )
