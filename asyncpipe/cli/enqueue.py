"""``asyncpipe enqueue``: a job file's jobs into the ledger, their shards' numbers into a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click
import orjson

from asyncpipe._tasks import loop_factory
from asyncpipe._text import json_text, printable
from asyncpipe.cli.run import RunOptions, again, look, price_all
from asyncpipe.cli.schedule import RunFolder, opened_folder
from asyncpipe.cli.session import Exit, connect, echo
from asyncpipe.cli.validate import made_of
from asyncpipe.commands import prices_of, told
from asyncpipe.engine import Pipeline
from asyncpipe.errors import UsageError
from asyncpipe.jobfile import JobFile, load_price_file, open_jobs
from asyncpipe.jobs import OutputPlace, Recovery, Storage, checked_ambiguous
from asyncpipe.ledger import SharedPlace, where_of
from asyncpipe.media import GIB
from asyncpipe.pricing import PriceBook, Quotes
from asyncpipe.providers import key_variable, provider_named
from asyncpipe.queues import PlaceSettings, queue_of, shown


@dataclass(frozen=True, kw_only=True, slots=True)
class EnqueueOptions(RunOptions):
    """The options of ``asyncpipe enqueue``: those of a run that others will do, and the queue's."""

    queue: str
    broker: str
    queue_name: str
    shard_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Enqueued:
    """What was written, and which shards have work to do."""

    jobs: int
    shards: Sequence[int]


def enqueue_jobs(options: EnqueueOptions) -> int:
    """Check and price a job file, ask, write its jobs, send its shards; returns the exit code."""
    adapter = queue_of(options.queue)
    adapter.check(options.broker)  # before anything is written
    file = open_jobs(options.jobfile)
    if file.settings.notify:
        options.output.echo("notify: is for asyncpipe run; workers of a queue tell nobody")
    book = load_price_file(options.price_file) if options.price_file else None
    with opened_folder(
        options.output_dir,
        file,
        new=options.new,
        again=again(options),
        simulated=False,
        output=options.output,
        collect=lambda folder: Exit.OK,  # whatever works here brings that home
    ) as into:
        where = where_of(into.path)
        if not isinstance(where, SharedPlace):
            raise UsageError(
                "a queue's jobs are in a ledger that its workers share: say --ledger "
                "postgresql://…, or set ASYNCPIPE_LEDGER"
            )
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            done = runner.run(_enqueue(options, file, book, into))
    try:
        adapter.send(options.broker, options.queue_name, where.name, done.shards)
    except UsageError as exc:
        raise UsageError(f"{exc}\nThe jobs are in the ledger: run the same command again") from exc
    name = provider_named(options.provider, file.settings.provider)
    _tell(options, where, done, key=key_variable(name))
    return Exit.OK


def settings_of(
    options: EnqueueOptions, file: JobFile, book: PriceBook | None, folder: OutputPlace
) -> PlaceSettings:
    """What workers need to make the pipeline that a run of this command would have."""
    said = file.settings
    links = options if options.public_url or options.presign else said
    return PlaceSettings(
        folder=str(folder.absolute() if isinstance(folder, Path) else folder),
        public_url=links.public_url,
        presign=links.presign,
        provider=provider_named(options.provider, said.provider),
        base_url=options.base_url,
        max_workers=options.max_workers or said.max_workers,
        limits=replace(said.limits, window=said.window),
        deadlines=said.deadlines,
        polling=said.polling,
        retries=said.retries,
        patience_s=options.patience,
        min_free_bytes=round(options.min_free * GIB),
        ambiguous=checked_ambiguous(options.ambiguous or said.ambiguous),
        search_s=options.search_s,
        same_account=options.same_account,
        max_cost=said.max_cost if options.max_cost is None else options.max_cost,
        budgets=dict(said.budgets),
        wait_for_day=said.wait_for_day,
        min_balance=said.min_balance if options.min_balance is None else options.min_balance,
        prices=dict(said.prices),
        price_book=book,
        estimate_factor=said.estimate_factor,
    )


async def _enqueue(
    options: EnqueueOptions, file: JobFile, book: PriceBook | None, into: RunFolder
) -> Enqueued:
    settings = settings_of(options, file, book, into.path)
    prices = prices_of(file, book, provider=settings.provider, base_url=options.base_url)
    echo = options.output.echo
    async with AsyncExitStack() as stack:
        provider = await connect(
            stack,
            None,
            provider=settings.provider,
            base_url=options.base_url,
            simulated=None,
        )
        await stack.enter_async_context(provider)
        found, checked = await look(options, file, prices, into.path, provider)
        quoting = Quotes(provider, tell=lambda line: echo(printable(line)))
        await price_all(options, file, found, quoting, provider)
        digest = file.digest(prices.books, options.allow_unknown_models, True) if checked else ""
        pipeline = Pipeline(
            provider,
            into.path,
            spending=replace(settings.spending, quotes=quoting),
            recovery=Recovery(ambiguous=settings.ambiguous, take_up=False),
            storage=Storage(same_account=options.same_account),
        )
        for line in made_of(file):
            echo(f"  {line}")
        async with pipeline:
            into.begun()
            shards = await pipeline.enqueue(
                told(file.jobs, "written down", echo),
                shard_size=options.shard_size,
                settings=settings.document(),
                job_file=into.job_file,
                digest=digest,
                retry_failed=options.retry_failed,
            )
        return Enqueued(jobs=len(file.rows), shards=shards)


def _tell(options: EnqueueOptions, place: SharedPlace, done: Enqueued, *, key: str) -> None:
    if options.output.as_json:
        document = {"place": place.name, "jobs": done.jobs, "shards": done.shards}
        click.echo(json_text(orjson.dumps(document)))
    if options.output.quiet:
        return
    if not done.shards:
        echo(printable(f"{done.jobs} jobs for {place}: all have ended, nothing was sent"))
        return
    broker = shown(options.broker)
    echo(printable(f"{done.jobs} jobs for {place}: {len(done.shards)} shards sent to {broker}"))
    echo(
        f"They are worked by `asyncpipe work --queue {options.queue}` with the same broker and "
        f"ledger, and {key} set"
    )
