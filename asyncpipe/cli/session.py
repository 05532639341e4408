"""Work in an output folder until it ends or is interrupted; then say what became of it."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

import anyio
import click

from asyncpipe._tasks import loop_factory, ungrouped
from asyncpipe._text import json_text, printable
from asyncpipe.engine import Pipeline
from asyncpipe.errors import AsyncpipeError, CannotConnect, FolderInUse, UsageError
from asyncpipe.flow import Window
from asyncpipe.jobs import Deadlines, JobState, JobType, OutputPlace, Polling
from asyncpipe.ledger import (
    STATE_FOLDER,
    folder_of,
    ledger_path,
    make_folders,
    origin_of,
    reading,
    where_of,
)
from asyncpipe.providers import Provider
from asyncpipe.providers import connect as connect_provider
from asyncpipe.report import Manifest, Progress, Totals, read_manifest, summary


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

    ``windows`` are those whose limit was met, by model. ``turned_up`` submits had been taken for
    absent.
    """

    stopped: AsyncpipeError | None = None
    turned_up: int = 0
    interrupted: int | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)


def run_session(
    folder: OutputPlace,
    work: Callable[[], Awaitable[End]],
    *,
    output: Output,
    simulated: bool,
    ended: Callable[[Totals, End], None] = lambda totals, end: None,
) -> int:
    """Run ``work`` to its end, print the summary, return the exit code.

    ``ended`` is given what the summary says, if there is one.
    """
    started = time.monotonic()
    prepare_process()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            end = runner.run(_awaited(work))
    except KeyboardInterrupt:
        end = End(interrupted=signal.SIGINT)
        if isinstance(place := where_of(folder), Path) and not ledger_path(place).exists():
            return 128 + signal.SIGINT
    elapsed_s = time.monotonic() - started
    manifest = read_manifest(folder)
    ended(manifest.totals, end)
    if output.as_json:
        click.echo(json_text(manifest.document()), nl=False)
    if not output.quiet:
        _print_summary(manifest, elapsed_s, end, output=output, simulated=simulated)
    elif end.stopped is not None:
        echo(printable(f"Stopped before the end: {end.stopped}"))
    if end.interrupted is not None:
        return 128 + end.interrupted
    code = of_run(manifest.totals, stopped=end.stopped)
    return Exit.AGAIN if end.turned_up and code in (Exit.OK, Exit.FAILED) else code


def patiently(wait_s: float, work: Callable[[], int], output: Output) -> int:
    """Do ``work``, which holds a folder; wait up to ``wait_s`` seconds while others hold it.

    Raises FolderInUse after that.
    """
    until, said = time.monotonic() + wait_s, False
    while True:
        try:
            return work()
        except FolderInUse as exc:
            if time.monotonic() >= until:
                raise
            if not said:
                output.echo(printable(f"{exc.args[0].partition(':')[0]}: waiting"))
            said = True
            time.sleep(min(FREE_S, max(until - time.monotonic(), 0.0)))


FREE_S = 1.0
"""How often a command that waits looks whether a folder is free."""


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
    return End(
        stopped=stopped,
        interrupted=seen.signal,
        windows=pipeline.limiter.limited,
        turned_up=pipeline.turned_up,
    )


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
        manifest=manifest.url,
        simulated=simulated,
        stopped=end.stopped,
        interrupted=end.interrupted is not None,
        windows=end.windows,
    )
    click.echo("\n".join(lines), err=output.as_json)


def echo(line: str) -> None:
    """Print one line for people."""
    click.echo(line, err=True)


