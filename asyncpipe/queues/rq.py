"""Redis Queue's side: three functions that its workers call, and a worker that hears of leaving.

``ShardWorker`` is what ``asyncpipe work --queue rq`` starts, by RQ's own command. Any worker of
RQ's that forks (never SimpleWorker) can call the functions, too; it lacks what ShardWorker adds.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from uuid import uuid4

from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.queues import core

try:
    from redis import Redis
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry as RedisRetry
    from rq import Queue, Retry, Worker, get_current_job
    from rq.job import Job as RqJob
    from rq.scheduler import RQScheduler
except ImportError as exc:
    raise core.missing("rq", exc) from exc

SHARD, GENERATE = "asyncpipe.queues.rq.shard", "asyncpipe.queues.rq.generate"

RETRIES = 5
"""How often a shard is delivered again whose process died; being put back is no retry."""

TIMEOUT_S = 24 * 3600
"""Longest that one delivery may take: RQ has none without, and kills it after."""


def shard(place: str, number: int) -> Any:
    """Work one shard of an output place; its jobs are in the ledger."""
    return _ended(lambda: core.run_shard(place, number))


class Generate:
    """The function ``generate(job, place)`` of workers, with ``delay`` for whoever sends a job."""

    def __call__(self, job: Mapping[str, Any], place: str | None = None) -> Any:
        """Run one job; a name is bought once in a place, however often it is sent."""
        current = get_current_job()
        once = current.id if current else uuid4().hex
        return _ended(lambda: core.run_job(job, place, once=once))

    def delay(
        self, job: Mapping[str, Any], place: str | None = None, *, queue: Queue | None = None
    ) -> RqJob:
        """Send one job through ``queue``, or the one that ASYNCPIPE_BROKER names.

        Returns RQ's job, whose result is a mapping. Raises JobFileError for a job that is
        malformed, UsageError where no broker is named.
        """
        if queue is None:
            if not (broker := os.environ.get("ASYNCPIPE_BROKER")):
                raise UsageError("no broker is named: set ASYNCPIPE_BROKER, or give a queue=")
            queue = queue_at(broker, os.environ.get("ASYNCPIPE_QUEUE_NAME") or core.QUEUE_NAME)
        return enqueue(queue, GENERATE, core.checked_job(job), place)


generate = Generate()


def enqueue_file(jobfile: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Send the jobs of a job file: what a schedule of ``rq cron`` does every week."""
    return core.enqueue_file("rq", jobfile, options)


def _ended(deliver: Callable[[], core.ShardEnd]) -> Any:
    """What RQ stores as the result; a Retry has it delivered again, and is counted as none."""
    current = get_current_job()
    try:
        end = deliver()
    except AsyncpipeError:  # another delivery would end the same
        if current is not None:
            current.retries_left = 0
        raise
    if end.again_s is None:
        return dict(end.totals)
    if current is not None:
        current.meta["put back"] = end.why
        current.save_meta()
    return Retry(max=1_000_000_000, interval=max(1, round(end.again_s)))


class PlainSerializer:
    """JSON; and what RQ's cron pickles, which knows nothing else, as long as it is plain values."""

    @staticmethod
    def dumps(value: Any, /) -> bytes:
        """Write JSON; raises TypeError for what JSON does not have."""
        return json.dumps(value).encode()

    @staticmethod
    def loads(data: bytes, /) -> Any:
        """Read JSON or plain pickled values; raises UnpicklingError for any class or function."""
        return _PlainValues(io.BytesIO(data)).load() if data[:1] == b"\x80" else json.loads(data)


