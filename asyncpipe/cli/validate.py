"""``asyncpipe validate``: check a job file and show what it comes to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
import orjson

from asyncpipe._text import fit, json_text, printable
from asyncpipe.commands import look_over, prices_of, validated
from asyncpipe.jobfile import JobFile, JobRow, load_price_file, open_jobs
from asyncpipe.pricing import Price, usd
from asyncpipe.providers import provider_named

SHOWN = 5
"""Jobs that ``validate`` shows."""


def validate_jobs(
    path: Path, *, as_json: bool, price_file: Path | None = None, provider: str | None = None
) -> None:
    """Check a job file and show what it expands to; raises JobFileError or UsageError.

    A model that no table prices is no mistake here: a run asks the provider.
    """
    file = open_jobs(path)
    name = provider_named(provider, file.settings.provider)
    prices = prices_of(file, load_price_file(price_file) if price_file else None, provider=name)
    found = validated(look_over(file, prices))
    unpriced = found.unpriced_models
    if as_json:
        click.echo(json_text(orjson.dumps(found.document() | _of_rows(file))))
        return
    cost = "" if found.cost is None else f"; {usd(found.cost)} in all, by tables"
    click.echo(f"{printable(str(path))}: {found.jobs} jobs, no problems{cost}")
    for line in made_of(file):
        click.echo(f"  {line}")
    click.echo("The first ones:")
    for row in islice(file.rows, SHOWN):
        price = None if row.job.model in unpriced else prices.of(row.job)
        for line in _shown(row, price, name):
            click.echo(line)
    for model in unpriced:
        click.echo(printable(f"no price is known for {model}: a run asks the provider for it"))


def _shown(row: JobRow, price: Price | None, provider: str) -> Iterator[str]:
    """One job as people check it before they pay for it."""
    name, model = row.job.title(row.job.key(provider)), printable(row.job.model)
    cost = usd(price.micro) if price else "no price"
    yield f"  {fit(name, 28)}  {row.job.kind.value:<5}  {cost:>11}  {model}"
    if row.job.said:
        yield f"    {printable(row.job.said)[:160]}"
    if row.job.params:
        yield f"    {printable(orjson.dumps(dict(row.job.params)).decode())[:160]}"


def _of_rows(file: JobFile) -> dict[str, object]:
    if file.made_of is None:
        return {}
    return {"rows": file.made_of, "unused_columns": file.unused, "label_columns": file.kept}


def made_of(file: JobFile) -> Iterator[str]:
    """Lines that say which rows the jobs are made of, and what becomes of their columns."""
    if file.made_of is None:
        return
    yield printable(f"rows: {file.made_of}")
    unused = {*file.unused}
    used = [name for name in file.columns if name not in unused]
    for what, names in (
        ("columns used", used),
        ("columns no template names (kept as labels)", file.unused),
        ("columns kept as labels, not sent", file.kept),
    ):
        if names:
            yield printable(f"{what}: {', '.join(names)}")
    yield from map(printable, file.notes)
