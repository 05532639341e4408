"""What jobs will cost and how long they take: by the provider's quotes, or by tables alone."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import orjson

from asyncpipe._tasks import once_more
from asyncpipe._text import columns, printable, seconds
from asyncpipe.commands.jobs import Jobs, file_of, prices_at
from asyncpipe.commands.survey import Kind, Survey, told
from asyncpipe.engine import JobLike, learned_before
from asyncpipe.errors import CannotConnect, ProviderError
from asyncpipe.flow import Latency
from asyncpipe.jobfile import JobFile
from asyncpipe.jobs import Job, JobType
from asyncpipe.pricing import HasBalance, Price, PriceBook, Prices, Quotes, from_micro, usd
from asyncpipe.providers import Provider
from asyncpipe.report import money

logger = logging.getLogger("asyncpipe.commands")

Echo = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What jobs will cost, by model, and how long they take; amounts are Decimal USD.

    ``balance`` is what the account has, None: not asked or not told. ``asked`` counts quotes.
    ``remarks`` say what could not be found out. ``max_workers`` is how many predictions at once
    the duration is reckoned with.
    """

    costs: Costs
    remarks: list[str] = field(default_factory=list)
    asked: int = 0
    balance: Decimal | None = None
    max_workers: int = 64

    @property
    def jobs(self) -> int:
        """How many jobs they are."""
        return self.costs.jobs.total()

    @property
    def total(self) -> Decimal:
        """What all of them cost."""
        return from_micro(self.costs.total)

    @property
    def reserved(self) -> Decimal:
        """What is kept back for them at most; more than ``total`` where the provider estimates."""
        return from_micro(self.costs.reserved)

    @property
    def cost_by_model(self) -> dict[str, Decimal]:
        """What those of each model cost."""
        return {model: from_micro(cost) for model, cost in sorted(self.costs.costs.items())}

    @property
    def duration_s(self) -> tuple[float, float]:
        """The least and the most seconds that they may take."""
        return self.costs.duration_s(self.max_workers)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        document: dict[str, Any] = orjson.loads(orjson.dumps(self.document()))
        return document

    def document(self) -> dict[str, Any]:
        """The same for orjson, amounts to the last digit."""
        balance = self.balance
        return {
            **self.costs.document(self.max_workers),
            "quotes_asked": self.asked,
            "remarks": self.remarks,
            "balance": None if balance is None else orjson.Fragment(f"{balance:f}"),
        }


async def estimate(
    jobs: Jobs,
    provider: Provider | None = None,
    *,
    price_book: PriceBook | None = None,
    max_workers: int | None = None,
) -> Estimate:
    """Say what ``jobs`` (a job file, or jobs) will cost; buys nothing.

    A ``provider`` is asked for quotes, which are free, and for the balance; without one tables are
    read: those of the job file, ``price_book``, the default provider's own. Raises JobFileError,
    which names every model without a price, UsageError, and CannotConnect.
    """
    file = file_of(jobs)
    workers = max_workers or file.settings.max_workers
    prices = prices_at(file, price_book, provider)
    if provider is None:
        found = Estimate(costs=Costs(), max_workers=workers)
        found.costs.add_all(surveyed(file, prices).priced())
        return found
    async with provider:
        asked = await ask_all(file, prices, provider)
        return replace(await with_balance(asked, provider), max_workers=workers)


async def quote(
    job: JobLike, provider: Provider | None = None, *, price_book: PriceBook | None = None
) -> Price:
    """Say what one job costs, by the provider's quote where it gives one; buys nothing.

    Raises as ``estimate`` does.
    """
    file = file_of([job])
    found, prices = Survey(file, prices_at(file, price_book, provider)), None
    for row in file.rows:
        found.add(row)
    if provider is None:
        return found.priced()[0][1]
    async with provider:
        prices = Quotes(provider, tell=logger.warning)
        await found.ask(prices, found.kinds)
        return found.priced(prices)[0][1]


async def ask_all(
    file: JobFile, prices: Prices, provider: Provider, *, echo: Echo = logger.info
) -> Estimate:
    """Price every job, by quotes where the provider gives them; it must be open."""
    estimate = Estimate(costs=Costs(learned_before(provider)))
    quoting = Quotes(provider, tell=estimate.remarks.append)
    found = surveyed(file, prices, echo)
    await found.ask(quoting, found.kinds)
    estimate.costs.add_all(found.priced(quoting))
    return replace(estimate, asked=quoting.asked)


def surveyed(file: JobFile, prices: Prices, echo: Echo = logger.info) -> Survey:
    """What kinds of jobs are in a file; ``echo`` hears how far a long one is."""
    found = Survey(file, prices)
    for row in told(file.rows, "counted", echo):
        found.add(row)
    return found


async def with_balance(estimate: Estimate, provider: Provider) -> Estimate:
    """Add the balance, or why it is not known."""
    if not isinstance(provider, HasBalance):
        return replace(estimate, remarks=[*estimate.remarks, "the provider tells no balance"])
    try:
        return replace(estimate, balance=await once_more(provider.balance))
    except CannotConnect:
        raise
    except ProviderError as exc:
        return replace(estimate, remarks=[*estimate.remarks, str(exc)])


Measured = Callable[[str, Mapping[str, Any]], Latency | None]

MOST_ASSUMED = 10
"""Assumptions that are named; the others are counted."""


