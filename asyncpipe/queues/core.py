"""A shard of jobs as a queue's worker sees it, whichever queue: what is sent, what comes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, Self, cast
from urllib.parse import urlsplit, urlunsplit

import anyio
import orjson

from asyncpipe._tasks import loop_factory
from asyncpipe._text import printable
from asyncpipe.errors import AsyncpipeError, LedgerError, UsageError
from asyncpipe.jobfile import parse_jobs

QUEUES = ("celery", "rq")
"""The queues there is an adapter for."""

QUEUE_NAME = "asyncpipe"
"""The name of the engine's queue that shards go through."""

LEASE_S = 30.0
"""How long a worker that is not heard of keeps its jobs, in seconds."""

GRACE_S = 10.0
"""After SIGTERM, seconds for what is quick."""


class QueueAdapter(Protocol):
    """What the commands ask of an adapter, which is a module."""

    def send(self, broker: str, queue: str, place: str, shards: Sequence[int]) -> None:
        """Send shards by their numbers; raises UsageError where the broker cannot be reached."""

    def check(self, broker: str) -> None:
        """See whether the broker can be reached, before anything is written; raises UsageError."""

    def worker(
        self, broker: str, queue: str, concurrency: int, lease_s: float
    ) -> tuple[list[str], dict[str, str]]:
        """The engine's own worker command with the settings that lose no work, and its variables.

        A password stands in the variables only.
        """


def queue_of(name: str) -> QueueAdapter:
    """Find an adapter by its name; raises UsageError when its extra is not installed."""
    if name not in QUEUES:
        raise UsageError(f"there is no queue {name!r}: {' or '.join(QUEUES)}")
    return cast(QueueAdapter, import_module(f"asyncpipe.queues.{name}"))


def missing(extra: str, error: ImportError) -> UsageError:
    """Say how to install what an adapter needs."""
    return UsageError(
        f"{extra} is not installed ({error.name}): pip install 'asyncpipe[{extra},postgres]'"
    )


