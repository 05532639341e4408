"""``asyncpipe run``: a job file worked into an output folder."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

from asyncpipe._fs import make_folders
from asyncpipe._leaving import plain
from asyncpipe.cli.check import price_all
from asyncpipe.cli.exits import of_run
from asyncpipe.cli.signals import draining
from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobfile import JobFile, load_jobs
from asyncpipe.ledger.sqlite import STATE_FOLDER, ledger_path
from asyncpipe.manifest import Manifest, read_manifest
from asyncpipe.pipeline import Pipeline
from asyncpipe.progress import Progress
from asyncpipe.providers.atlas import AtlasCloud
from asyncpipe.report.summary import summary
from asyncpipe.report.text import printable
from asyncpipe.settings import Deadlines, Polling


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of ``asyncpipe run``; None means not given."""

    jobfile: Path
    output_dir: Path | None
    max_workers: int | None
    base_url: str | None
    simulate: bool
    simulate_speed: float
    simulate_faults: str
    retry_failed: bool
    patience: float
    grace: float
    as_json: bool
    quiet: bool
    verbose: bool
    no_progress: bool


_ESCAPED = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON may hold as it is, and a terminal may obey."""


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def run_jobs(options: RunOptions) -> int:
    """Run a job file to its end and return the exit code."""
    if options.simulate and options.base_url:
        raise click.UsageError("--simulate and --base-url exclude each other")
    file = load_jobs(options.jobfile)
    price_all(file)
    started = time.monotonic()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            end = runner.run(_run(options, file))
    except KeyboardInterrupt:
        end = End(interrupted=signal.SIGINT)
        if not ledger_path(_folder(options, file)).exists():
            return 128 + signal.SIGINT
    elapsed_s = time.monotonic() - started
    manifest = read_manifest(_folder(options, file))
    if options.as_json:
        click.echo(_ESCAPED.sub(_escape, manifest.path.read_bytes().decode()), nl=False)
    _print_summary(options, manifest, elapsed_s, end)
    if end.interrupted is not None:
        return 128 + end.interrupted
    return of_run(manifest.totals, stopped=end.stopped)


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a run ended: what stopped its submitting, which signal interrupted it."""

    stopped: AsyncpipeError | None = None
    interrupted: int | None = None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _folder(options: RunOptions, file: JobFile) -> Path:
    return options.output_dir or file.settings.output_dir


async def _run(options: RunOptions, file: JobFile) -> End:
    settings = file.settings
    scale = options.simulate_speed if options.simulate else 1.0
    printing = not (options.quiet or options.no_progress or options.as_json)
    echo = _echo if printing else _silence
    progress = Progress(echo, verbose=options.verbose)
    async with AsyncExitStack() as stack:
        provider = await _provider(options, _folder(options, file), stack)
        pipeline = Pipeline(
            provider,
            _folder(options, file),
            max_workers=options.max_workers or settings.max_workers,
            retries=settings.retries,
            deadlines=_faster_deadlines(settings.deadlines, scale),
            polling=_faster_polling(settings.polling, scale),
            prices=settings.prices,
            patience_s=options.patience,
            on_event=progress,
        )
        places = f"{options.jobfile}, into {_folder(options, file)}"
        echo(printable(f"{len(file.rows)} jobs from {places}"))
        async with (
            pipeline,
            draining(pipeline, grace_s=options.grace, echo=_echo) as seen,
            _beating(progress, pipeline),
        ):
            await pipeline.batch_generate(
                file.jobs, job_file=str(options.jobfile), retry_failed=options.retry_failed
            )
        interrupted = seen.signal
        return End(stopped=None if interrupted else pipeline.stopped, interrupted=interrupted)


@asynccontextmanager
async def _beating(progress: Progress, pipeline: Pipeline) -> AsyncIterator[None]:
    """Print the totals now and then while the block runs."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.beat, pipeline.totals, name="asyncpipe progress")
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = plain(group)
        if error is group:
            raise
        raise error from None


async def _provider(options: RunOptions, folder: Path, stack: AsyncExitStack) -> AtlasCloud:
    if not options.simulate:
        return AtlasCloud(base_url=options.base_url)
    from asyncpipe.simulator import Faults, Simulator, SimulatorSettings

    make_folders(folder, (STATE_FOLDER,))
    books = folder / STATE_FOLDER / "simulator.sqlite3"
    settings = SimulatorSettings(
        speed=options.simulate_speed, faults=Faults.parse(options.simulate_faults), books=books
    )
    simulator = await stack.enter_async_context(Simulator(settings))
    return AtlasCloud("simulated", base_url=simulator.base_url, simulated=True)


def _faster_polling(polling: Polling, scale: float) -> Polling:
    return Polling(
        initial_s=polling.initial_s / scale,
        factor=polling.factor,
        maximum_s=polling.maximum_s / scale,
    )


def _faster_deadlines(deadlines: Deadlines, scale: float) -> Deadlines:
    return Deadlines(image=deadlines.image / scale, video=deadlines.video / scale)


def _print_summary(options: RunOptions, manifest: Manifest, elapsed_s: float, end: End) -> None:
    if options.quiet:
        return
    lines = summary(
        manifest.totals,
        elapsed_s=elapsed_s,
        manifest=str(manifest.path),
        simulated=options.simulate,
        stopped=end.stopped,
        interrupted=end.interrupted is not None,
    )
    click.echo("\n".join(lines), err=options.as_json)


def _echo(line: str) -> None:
    click.echo(line, err=True)


def _silence(line: str) -> None:
    del line
