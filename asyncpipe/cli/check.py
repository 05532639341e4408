"""``asyncpipe validate`` and ``asyncpipe estimate``: read a job file, send nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import orjson

from asyncpipe.cli.look import Estimate, price_all
from asyncpipe.jobfile import JobFile, open_jobs
from asyncpipe.manifest import money
from asyncpipe.report.text import columns, fit, printable, usd


def validate_jobs(path: Path, *, as_json: bool) -> None:
    """Check a job file and show what it expands to; raises JobFileError or UsageError."""
    file = open_jobs(path)
    found = price_all(file)
    jobs, total = found.jobs.total(), found.costs.total()
    if as_json:
        document = {"valid": True, "jobs": jobs, "total_cost": money(total)}
        click.echo(orjson.dumps(document | _of_rows(file)).decode())
        return
    click.echo(f"{printable(str(path))}: {jobs} jobs, no problems; {usd(total)} in all")
    for line in made_of(file):
        click.echo(f"  {line}")
    click.echo("The first ones:")
    for row, cost in found.first:
        name = row.job.title(row.job.key("atlas"))
        model = printable(row.job.model)
        click.echo(f"  {fit(name, 28)}  {row.job.kind.value:<5}  {usd(cost.micro):>11}  {model}")
        click.echo(f"    {printable(row.job.said)[:160]}")
        if row.job.params:
            click.echo(f"    {printable(orjson.dumps(dict(row.job.params)).decode())[:160]}")


def _of_rows(file: JobFile) -> dict[str, object]:
    if file.made_of is None:
        return {}
    return {"rows": file.made_of, "unused_columns": file.unused, "label_columns": file.kept}


def made_of(file: JobFile) -> Iterator[str]:
    """Lines that say which rows the jobs are made of, and what becomes of their columns."""
    if file.made_of is None:
        return
    yield printable(f"rows: {file.made_of}")
    used = [name for name in file.columns if name not in file.unused]
    for what, names in (
        ("columns used", used),
        ("columns no template names (kept as labels)", file.unused),
        ("columns kept as labels, not sent", file.kept),
    ):
        if names:
            yield printable(f"{what}: {', '.join(names)}")


def estimate_jobs(path: Path, *, as_json: bool) -> None:
    """Print what a job file will cost; raises JobFileError or UsageError."""
    found = price_all(open_jobs(path))
    jobs, costs = found.jobs, found.costs
    if as_json:
        click.echo(_document(found))
        return
    click.echo(f"{printable(str(path))}: {jobs.total()} jobs")
    rows = [(model, f"{jobs[model]:>6} jobs   {usd(costs[model]):>12}") for model in sorted(jobs)]
    click.echo(
        "\n".join(columns([*rows, ("total", f"{jobs.total():>6} jobs   {usd(costs.total()):>12}")]))
    )
    for line in _remarks(found):
        click.echo(line)


def _remarks(found: Estimate) -> Sequence[str]:
    lines = [f"assumed: {what}, for {n} jobs that do not say" for what, n in found.assumed.items()]
    for source, models in found.sources.items():
        lines.append(f"prices of {len(models)} model(s) from: {source}")
    lines.append("An estimate: prices change, check them with your provider before a large run.")
    return lines


def _document(found: Estimate) -> str:
    document = {
        "jobs": found.jobs.total(),
        "total_cost": money(found.costs.total()),
        "currency": "USD",
        "cost_by_model": {model: money(found.costs[model]) for model in sorted(found.costs)},
        "jobs_by_model": dict(sorted(found.jobs.items())),
        "price_sources": {source: sorted(models) for source, models in found.sources.items()},
        "assumed": dict(found.assumed),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
