"""What is checked before anything is sent: ``asyncpipe validate``, and that jobs have prices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import orjson

from asyncpipe.errors import JobFileError, Problem, UsageError
from asyncpipe.jobfile import JobFile, JobRow, load_jobs
from asyncpipe.jobfile.prices import load_price_file
from asyncpipe.jobs import Job
from asyncpipe.manifest import money
from asyncpipe.pricing import Price, Prices, Unpriced, books_of
from asyncpipe.quoting import Quoting
from asyncpipe.report.text import fit, printable, usd

SHOWN = 5
"""Jobs that ``validate`` shows."""

QUOTES_S = 120.0
"""Longest wait for the quotes of one job file."""

Take = Callable[[JobRow, Price], None]


def prices_of(file: JobFile, price_file: Path | None) -> Prices:
    """Every source of prices that a job file and the user name, no quotes yet.

    Raises JobFileError for the price file's problems.
    """
    book = None if price_file is None else load_price_file(price_file)
    return Prices(
        books=books_of(file.settings.prices, book), estimate_factor=file.settings.estimate_factor
    )


def price_rows(
    file: JobFile, prices: Prices, take: Take, *, wanted: Callable[[Job], bool] = lambda job: True
) -> None:
    """Price the jobs that are ``wanted`` and hand each to ``take``.

    Raises JobFileError naming every model that has no price, once, by its first line.
    """
    problems: dict[str, Problem] = {}
    for row in file.rows:
        try:
            price = prices.of(row.job)
        except UsageError as exc:
            if row.job.model not in problems and wanted(row.job):
                problem = Problem(message=str(exc), file=str(file.path), line=row.line)
                problems[row.job.model] = problem
            continue
        if wanted(row.job):
            take(row, price)
    if problems:
        raise JobFileError(list(problems.values()))


async def ask_quotes(
    file: JobFile,
    prices: Prices,
    quoting: Quoting,
    *,
    wanted: Callable[[Job], bool] = lambda job: True,
    only_unpriced: bool = False,
) -> None:
    """Ask what ``wanted`` jobs cost, once per price key; of those no table can price, or of all."""
    for row in file.rows:
        if (not only_unpriced or _lacks(prices, row.job)) and wanted(row.job):
            quoting.want(row.job)
    await quoting.fill(limit_s=QUOTES_S)


def _lacks(prices: Prices, job: Job) -> bool:
    try:
        return prices.lacks(job)
    except UsageError:  # a rate that cannot price it; said with its line when it is priced
        return False


def validate_jobs(path: Path, *, as_json: bool, price_file: Path | None = None) -> None:
    """Check a job file and show what it expands to; raises JobFileError or UsageError.

    A model that no table prices is no mistake here: a run asks the provider.
    """
    file = load_jobs(path)
    prices = prices_of(file, price_file)
    jobs = total = 0
    unpriced: set[str] = set()
    first: list[tuple[JobRow, Price | None]] = []
    for row in file.rows:
        price = _price_or_none(row, prices, file)
        jobs += 1
        total += price.micro if price else 0
        if price is None:
            unpriced.add(row.job.model)
        if len(first) < SHOWN:
            first.append((row, price))
    if as_json:
        document = {
            "valid": True,
            "jobs": jobs,
            "total_cost": None if unpriced else money(total),
            "unpriced_models": sorted(unpriced),
        }
        click.echo(orjson.dumps(document).decode())
        return
    click.echo(f"{printable(str(path))}: {jobs} jobs, no problems. The first ones:")
    for row, price in first:
        name = row.job.title(row.job.key("atlas"))
        cost = usd(price.micro) if price else "no price"
        model = printable(row.job.model)
        click.echo(f"  {fit(name, 28)}  {row.job.kind.value:<5}  {cost:>11}  {model}")
        click.echo(f"    {printable(row.job.said)[:160]}")
    for model in sorted(unpriced):
        click.echo(printable(f"no price is known for {model}: a run asks the provider for it"))


def _price_or_none(row: JobRow, prices: Prices, file: JobFile) -> Price | None:
    try:
        return prices.of(row.job)
    except Unpriced:
        return None
    except UsageError as exc:
        problem = Problem(message=str(exc), file=str(file.path), line=row.line)
        raise JobFileError([problem]) from exc
