"""``asyncpipe run``: a job file worked into an output folder."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path

import click

from asyncpipe.cli.check import made_of
from asyncpipe.cli.connect import Simulated, connect
from asyncpipe.cli.look import known, look_through, told
from asyncpipe.cli.precheck import ModelCheck
from asyncpipe.cli.session import End, Output, run_session, work_in
from asyncpipe.jobfile import JobFile, open_jobs
from asyncpipe.pipeline import Pipeline
from asyncpipe.progress import Progress
from asyncpipe.report.text import printable
from asyncpipe.volume import GIB


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of ``asyncpipe run``; None means not given."""

    jobfile: Path
    output_dir: Path | None
    max_workers: int | None
    max_cost: Decimal | None
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
    file = open_jobs(options.jobfile)
    folder = options.output_dir or file.settings.output_dir
    work = partial(_run, options, file, folder)
    return run_session(folder, work, output=options.output, simulated=options.simulate)


async def _run(options: RunOptions, file: JobFile, folder: Path) -> End:
    settings, simulated = file.settings, None
    echo = options.output.echo
    # The article's simulator takes any model; a file that is checked without asking anybody is
    # checked before the folder is touched.
    asking = not options.simulate or options.simulate_catalog == "live"
    digest = file.digest(settings.prices, options.allow_unknown_models, asking)
    before = known(folder, digest)
    if before is None and not asking:
        await look_through(file, None, echo)
    polling, deadlines = settings.polling, settings.deadlines
    if options.simulate:
        simulated = Simulated(
            speed=options.simulate_speed,
            faults=options.simulate_faults,
            catalog=options.simulate_catalog,
        )
        polling, deadlines = simulated.polling(polling), simulated.deadlines(deadlines)
    progress = Progress(options.output.echo, verbose=options.output.verbose)
    async with AsyncExitStack() as stack:
        provider = await connect(stack, folder, base_url=options.base_url, simulated=simulated)
        if before is None and asking:
            allow_unknown = options.allow_unknown_models
            models = ModelCheck(file, provider, folder, allow_unknown=allow_unknown, echo=echo)
            await look_through(file, models, echo)
        pipeline = Pipeline(
            provider,
            folder,
            max_workers=options.max_workers or settings.max_workers,
            max_cost=settings.max_cost if options.max_cost is None else options.max_cost,
            retries=settings.retries,
            deadlines=deadlines,
            polling=polling,
            prices=settings.prices,
            patience_s=options.patience,
            min_free_bytes=round(options.min_free * GIB),
            resubmit_unknown=options.ambiguous == "resubmit",
            on_event=progress,
        )
        places = f"{options.jobfile}, into {folder}"
        count = before.jobs if before else len(file.rows)
        unchanged = ", unchanged since the last run" if before else ""
        echo(printable(f"{count} jobs from {places}{unchanged}"))
        for line in made_of(file):
            echo(f"  {line}")
        work = partial(
            pipeline.batch_generate,
            told(file.jobs, "written down", echo),
            digest=digest,
            job_file=str(options.jobfile),
            retry_failed=options.retry_failed,
        )
        return await work_in(pipeline, work, progress=progress, grace_s=options.grace)
