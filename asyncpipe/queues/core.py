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
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Protocol, Self, cast
from urllib.parse import urlsplit, urlunsplit

import anyio
import orjson

from asyncpipe._tasks import loop_factory
from asyncpipe._text import printable
from asyncpipe.engine import Pipeline, ShardWork
from asyncpipe.errors import AsyncpipeError, ClaimLost, LedgerError, UsageError
from asyncpipe.jobfile import parse_jobs
from asyncpipe.jobs import Job, JobState, LedgerAt, Recovery, Storage
from asyncpipe.ledger import place_settings
from asyncpipe.providers import connect
from asyncpipe.queues.settings import PlaceSettings
from asyncpipe.report import Result

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
    return UsageError(f"{error.name} is not installed: pip install 'asyncpipe[{extra}]'")


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


def end_of(worked: ShardWork | None, *, drained: bool, lease_s: float) -> ShardEnd:
    """What one delivery of a shard came to; ``worked`` is None where it was cut short.

    Raises ShardStopped where another delivery would not help, and people have to decide.
    """
    # 1. This worker is told to leave: others go on with what is left, at once.
    if drained and (worked is None or worked.totals["left"]):
        return ShardEnd(again_s=0.0, why="the worker was told to leave; others go on with it")
    assert worked is not None, "only a drain cuts a shard short"
    totals = worked.totals
    # 2. Key, money or disk: whoever gets it next would stop as well.
    if totals["left"] and worked.stopped is not None:
        why = f"{type(worked.stopped).__name__}: {worked.stopped}"
        raise ShardStopped(f"{why} ({_counted(totals)})") from worked.stopped
    # 3. Delivered twice, or partly taken by workers with free places: look again later.
    if worked.elsewhere:
        why = f"other workers carry {worked.elsewhere} of its jobs"
        return ShardEnd(totals=totals, again_s=max(1.0, lease_s / 3), why=why)
    # 4. Paid for, or it may be, and not here: nobody should take that for done.
    if totals["left"] or worked.jobs.get(JobState.UNKNOWN):
        raise ShardStopped(f"not finished ({_counted(totals)}): see asyncpipe status, collect")
    return ShardEnd(totals=totals)


def _counted(totals: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in totals.items() if state != "left")


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
            worked = await in_pipeline(place, shard, worker, departure)
    except LedgerError as exc:
        return ShardEnd(again_s=max(1.0, worker.lease_s / 2), why=str(exc))
    return end_of(worked, drained=departure.told, lease_s=worker.lease_s)


async def in_pipeline(
    place: str, shard: int, worker: WorkerSettings, departure: Departure
) -> ShardWork | None:
    """Work a shard in a pipeline of its own; return what it came to, or None if it was cut short.

    Raises LedgerError, and what opening a pipeline does.
    """
    said = await asyncio.to_thread(place_settings, worker.ledger, place)
    if said is None:
        raise ShardStopped(f"this worker's ledger has no place {place}: see its --ledger")
    worked = None
    async with pipeline_of(place, PlaceSettings.of(said), worker) as pipeline:
        departure.drains(pipeline.stop)
        with departure.scope:
            worked = await pipeline.work(shard=shard)
    return worked


def pipeline_of(place: str, said: PlaceSettings, worker: WorkerSettings) -> Pipeline:
    """The pipeline of one worker at one place."""
    return Pipeline(
        connect(said.provider, base_url=said.base_url),
        said.folder or place,
        ledger=LedgerAt(url=worker.ledger, place=place, lease_s=worker.lease_s),
        max_workers=said.max_workers,
        limits=said.limits,
        spending=said.spending,
        deadlines=said.deadlines,
        polling=said.polling,
        recovery=Recovery(
            retries=said.retries,
            ambiguous=said.ambiguous,
            search_s=said.search_s,
            patience_s=said.patience_s,
            fetch_missing=False,  # other workers' files may be on other machines
            take_up=False,
        ),
        storage=Storage(
            min_free_bytes=said.min_free_bytes,
            public_url=said.public_url,
            presign=said.presign,
            same_account=said.same_account,
        ),
    )


def run_job(job: Mapping[str, Any], place: str | None, *, once: str) -> ShardEnd:
    """Run one job; a nameless one is named by its message, ``once``: delivered twice it is one.

    Its result is in ``totals``. Raises what ``Pipeline.generate`` does.
    """
    worker = WorkerSettings.of_environment()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work_job(with_name(job, once), place or default_place(), worker))


def default_place() -> str:
    """The place of jobs that name none: ASYNCPIPE_PLACE, or the usual output folder."""
    return os.environ.get("ASYNCPIPE_PLACE") or "pipeline_output"


def with_name(job: Mapping[str, Any], once: str) -> Job:
    """The job with a name that is the same whenever the message ``once`` is delivered.

    One with an idempotency key is the same by that.
    """
    read = next(iter(parse_jobs([job])))
    if read.idempotency_key is not None:
        return read
    word = once.replace("-", "")[:12]
    return replace(read, name=read.name or f"{read.title(word)}{word[6:]}")


async def work_job(job: Job, place: str, worker: WorkerSettings) -> ShardEnd:
    """Run one job at a place, which is made if it is not there."""
    departure = Departure(worker.grace_s)
    leaving = ShardEnd(again_s=0.0, why="the worker was told to leave; others go on with it")
    try:
        with hearing(departure.tell):
            said = await asyncio.to_thread(place_settings, worker.ledger, place)
            result = None
            async with pipeline_of(place, PlaceSettings.of(said or {}), worker) as pipeline:
                departure.drains(pipeline.stop)
                with departure.scope:
                    result = await pipeline.generate(job, wait=False)
    except LedgerError as exc:
        return ShardEnd(again_s=max(1.0, worker.lease_s / 2), why=str(exc))
    except ClaimLost as exc:
        return ShardEnd(again_s=max(1.0, worker.lease_s / 3), why=str(exc))
    except AsyncpipeError:
        if departure.told:
            return leaving
        raise
    return leaving if result is None else ShardEnd(totals=described(result))


def described(result: Result) -> dict[str, Any]:
    """A result as JSON values, for whoever waits for a queue's answer."""
    return {
        "name": result.name,
        "status": result.status,
        "outcome": result.outcome.value,
        "cost": f"{result.cost:f}",
        "files": [asset.name for asset in result.assets],
        "error": result.error,
        "prediction_id": result.prediction_id,
    }


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