def shown(url: str) -> str:
    """A URL as it may be printed: without its password, nor anything else that may be secret."""
    parts = urlsplit(url)
    secret, at, host = parts.netloc.rpartition("@")
    user = secret.partition(":")[0]
    return urlunsplit((parts.scheme, f"{user}{':***' if at else ''}{at}{host}", parts.path, "", ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """What a worker is told by its own command, never through the broker; times in seconds."""

    ledger: str = field(repr=False)
    lease_s: float = LEASE_S
    grace_s: float = GRACE_S

    @classmethod
    def of_environment(cls) -> Self:
        """Read ASYNCPIPE_LEDGER, ASYNCPIPE_LEASE_S and ASYNCPIPE_GRACE_S; raises UsageError."""
        ledger = os.environ.get("ASYNCPIPE_LEDGER", "")
        if not ledger:
            raise UsageError(
                "no ledger is named: start workers by `asyncpipe work --ledger postgresql://…`, or "
                "set ASYNCPIPE_LEDGER"
            )
        return cls(
            ledger=ledger,
            lease_s=lease_of_environment(),
            grace_s=_seconds("ASYNCPIPE_GRACE_S", GRACE_S),
        )

    @property
    def variables(self) -> dict[str, str]:
        """The same as variables of an environment."""
        return {
            "ASYNCPIPE_LEDGER": self.ledger,
            "ASYNCPIPE_LEASE_S": f"{self.lease_s:g}",
            "ASYNCPIPE_GRACE_S": f"{self.grace_s:g}",
        }


def lease_of_environment() -> float:
    """ASYNCPIPE_LEASE_S in seconds, or the usual lease; raises UsageError."""
    return _seconds("ASYNCPIPE_LEASE_S", LEASE_S)


def _seconds(name: str, usual: float) -> float:
    text = os.environ.get(name) or f"{usual:g}"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise UsageError(f"{name}: {text!r} is not a number of seconds")
    return seconds


class ShardStopped(AsyncpipeError):
    """A shard was not worked to its end, and delivering it again would not help."""


class PutBack(AsyncpipeError):
    """A shard is delivered again later; nothing is wrong, and no attempt of it is used up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEnd:
    """What came of one delivery of a shard.

    ``again_s``: it is to be delivered again after so many seconds, for the reason ``why``; None:
    its jobs have ended, and ``totals`` counts them.
    """

    totals: Mapping[str, Any] = field(default_factory=dict)
    again_s: float | None = None
    why: str = ""


class Worked(Protocol):
    """What ``Pipeline.work`` found when a shard's work was over here."""

    @property
    def totals(self) -> Mapping[str, Any]:
        """Counts of the shard's jobs and money."""

    @property
    def elsewhere(self) -> int:
        """How many of its jobs other live workers carry."""


def end_of(
    worked: Worked | None, stopped: AsyncpipeError | None, *, drained: bool, lease_s: float
) -> ShardEnd:
    """What one delivery of a shard came to; ``worked`` is None where it was cut short.

    Raises ShardStopped when submitting stopped and nothing will change by itself.
    """
    # 1. This worker is told to leave: others go on with what is left, at once.
    if drained:
        return ShardEnd(again_s=0.0, why="the worker was told to leave; others go on with it")
    # 2. Key, money or disk: whoever gets it next would stop as well.
    if stopped is not None:
        raise ShardStopped(f"{type(stopped).__name__}: {stopped}") from stopped
    assert worked is not None, "only a drain cuts a shard short"
    # 3. Delivered twice, or partly taken by workers with free places: look again later.
    if worked.elsewhere:
        why = f"{worked.elsewhere} of its jobs are carried by other workers"
        return ShardEnd(totals=worked.totals, again_s=max(1.0, lease_s / 3), why=why)
    return ShardEnd(totals=worked.totals)


class Departure:
    """Whether this worker was told to leave, and what it does then; in one event loop.

    Told, it calls what ``drains`` was given, and what runs in ``scope`` is cut short ``grace_s``
    seconds later.
    """

    def __init__(self, grace_s: float) -> None:
        self.told = False
        self.scope = anyio.CancelScope()
        self._grace_s = grace_s
        self._drain: Callable[[], None] | None = None

    def tell(self) -> None:
        """Leave; the second time says nothing new."""
        if self.told:
            return
        self.told = True
        self.scope.deadline = anyio.current_time() + self._grace_s
        if self._drain is not None:
            self._drain()

    def drains(self, drain: Callable[[], None]) -> None:
        """Call ``drain`` when told to leave; at once, if that has been."""
        self._drain = drain
        if self.told:
            drain()


@contextmanager
def hearing(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` in the running loop when SIGTERM comes, and leave the signal as it was.

    Only SIGTERM: queues keep Ctrl-C from the processes that work for them. In a thread, or where
    loops hear no signals, nothing is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    try:
        loop.add_signal_handler(signal.SIGTERM, tell)
    except NotImplementedError:  # Windows
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def run_shard(place: str, shard: int) -> ShardEnd:
    """Work one shard of ``place`` in an event loop of its own; SIGTERM drains it.

    Raises ShardStopped, and UsageError for what no delivery will change.
    """
    worker = WorkerSettings.of_environment()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work_shard(place, shard, worker))


async def work_shard(place: str, shard: int, worker: WorkerSettings) -> ShardEnd:
    """Work one shard; a ledger that cannot be reached is a reason to come back."""
    departure = Departure(worker.grace_s)
    try:
        with hearing(departure.tell):
            worked, stopped = await in_pipeline(place, shard, worker, departure)
    except LedgerError as exc:
        return ShardEnd(again_s=max(1.0, worker.lease_s / 2), why=str(exc))
    return end_of(worked, stopped, drained=departure.told, lease_s=worker.lease_s)


async def in_pipeline(
    place: str, shard: int, worker: WorkerSettings, departure: Departure
) -> tuple[Worked | None, AsyncpipeError | None]:
    """Work a shard in a pipeline of its own; return what it came to, and what stopped it."""
    raise LedgerError("there is no shared ledger yet")


def enqueue_file(queue: str, jobfile: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Do what ``asyncpipe enqueue JOBFILE --yes`` does, for schedules; returns what it sent.

    Broker, ledger and key are this worker's own. Raises ShardStopped with what the command says.
    """
    command = [sys.executable, "-m", "asyncpipe", "enqueue", jobfile, "--queue", queue]
    done = subprocess.run(  # noqa: S603 (no shell; whoever may send this may send jobs)
        [*command, "--yes", "--quiet", "--json", *options],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise ShardStopped(printable(done.stderr) or f"exit code {done.returncode}")
    sent: dict[str, Any] = orjson.loads(done.stdout)
    return sent


def checked_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job as it is sent; raises JobFileError for one that no worker could run."""
    next(iter(parse_jobs([job])))
    return dict(job)


def run_job(job: Mapping[str, Any], place: str | None, *, once: str | None) -> ShardEnd:
    """Run one job as a shard of one; ``once`` names the message, and with it a nameless job."""
    raise LedgerError("there is no shared ledger yet")
