"""``asyncpipe validate`` and ``asyncpipe estimate``: read a job file, send nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from asyncpipe.errors import JobFileError, Problem, UsageError
from asyncpipe.jobfile import JobFile, load_jobs
from asyncpipe.manifest import money
from asyncpipe.pricing import Price, books_of, price
from asyncpipe.report.text import columns, fit, printable, usd

SHOWN = 5
"""Jobs that ``validate`` shows."""


def validate_jobs(path: Path, *, as_json: bool) -> None:
    """Check a job file and show what it expands to; raises JobFileError or UsageError."""
    file = load_jobs(path)
    prices = price_all(file)
    total = sum(p.micro for p in prices)
    if as_json:
        document = {"valid": True, "jobs": len(file.rows), "total_cost": money(total)}
        click.echo(orjson.dumps(document).decode())
        return
    click.echo(f"{printable(str(path))}: {len(file.rows)} jobs, no problems. The first ones:")
    for row, cost in list(zip(file.rows, prices, strict=True))[:SHOWN]:
        name = row.job.title(row.job.key("atlas"))
        model = printable(row.job.model)
        click.echo(f"  {fit(name, 28)}  {row.job.kind.value:<5}  {usd(cost.micro):>11}  {model}")
        click.echo(f"    {printable(row.job.said)[:160]}")


def price_all(file: JobFile) -> list[Price]:
    """Price every job; raises JobFileError naming every model that has no price, once."""
    books = books_of(file.settings.prices)
    prices: list[Price] = []
    problems: dict[str, Problem] = {}
    for row in file.rows:
        try:
            prices.append(price(row.job, books))
        except UsageError as exc:
            problem = Problem(message=str(exc), file=str(file.path), line=row.line)
            problems.setdefault(row.job.model, problem)
    if problems:
        raise JobFileError(list(problems.values()))
    return prices


def estimate_jobs(path: Path, *, as_json: bool) -> None:
    """Print what a job file will cost; raises JobFileError or UsageError."""
    file = load_jobs(path)
    prices = price_all(file)
    jobs: Counter[str] = Counter()
    costs: Counter[str] = Counter()
    sources: defaultdict[str, set[str]] = defaultdict(set)
    assumed: Counter[str] = Counter()
    for row, cost in zip(file.rows, prices, strict=True):
        jobs[row.job.model] += 1
        costs[row.job.model] += cost.micro
        sources[cost.source].add(row.job.model)
        assumed.update(cost.assumed)
    if as_json:
        click.echo(_document(jobs, costs, sources, assumed))
        return
    click.echo(f"{printable(str(path))}: {jobs.total()} jobs")
    rows = [(model, f"{jobs[model]:>6} jobs   {usd(costs[model]):>12}") for model in sorted(jobs)]
    click.echo(
        "\n".join(columns([*rows, ("total", f"{jobs.total():>6} jobs   {usd(costs.total()):>12}")]))
    )
    for line in _remarks(sources, assumed):
        click.echo(line)


def _remarks(sources: dict[str, set[str]], assumed: Counter[str]) -> Sequence[str]:
    lines = [f"assumed: {what}, for {n} jobs that do not say" for what, n in assumed.items()]
    for source, models in sources.items():
        lines.append(f"prices of {len(models)} model(s) from: {source}")
    lines.append("An estimate: prices change, check them with your provider before a large run.")
    return lines


def _document(
    jobs: Counter[str],
    costs: Counter[str],
    sources: dict[str, set[str]],
    assumed: Counter[str],
) -> str:
    document = {
        "jobs": jobs.total(),
        "total_cost": money(costs.total()),
        "currency": "USD",
        "cost_by_model": {model: money(costs[model]) for model in sorted(costs)},
        "jobs_by_model": dict(sorted(jobs.items())),
        "price_sources": {source: sorted(models) for source, models in sources.items()},
        "assumed": dict(assumed),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
