"""Work in an output folder until it ends or is interrupted; then say what became of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import click

from asyncpipe._tasks import ungrouped
from asyncpipe._text import json_text
from asyncpipe.cli.connect import loop_factory, prepare_process
from asyncpipe.cli.exits import of_run
from asyncpipe.cli.signals import draining
from asyncpipe.engine.pipeline import Pipeline
from asyncpipe.errors import AsyncpipeError
from asyncpipe.flow.window import Window
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.report.manifest import Manifest, read_manifest
from asyncpipe.report.progress import Progress
from asyncpipe.report.summary import summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What a command prints."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_progress: bool = False

    def echo(self, line: str) -> None:
        """Print a line of progress, if it is wanted."""
        if not (self.quiet or self.no_progress or self.as_json):
            echo(line)


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a run ended: what stopped its submitting, which signal interrupted it.

    ``windows`` are those whose limit was met, by model.
    """

    stopped: AsyncpipeError | None = None
    interrupted: int | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)


def run_session(
    folder: Path, work: Callable[[], Awaitable[End]], *, output: Output, simulated: bool
) -> int:
    """Run ``work`` to its end, print the summary, return the exit code."""
    started = time.monotonic()
    prepare_process()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            end = runner.run(_awaited(work))
    except KeyboardInterrupt:
        end = End(interrupted=signal.SIGINT)
        if not ledger_path(folder).exists():
            return 128 + signal.SIGINT
    elapsed_s = time.monotonic() - started
    manifest = read_manifest(folder)
    if output.as_json:
        click.echo(json_text(manifest.path.read_bytes()), nl=False)
    if not output.quiet:
        _print_summary(manifest, elapsed_s, end, output=output, simulated=simulated)
    if end.interrupted is not None:
        return 128 + end.interrupted
    return of_run(manifest.totals, stopped=end.stopped)


async def _awaited(work: Callable[[], Awaitable[End]]) -> End:
    return await work()


async def work_in(
    pipeline: Pipeline,
    work: Callable[[], Awaitable[object]],
    *,
    progress: Progress,
    grace_s: float,
) -> End:
    """Open ``pipeline`` and do ``work``; a signal drains it, a second one cuts it short."""
    async with (
        pipeline,
        draining(pipeline, grace_s=grace_s, echo=echo) as seen,
        _beating(progress, pipeline),
    ):
        await work()
    stopped = None if seen.signal is not None else pipeline.stopped
    return End(stopped=stopped, interrupted=seen.signal, windows=pipeline.traffic.limited)


@asynccontextmanager
async def _beating(progress: Progress, pipeline: Pipeline) -> AsyncIterator[None]:
    """Print the totals now and then while the block runs."""
    with ungrouped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.beat, pipeline, name="asyncpipe progress")
            yield
            tasks.cancel_scope.cancel()


def _print_summary(
    manifest: Manifest, elapsed_s: float, end: End, *, output: Output, simulated: bool
) -> None:
    lines = summary(
        manifest.totals,
        elapsed_s=elapsed_s,
        manifest=str(manifest.path),
        simulated=simulated,
        stopped=end.stopped,
        interrupted=end.interrupted is not None,
        windows=end.windows,
    )
    click.echo("\n".join(lines), err=output.as_json)


def echo(line: str) -> None:
    """Print one line for people."""
    click.echo(line, err=True)