SPEED = 20.0
"""How much faster the simulator's time runs unless told otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """How the embedded simulator behaves; its time runs ``speed`` times as fast.

    ``catalog`` is ``article`` or ``live``.
    """

    speed: float = SPEED
    faults: str = ""
    catalog: str = "article"

    def polling(self, polling: Polling) -> Polling:
        """Poll as much more often."""
        return replace(polling, speed=self.speed)

    def search_s(self, search_s: float) -> float:
        """Look for lost submits as much shorter."""
        return search_s / self.speed

    def deadlines(self, deadlines: Deadlines) -> Deadlines:
        """Give up as much sooner."""
        return Deadlines(**{k.value: deadlines.of(k) / self.speed for k in JobType})


async def connect(
    stack: AsyncExitStack,
    folder: OutputPlace | None,
    *,
    provider: str,
    base_url: str | None,
    simulated: Simulated | None,
    books: str = "simulator",
) -> Provider:
    """Make the provider; ``stack`` closes the simulator, which without a folder keeps no books.

    ``books`` is what a simulator's are called in the folder.
    """
    if simulated is None:
        return connect_provider(provider, base_url=base_url)
    from asyncpipe.simulator import Faults, Simulator, SimulatorSettings

    home = None if folder is None else folder_of(folder)
    if home is not None:
        make_folders(home, [STATE_FOLDER])
    settings = SimulatorSettings(
        profile=provider,
        speed=simulated.speed,
        faults=Faults.parse(simulated.faults),
        catalog=simulated.catalog,
        books=home / STATE_FOLDER / f"{books}.sqlite3" if home else None,
    )
    simulator = await stack.enter_async_context(Simulator(settings))
    return connect_provider(provider, base_url=simulator.base_url, simulated=True)


async def connect_others(
    stack: AsyncExitStack,
    folder: OutputPlace,
    names: Iterable[str],
    *,
    main: str,
    simulated: Simulated | None,
) -> list[Provider]:
    """Make the providers that jobs may fall back to; each has a place, and a key, of its own.

    Simulated they have no faults: those are the first one's.
    """
    sound = None if simulated is None else replace(simulated, faults="", catalog="article")
    return [
        await connect(
            stack,
            folder,
            provider=name,
            base_url=None,
            simulated=sound,
            books=f"simulator-{name}",
        )
        for name in sorted({*names} - {main})
    ]


def bought_from(folder: OutputPlace) -> list[str]:
    """The names of those that anything of a folder was bought from."""
    with reading(folder) as ledger:
        return ledger.providers()


def provider_of(folder: OutputPlace, said: str | None) -> str:
    """The name of the provider that a folder's predictions are of.

    Raises LedgerError without a ledger, and UsageError where another one is said.
    """
    origin = origin_of(folder)
    if said not in (None, origin.provider):
        raise UsageError(
            f"{folder} holds predictions of {origin}, and --provider says {said}: leave it out, or "
            "name the folder of that provider"
        )
    return origin.provider


def prepare_process() -> None:
    """Look for cyclic garbage less often: a process that only runs jobs makes next to none.

    What is loaded by now is never looked at again. Saves a tenth of a run's CPU time; that is why
    it is done for the command line's own process, and left to a library's user.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class Exit(IntEnum):
    """Why a command ended; the first that applies, in this order, is the one.

    A signal comes before all but USAGE: 128 + its number, 129, 130 or 143; also 130 when the
    question before a run is answered with no.
    """

    USAGE = 2
    STOPPED = 3
    AGAIN = 75
    FAILED = 1
    OK = 0


def of_error(error: AsyncpipeError) -> Exit:
    """The exit code of a command that an error ended."""
    return Exit.USAGE if isinstance(error, UsageError) else Exit.STOPPED


def of_run(totals: Totals, *, stopped: AsyncpipeError | None) -> Exit:
    """The exit code of a run that came to its end."""
    if stopped is not None:
        return Exit.USAGE if isinstance(stopped, CannotConnect) else Exit.STOPPED
    if totals.unknown or totals.pending:
        return Exit.AGAIN
    return Exit.FAILED if totals.failed else Exit.OK


def of_verify(code: int, totals: Totals) -> int:
    """The exit code of a verify whose repair ended with ``code``: what became of the files.

    75 while some are still to be fetched, 1 as long as media are gone for good. A failed, unknown
    or unsubmitted job has no file that could be missing.
    """
    if code not in (Exit.OK, Exit.AGAIN, Exit.FAILED):
        return code
    if totals.jobs[JobState.GENERATED]:
        return Exit.AGAIN
    gone = totals.jobs[JobState.LOST] + totals.missing
    return Exit.FAILED if gone else Exit.OK


def heard_signals() -> list[signal.Signals]:
    """The signals that drain a run; a hang-up not where it was ignored at the start (nohup)."""
    heard = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        heard.append(hang_up)
    return heard


@dataclass(slots=True)
class Interruption:
    """Which signal came first; None while none has."""

    signal: int | None = None


@asynccontextmanager
async def draining(
    pipeline: Pipeline, *, grace_s: float, echo: Callable[[str], None]
) -> AsyncIterator[Interruption]:
    """Run the block; the first signal stops submitting and gives it ``grace_s`` more seconds.

    The second one, or the end of the grace, cuts the block short: the statement after it is the
    next to run. Submits that are out are still waited for, so that no answer is lost.
    """
    seen = Interruption()
    with ungrouped():
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                with anyio.open_signal_receiver(*heard_signals()) as signals:
                    async for number in signals:
                        if seen.signal is not None:
                            tasks.cancel_scope.cancel()
                            return
                        seen.signal = int(number)
                        tasks.cancel_scope.deadline = anyio.current_time() + grace_s
                        pipeline.stop()
                        echo(
                            f"Interrupted: submitting stopped, {grace_s:g} s for what is quick. "
                            "Once more leaves at once."
                        )

            async def listen_where_possible() -> None:
                try:
                    await listen()
                except NotImplementedError:  # Windows: KeyboardInterrupt cancels the run instead
                    return

            tasks.start_soon(listen_where_possible, name="asyncpipe signals")
            yield seen
            tasks.cancel_scope.cancel()