class Costs:
    """Add jobs up: per model, by source, with what was assumed; amounts are micro-dollars.

    ``measured`` says how long a job takes, as earlier runs learned it, or None.
    """

    def __init__(self, measured: Measured = lambda model, params: None) -> None:
        self._measured = measured
        self._timed = 0
        self.jobs: Counter[str] = Counter()
        self.costs: Counter[str] = Counter()
        self.sources: defaultdict[str, set[str]] = defaultdict(set)
        self.assumed: Counter[str] = Counter()
        self.reserved: int = 0
        self.estimated: int = 0
        self._least_s = self._most_s = self._longest_least_s = self._longest_s = 0.0

    @property
    def total(self) -> int:
        """What all of them cost."""
        return self.costs.total()

    def add(self, job: Job, price: Price, count: int = 1) -> None:
        """Count a job, and ``count`` - 1 others that cost the same."""
        self.jobs[job.model] += count
        self.costs[job.model] += price.micro * count
        self.sources[price.source].add(job.model)
        self.assumed.update(dict.fromkeys(price.assumed, count))
        self.reserved += price.to_reserve * count
        self.estimated += price.micro * count if price.estimated else 0
        least_s, most_s = self._takes_s(job, count)
        self._least_s += least_s * count
        self._most_s += most_s * count
        self._longest_least_s = max(self._longest_least_s, least_s)
        self._longest_s = max(self._longest_s, most_s)

    def add_all(self, kinds: Iterable[tuple[Kind, Price]]) -> None:
        """Count all jobs of each kind."""
        for kind, price in kinds:
            self.add(kind.row.job, price, kind.count)

    def _takes_s(self, job: Job, count: int) -> tuple[float, float]:
        found = self._measured(job.model, job.params)
        if found is None:
            return typical_s(job.model, job.kind)
        self._timed += count
        return found.median_s, found.p90_s

    @property
    def timed_by(self) -> str:
        """Where the times come from."""
        stated = "the times stated for such models"
        jobs = self.jobs.total()
        if not self._timed:
            return stated
        if self._timed == jobs:
            return "the times that earlier runs measured"
        return f"the times that earlier runs measured, for {jobs - self._timed} jobs by {stated}"

    def duration_s(self, workers: int) -> tuple[float, float]:
        """The least and the most seconds that ``workers`` predictions at once may take for all."""
        least_s = max(self._least_s / workers, self._longest_least_s)
        return least_s, max(self._most_s / workers, self._longest_s)

    def table(self) -> list[str]:
        """Jobs and cost of each model, and of all."""
        rows = [(model, self.jobs[model], self.costs[model]) for model in sorted(self.jobs)]
        rows.append(("total", self.jobs.total(), self.total))
        return columns([(name, f"{n:>6} jobs   {usd(cost):>12}") for name, n, cost in rows])

    def remarks(self, workers: int) -> Iterator[str]:
        """What is assumed, where the prices come from, what is not certain, how long it takes."""
        for what, n in self.assumed.most_common(MOST_ASSUMED):
            yield printable(f"assumed: {what}, for {n} jobs that do not say")
        if (left := len(self.assumed) - MOST_ASSUMED) > 0:
            yield f"assumed: {left} more things like these"
        for source, models in sorted(self.sources.items()):
            yield printable(f"prices of {len(models)} model(s) from: {source}")
        if self.estimated:
            more = self.reserved - self.total
            yield (
                f"{usd(self.estimated)} of it the provider only estimates: a run reserves "
                f"{usd(more)} more, and the bill may differ"
            )
        least_s, most_s = self.duration_s(workers)
        yield (
            f"roughly {seconds(least_s)} to {seconds(most_s)} with {workers} at once, if the API "
            f"takes so many, by {self.timed_by}"
        )

    def document(self, workers: int) -> dict[str, Any]:
        """The same as JSON values."""
        least_s, most_s = self.duration_s(workers)
        return {
            "jobs": self.jobs.total(),
            "total_cost": money(self.total),
            "currency": "USD",
            "cost_by_model": {model: money(self.costs[model]) for model in sorted(self.costs)},
            "jobs_by_model": dict(sorted(self.jobs.items())),
            "price_sources": {name: sorted(ids) for name, ids in sorted(self.sources.items())},
            "assumed": dict(self.assumed),
            "estimated_cost": money(self.estimated),
            "reserved": money(self.reserved),
            "duration_s": {
                "least": round(least_s, 1),
                "most": round(most_s, 1),
                "max_workers": workers,
                "by": self.timed_by.removeprefix("the "),
            },
        }


_SECONDS: tuple[tuple[str, float, float], ...] = (
    ("flux-2-pro", 5, 10),
    ("seedance", 30, 90),
    ("veo3", 60, 120),
    ("sora", 60, 180),
    ("hailuo", 130, 150),
)
"""Seconds from submit to end, by a word of the model's id, as its documents say."""

_BY_TYPE = {JobType.IMAGE: (10.0, 30.0), JobType.VIDEO: (60.0, 300.0), JobType.AUDIO: (10.0, 60.0)}


def typical_s(model: str, kind: JobType) -> tuple[float, float]:
    """The least and the most seconds that are stated for a model, or for its type."""
    for word, least, most in _SECONDS:
        if word in model.lower():
            return least, most
    return _BY_TYPE[kind]
