"""``asyncpipe collect`` and ``asyncpipe verify``: finish and check what was bought; buy nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from asyncpipe._text import printable
from asyncpipe.cli.connect import Simulated, connect
from asyncpipe.cli.exits import of_verify
from asyncpipe.cli.session import End, Output, echo, run_session, work_in
from asyncpipe.engine.pipeline import Pipeline
from asyncpipe.engine.verify import Verified, verify
from asyncpipe.jobs.settings import Deadlines, Polling
from asyncpipe.jobs.states import JobState
from asyncpipe.ledger.database import origin_of
from asyncpipe.report.manifest import read_manifest
from asyncpipe.report.progress import Progress

SHOWN = 20
"""Bad assets that are named; the others are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectOptions:
    """The options of both commands."""

    folder: Path
    base_url: str | None
    grace: float
    output: Output


def collect_folder(options: CollectOptions) -> int:
    """Poll and download what was submitted; return the exit code."""
    simulated = origin_of(options.folder).simulated
    work = partial(_collect, options, Simulated() if simulated else None)
    return run_session(options.folder, work, output=options.output, simulated=simulated)


def verify_folder(options: CollectOptions) -> int:
    """Compare every asset; fetch again what is missing or damaged; return the exit code.

    It speaks of files only, whatever jobs came to: 0 when every one stands that was bought.
    """
    found = asyncio.run(verify(options.folder))
    _say(found, options.output)
    if found.bad_count:
        lost_before = read_manifest(options.folder).totals.jobs[JobState.LOST]
        code = collect_folder(options)
        return of_verify(code, read_manifest(options.folder).totals, lost_before=lost_before)
    if not options.output.quiet:
        click.echo(f"{found.checked} assets checked, all as they were bought")
    return 0


def _say(found: Verified, output: Output) -> None:
    if output.quiet or not found.bad_count:
        return
    for bad in found.bad[:SHOWN]:
        echo(f"  {printable(bad.asset.path)} {printable(bad.problem)}")
    if found.bad_count > SHOWN:
        echo(f"  … and {found.bad_count - SHOWN} more")
    echo(f"{found.bad_count} of {found.checked} assets to be fetched again, at no cost")


async def _collect(options: CollectOptions, simulated: Simulated | None) -> End:
    polling, deadlines = Polling(), Deadlines()
    if simulated is not None:
        polling, deadlines = simulated.polling(polling), simulated.deadlines(deadlines)
    progress = Progress(options.output.echo, verbose=options.output.verbose)
    async with AsyncExitStack() as stack:
        pipeline = Pipeline(
            await connect(stack, options.folder, base_url=options.base_url, simulated=simulated),
            options.folder,
            polling=polling,
            deadlines=deadlines,
            on_event=progress,
        )
        return await work_in(pipeline, pipeline.collect, progress=progress, grace_s=options.grace)
