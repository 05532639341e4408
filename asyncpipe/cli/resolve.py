"""``asyncpipe resolve``: decide about unknown jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from asyncpipe.report.text import printable, usd
from asyncpipe.resolve import resolve


def resolve_jobs(folder: Path, names: tuple[str, ...], *, resubmit: bool) -> None:
    """Decide, and say what follows."""
    records = asyncio.run(resolve(folder, names, resubmit=resubmit))
    for record in records:
        if resubmit:
            outcome = f"to be submitted; {usd(record.held)} stay reserved for the lost answer"
        else:
            outcome = f"failed, {usd(record.charged)} charged"
        click.echo(f"  {printable(record.name)}: {outcome}")
    again = "; run the same job file again to submit them" if resubmit and records else ""
    click.echo(f"{len(records)} unknown jobs resolved{again}")