class _PlainValues(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        """Refuse: whoever reaches the broker could run anything else."""
        raise pickle.UnpicklingError(f"{module}.{name} does not come through a queue of ours")


class PatientRedis(Redis):
    """A connection that waits for a broker that is away: RQ's worker leaves in mid-shard else."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Connect; what fails is tried again for about ten minutes."""
        retry = RedisRetry(ExponentialBackoff(cap=5, base=0.1), 120)
        made: Self = super().from_url(url, retry=retry, **options)  # type: ignore[assignment]
        return made


class ShardWorker(Worker):
    """RQ's worker, with three things that it lacks: a word to the horse, a lease, and a clock.

    SIGTERM is passed on to the process that works, which drains. A dead worker's shard is
    delivered again after a lease (RQ: after its monitoring interval and a minute). And what was put
    back is taken up by whoever is idle: RQ's scheduler, killed with its worker, is missed for a
    minute.
    """

    def handle_warm_shutdown_request(self) -> None:
        """Tell the horse to leave: RQ itself would wait for its end."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            os.kill(self.horse_pid, signal.SIGTERM)

    def get_heartbeat_ttl(self, job: RqJob, working_time: float = 0.0) -> int:
        """How long a worker that is not heard of keeps its shard, in seconds."""
        return max(round(core.lease_of_environment()), 2 * int(self.job_monitoring_interval) + 1)

    def run_maintenance_tasks(self) -> None:
        """See to dead workers' shards, and to those that were put back until now."""
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        scheduler = RQScheduler(
            self.queues,
            connection=self.connection,
            serializer=self.serializer,
            logging_level="WARNING",
        )
        scheduler.acquire_locks()
        try:
            scheduler.enqueue_scheduled_jobs()
        finally:
            scheduler.release_locks()


def queue_at(broker: str, name: str) -> Queue:
    """The queue of that name; plain values are all that goes through it."""
    return Queue(name, connection=Redis.from_url(broker), serializer=PlainSerializer)


def enqueue(queue: Queue, function: str, *arguments: object) -> RqJob:
    """Send one message with what keeps RQ from losing it."""
    return queue.enqueue_call(
        function,
        args=arguments,
        timeout=TIMEOUT_S,
        retry=Retry(max=RETRIES),
        result_ttl=24 * 3600,
        description=f"{function.rpartition('.')[2]} {' '.join(map(str, arguments))}"[:200],
    )


def check(broker: str) -> None:
    """See whether the broker can be reached; raises UsageError."""
    try:
        Redis.from_url(broker, socket_connect_timeout=10).ping()
    except (RedisError, ValueError) as exc:
        raise UsageError(f"the broker {core.shown(broker)} cannot be reached: {exc}") from exc


def send(broker: str, queue: str, place: str, shards: Sequence[int]) -> None:
    """Send shards by their numbers; raises UsageError where the broker cannot be reached."""
    try:
        for number in shards:
            enqueue(queue_at(broker, queue), SHARD, place, number)
    except RedisError as exc:
        raise UsageError(f"the broker {core.shown(broker)} cannot be reached: {exc}") from exc


def worker(
    broker: str, queue: str, concurrency: int, lease_s: float
) -> tuple[list[str], dict[str, str]]:
    """RQ's own worker command, and the variables it is told besides.

    A worker blocks for ``--worker-ttl`` - 15 seconds while it waits, and looks after the dead
    between.
    """
    if concurrency != 1:
        raise UsageError("an RQ worker works one shard at a time: start several instead")
    often_s = max(1, min(5, round(lease_s / 6)))
    command = ["worker", "--worker-ttl", str(15 + often_s), "--job-monitoring-interval"]
    command += [str(often_s), "--maintenance-interval", str(often_s)]
    options = ["--worker-class", f"{__name__}.ShardWorker"]
    options += ["--serializer", f"{__name__}.PlainSerializer"]
    options += ["--connection-class", f"{__name__}.PatientRedis"]
    return [sys.executable, "-m", "rq.cli", *command, *options, queue], {
        "RQ_REDIS_URL": broker,
        "ASYNCPIPE_BROKER": broker,
        "ASYNCPIPE_QUEUE_NAME": queue,
    }
