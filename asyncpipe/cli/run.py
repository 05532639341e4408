"""``asyncpipe run``: a job file worked into an output folder."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import click

from asyncpipe.cli.check import ask_quotes, price_rows, prices_of
from asyncpipe.cli.connect import Simulated, connect
from asyncpipe.cli.precheck import check_models
from asyncpipe.cli.question import ask_first, on_terminal
from asyncpipe.cli.session import End, Output, run_session, work_in
from asyncpipe.cli.unspent import still_to_buy
from asyncpipe.jobfile import JobFile, load_jobs
from asyncpipe.pipeline import Pipeline
from asyncpipe.pricing import Prices
from asyncpipe.progress import Progress
from asyncpipe.providers.atlas import AtlasCloud
from asyncpipe.quoting import Quoting
from asyncpipe.report.text import printable
from asyncpipe.volume import GIB


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of ``asyncpipe run``; None means not given."""

    jobfile: Path
    output_dir: Path | None
    max_workers: int | None
    max_cost: Decimal | None
    min_balance: Decimal | None
    price_file: Path | None
    yes: bool
    base_url: str | None
    simulate: bool
    simulate_speed: float
    simulate_faults: str
    simulate_catalog: str
    allow_unknown_models: bool
    retry_failed: bool
    ambiguous: str
    min_free: float
    patience: float
    grace: float
    output: Output


def run_jobs(options: RunOptions) -> int:
    """Run a job file to its end and return the exit code."""
    if options.simulate and options.base_url:
        raise click.UsageError("--simulate and --base-url exclude each other")
    file = load_jobs(options.jobfile)
    prices = prices_of(file, options.price_file)
    folder = options.output_dir or file.settings.output_dir
    work = partial(_run, options, file, prices, folder)
    return run_session(folder, work, output=options.output, simulated=options.simulate)


async def _run(options: RunOptions, file: JobFile, prices: Prices, folder: Path) -> End:
    settings, simulated = file.settings, None
    polling, deadlines = settings.polling, settings.deadlines
    if options.simulate:
        simulated = Simulated(
            speed=options.simulate_speed,
            faults=options.simulate_faults,
            catalog=options.simulate_catalog,
        )
        polling, deadlines = simulated.polling(polling), simulated.deadlines(deadlines)
    remark = partial(_remark, options.output)
    progress = Progress(options.output.echo, verbose=options.output.verbose)
    async with AsyncExitStack() as stack:
        provider = await connect(stack, folder, base_url=options.base_url, simulated=simulated)
        if simulated is None or simulated.catalog == "live":  # the article's takes any model
            await check_models(
                file,
                provider,
                folder,
                allow_unknown=options.allow_unknown_models,
                echo=options.output.echo,
            )
        await stack.enter_async_context(provider)
        quoting = Quoting(provider, tell=remark)
        await _price(options, file, replace(prices, quotes=quoting.quotes), quoting, provider)
        pipeline = Pipeline(
            provider,
            folder,
            max_workers=options.max_workers or settings.max_workers,
            max_cost=_cap(options, file),
            min_balance=_either(options.min_balance, settings.min_balance),
            retries=settings.retries,
            deadlines=deadlines,
            polling=polling,
            prices=settings.prices,
            price_file=options.price_file,
            quotes=quoting,
            estimate_factor=settings.estimate_factor,
            patience_s=options.patience,
            min_free_bytes=round(options.min_free * GIB),
            resubmit_unknown=options.ambiguous == "resubmit",
            on_event=progress,
            on_remark=remark,
        )
        places = f"{options.jobfile}, into {folder}"
        options.output.echo(printable(f"{len(file.rows)} jobs from {places}"))
        work = partial(
            pipeline.batch_generate,
            file.jobs,
            job_file=str(options.jobfile),
            retry_failed=options.retry_failed,
        )
        return await work_in(pipeline, work, progress=progress, grace_s=options.grace)


def _cap(options: RunOptions, file: JobFile) -> Decimal | None:
    return _either(options.max_cost, file.settings.max_cost)


def _either(option: Decimal | None, setting: Decimal | None) -> Decimal | None:
    return setting if option is None else option


def _remark(output: Output, line: str) -> None:
    output.echo(printable(line))


async def _price(
    options: RunOptions, file: JobFile, prices: Prices, quoting: Quoting, provider: AtlasCloud
) -> None:
    """See that everything still to be bought has a price; ask the user, where one has to be."""
    folder = options.output_dir or file.settings.output_dir
    retry, resubmit = options.retry_failed, options.ambiguous == "resubmit"
    with still_to_buy(folder, provider.name, retry_failed=retry, resubmit=resubmit) as wanted:
        unasked = options.yes or options.simulate or _cap(options, file) is not None
        if not unasked and on_terminal():
            workers = options.max_workers or file.settings.max_workers
            await ask_first(file, prices, quoting, provider, wanted=wanted, workers=workers)
            return
        await ask_quotes(file, prices, quoting, wanted=wanted, only_unpriced=True)
        price_rows(file, prices, lambda row, price: None, wanted=wanted)
