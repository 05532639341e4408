"""``asyncpipe estimate``: what a job file will cost, by the provider's own quotes where it can."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import click
import orjson

from asyncpipe._text import json_text, printable
from asyncpipe.cli.connect import Simulated, connect, loop_factory
from asyncpipe.cli.costs import Costs
from asyncpipe.cli.look import Kinds, prices_of
from asyncpipe.cli.session import echo
from asyncpipe.engine.engine import learned_before
from asyncpipe.errors import ProviderError
from asyncpipe.jobfile.load import JobFile, open_jobs
from asyncpipe.pricing.money import to_micro, usd
from asyncpipe.pricing.price import Prices
from asyncpipe.pricing.quotes import Quoting
from asyncpipe.providers.atlas.client import AtlasCloud, has_key

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
    prices = prices_of(file, options.price_file)
    workers = options.max_workers or file.settings.max_workers
    if options.offline or not (options.simulate or options.base_url or has_key()):
        remark = "as --offline asks" if options.offline else "there is no key"
        estimate = Estimate(costs=Costs(), remarks=[OFFLINE + remark])
        Kinds(file, echo=echo).price(prices, estimate.costs.add)
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
            provider = AtlasCloud(base_url=options.base_url, keyless=True)
        else:
            provider = await connect(stack, None, base_url=options.base_url, simulated=simulated)
        await stack.enter_async_context(provider)
        estimate = await ask_all(file, prices, provider)
        if simulated or has_key():
            return await with_balance(estimate, provider)
        return estimate


async def ask_all(file: JobFile, prices: Prices, provider: AtlasCloud) -> Estimate:
    """Price every job, by quotes where the provider gives them; it must be open."""
    estimate = Estimate(costs=Costs(learned_before(provider)), remarks=[])
    quoting = Quoting(provider, tell=estimate.remarks.append)
    kinds = Kinds(file, echo=echo)
    await kinds.ask(quoting)
    kinds.price(replace(prices, quotes=quoting.quotes), estimate.costs.add)
    return replace(estimate, asked=quoting.asked)


async def with_balance(estimate: Estimate, provider: AtlasCloud) -> Estimate:
    """Add the balance, or why it is not known."""
    try:
        return replace(estimate, balance=await provider.balance())
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
