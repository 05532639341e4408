"""``asyncpipe estimate``: what a job file will cost, by the provider's own quotes where it can."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click
import orjson

from asyncpipe._tasks import loop_factory
from asyncpipe._text import json_text, printable
from asyncpipe.cli.session import Simulated, connect, echo
from asyncpipe.commands import Costs, Estimate, ask_all, prices_of, surveyed, with_balance
from asyncpipe.jobfile import JobFile, load_price_file, open_jobs
from asyncpipe.pricing import Prices, to_micro, usd
from asyncpipe.providers import connect as connect_provider
from asyncpipe.providers import has_key, provider_named

OFFLINE = "by tables only, nothing was asked: "


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateOptions:
    """The options of ``asyncpipe estimate``; None means not given."""

    jobfile: Path
    offline: bool
    provider: str | None
    base_url: str | None
    simulate: bool
    simulate_catalog: str
    price_file: Path | None
    max_workers: int | None
    as_json: bool


def estimate_jobs(options: EstimateOptions) -> None:
    """Print what a job file will cost; raises JobFileError or UsageError."""
    if options.simulate + bool(options.base_url) + options.offline > 1:
        raise click.UsageError("--offline, --simulate and --base-url exclude each other")
    file = open_jobs(options.jobfile)
    book = load_price_file(options.price_file) if options.price_file else None
    name = provider_named(options.provider, file.settings.provider)
    prices = prices_of(
        file, book, provider=name, base_url=options.base_url, simulated=options.simulate
    )
    workers = options.max_workers or file.settings.max_workers
    if options.offline or not (options.simulate or options.base_url or has_key(name)):
        remark = "as --offline asks" if options.offline else "there is no key"
        estimate = Estimate(costs=Costs(), remarks=[OFFLINE + remark])
        estimate.costs.add_all(surveyed(file, prices, echo).priced())
    else:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            estimate = runner.run(_ask(options, name, file, prices))
    estimate = replace(estimate, max_workers=workers)
    if options.as_json:
        click.echo(_document(estimate, simulated=options.simulate))
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


async def _ask(options: EstimateOptions, name: str, file: JobFile, prices: Prices) -> Estimate:
    async with AsyncExitStack() as stack:
        simulated = Simulated(catalog=options.simulate_catalog) if options.simulate else None
        if simulated is None and not has_key(name):
            provider = connect_provider(name, base_url=options.base_url, keyless=True)
        else:
            provider = await connect(
                stack, None, provider=name, base_url=options.base_url, simulated=simulated
            )
        await stack.enter_async_context(provider)
        estimate = await ask_all(file, prices, provider, echo=echo)
        if simulated or has_key(name):
            return await with_balance(estimate, provider)
        return estimate


def _document(estimate: Estimate, *, simulated: bool) -> str:
    document = {**estimate.document(), "simulated": simulated}
    return json_text(orjson.dumps(document, option=orjson.OPT_INDENT_2))
