"""``asyncpipe estimate``: what a job file will cost, by the provider's own quotes where it can."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import orjson

from asyncpipe._tasks import loop_factory, once_more
from asyncpipe._text import columns, json_text, printable, seconds
from asyncpipe.cli.session import Simulated, connect, echo
from asyncpipe.cli.survey import Kind, Survey, prices_of, told
from asyncpipe.engine import learned_before
from asyncpipe.errors import CannotConnect, ProviderError
from asyncpipe.flow import Latency
from asyncpipe.jobfile import JobFile, load_price_file, open_jobs
from asyncpipe.jobs import Job, JobType
from asyncpipe.pricing import HasBalance, Price, Prices, Quotes, to_micro, usd
from asyncpipe.providers import Provider, has_key
from asyncpipe.providers import connect as connect_provider
from asyncpipe.report import money

OFFLINE = "by tables only, nothing was asked: "


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateOptions:
    """The options of ``asyncpipe estimate``; None means not given."""

    jobfile: Path
    offline: bool
    base_url: str | None
    simulate: bool
    simulate_catalog: str
    price_file: Path | None
    max_workers: int | None
    as_json: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What was found out; ``balance`` in USD, None: not asked or not told."""

    costs: Costs
    remarks: list[str]
    asked: int = 0
    balance: Decimal | None = None


def estimate_jobs(options: EstimateOptions) -> None:
    """Print what a job file will cost; raises JobFileError or UsageError."""
    if options.simulate + bool(options.base_url) + options.offline > 1:
        raise click.UsageError("--offline, --simulate and --base-url exclude each other")
    file = open_jobs(options.jobfile)
    book = load_price_file(options.price_file) if options.price_file else None
    prices = prices_of(file, book, base_url=options.base_url, simulated=options.simulate)
    workers = options.max_workers or file.settings.max_workers
    if options.offline or not (options.simulate or options.base_url or has_key()):
        remark = "as --offline asks" if options.offline else "there is no key"
        estimate = Estimate(costs=Costs(), remarks=[OFFLINE + remark])
        estimate.costs.add_all(_survey(file, prices).priced())
    else:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            estimate = runner.run(_ask(options, file, prices))
    if options.as_json:
        click.echo(_document(estimate, workers, simulated=options.simulate))
        return
    click.echo(f"{printable(str(options.jobfile))}: {estimate.costs.jobs.total()} jobs")
    for line in estimate_lines(estimate, workers, simulated=options.simulate):
        click.echo(line)


def estimate_lines(estimate: Estimate, workers: int, *, simulated: bool = False) -> list[str]:
    """What people read of an estimate."""
    costs, balance = estimate.costs, estimate.balance
    lines = [*costs.table(), *costs.remarks(workers)]
    if estimate.asked:
        lines.append(f"quotes asked for: {estimate.asked}, for {costs.jobs.total()} jobs")
    lines += map(printable, estimate.remarks)
    if balance is not None:
        short = costs.reserved - to_micro(balance)
        lacks = f", {usd(short)} less than may be needed" if short > 0 else ""
        lines.append(f"balance: {usd(balance)}{' (simulated)' if simulated else ''}{lacks}")
    if any(not source.startswith("provider quote") for source in costs.sources):
        lines.append(
            "An estimate: prices change, check them with your provider before a large run."
        )
    return lines


async def _ask(options: EstimateOptions, file: JobFile, prices: Prices) -> Estimate:
    async with AsyncExitStack() as stack:
        simulated = Simulated(catalog=options.simulate_catalog) if options.simulate else None
        if simulated is None and not has_key():
            provider = connect_provider(base_url=options.base_url, keyless=True)
        else:
            provider = await connect(stack, None, base_url=options.base_url, simulated=simulated)
        await stack.enter_async_context(provider)
        estimate = await ask_all(file, prices, provider)
        if simulated or has_key():
            return await with_balance(estimate, provider)
        return estimate


async def ask_all(file: JobFile, prices: Prices, provider: Provider) -> Estimate:
    """Price every job, by quotes where the provider gives them; it must be open."""
    estimate = Estimate(costs=Costs(learned_before(provider)), remarks=[])
    quoting = Quotes(provider, tell=estimate.remarks.append)
    found = _survey(file, prices)
    await found.ask(quoting, found.kinds)
    estimate.costs.add_all(found.priced(quoting))
    return replace(estimate, asked=quoting.asked)


def _survey(file: JobFile, prices: Prices) -> Survey:
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


def _document(estimate: Estimate, workers: int, *, simulated: bool) -> str:
    balance = estimate.balance
    document = {
        **estimate.costs.document(workers),
        "quotes_asked": estimate.asked,
        "remarks": estimate.remarks,
        "balance": None if balance is None else orjson.Fragment(f"{balance:f}"),
        "simulated": simulated,
    }
    return json_text(orjson.dumps(document, option=orjson.OPT_INDENT_2))


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
        self.reserved = 0
        self.estimated = 0
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
