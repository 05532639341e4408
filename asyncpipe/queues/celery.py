"""Celery's side: three tasks that any app takes in by one line, and an app of our own.

``app`` is what ``asyncpipe work --queue celery`` starts; its broker is ASYNCPIPE_BROKER. An app of
yours gets the same tasks by ``register(app)``: a shard, one job, and a whole job file for beat.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from asyncpipe.errors import UsageError
from asyncpipe.queues import core

try:
    from celery import Celery, Task, signals
    from celery.worker import state
    from kombu.connection import Connection
    from kombu.exceptions import OperationalError
except ImportError as exc:
    raise core.missing("celery", exc) from exc

SHARD, GENERATE, ENQUEUE = "asyncpipe.shard", "asyncpipe.generate", "asyncpipe.enqueue"

TASK: Mapping[str, Any] = {
    "acks_late": True,  # else a killed worker's shard is gone with it
    "reject_on_worker_lost": True,  # else one whose process died counts as done
    "max_retries": None,  # put back, it used up nothing
    "track_started": True,
}
"""How the tasks are declared, in whichever app."""


class Tasks(NamedTuple):
    """What ``register`` made: Celery tasks, each with ``delay`` and ``apply_async``.

    ``shard`` takes an output place and a number, ``generate`` a job and, if not the worker's own,
    a place, ``enqueue`` the path of a job file and a list of ``asyncpipe enqueue``'s options.
    """

    shard: Any
    generate: Any
    enqueue: Any


class JobTask(Task):  # type: ignore[misc]
    """A task that refuses a malformed job where it is sent from, and says where no broker is named.

    Raises JobFileError or UsageError.
    """

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **how: Any
    ) -> Any:
        """Send one job."""
        if not self.app.conf.broker_url:
            raise UsageError("no broker is named: set ASYNCPIPE_BROKER, or use an app of your own")
        core.checked_job(args[0] if args else (kwargs or {})["job"])
        return super().apply_async(args, kwargs, **how)


def register(app: Any) -> Tasks:
    """Give a Celery app the tasks; its workers are told ASYNCPIPE_LEDGER and the key as variables.

    Nothing else of the app changes. Its own settings hold for what Celery has per app only: the
    prefork pool, ``worker_prefetch_multiplier = 1``, and on Redis a ``visibility_timeout`` that
    says how soon a dead worker's shard is delivered again where no worker with free places has
    taken its jobs before. On RabbitMQ a shard must end within its ``consumer_timeout`` (30 min).
    """
    signals.worker_shutting_down.connect(_pass_on, weak=False, dispatch_uid="asyncpipe")
    return Tasks(
        shard=app.task(name=SHARD, bind=True, **TASK)(_shard),
        generate=app.task(name=GENERATE, base=JobTask, bind=True, **TASK)(_generate),
        enqueue=app.task(name=ENQUEUE, **TASK)(_enqueue),
    )


def _shard(task: Any, place: str, shard: int) -> dict[str, Any]:
    """Work one shard of an output place; its jobs are in the ledger."""
    return _ended(task, core.run_shard(place, shard))


def _generate(task: Any, job: Mapping[str, Any], place: str | None = None) -> dict[str, Any]:
    """Run one job; a name is bought once in a place, however often it is sent."""
    return _ended(task, core.run_job(job, place, once=task.request.id))


def _enqueue(jobfile: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Send the jobs of a job file: what a schedule of beat's does every week."""
    return core.enqueue_file("celery", jobfile, options)


def _ended(task: Any, end: core.ShardEnd) -> dict[str, Any]:
    if end.again_s is not None:
        raise task.retry(countdown=end.again_s, exc=core.PutBack(end.why))
    return dict(end.totals)


def _pass_on(**_: object) -> None:
    """Tell the processes that work on ours to leave: Celery itself would wait for their end."""
    for request in list(state.active_requests):
        if request.name in (SHARD, GENERATE) and request.worker_pid:
            os.kill(request.worker_pid, signal.SIGTERM)


def make_app(broker: str | None, *, queue: str, lease_s: float, results: bool = True) -> Any:
    """An app with the settings that were seen to lose no work.

    On Redis a message that nobody acknowledged is delivered again after a lease: the ledger's
    claims, not the broker, keep a shard from being worked twice. ``results`` are kept there, too.
    """
    made = Celery("asyncpipe", set_as_current=False)
    often_s = max(1, min(5, round(lease_s / 6)))
    made.conf.update(
        broker_url=broker,
        result_backend=broker if results and broker and broker.startswith("redis") else None,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": max(2, round(lease_s)),
            "unacked_restore_interval": often_s,
            "unacked_restore_throttle": 1,
            # Killed while it restores, a worker keeps all others from it: for 5 min by default.
            "unacked_mutex_expire": often_s + 1,
        },
        task_default_queue=queue,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # its claims keep it alone
        worker_soft_shutdown_timeout=30,
        task_send_sent_event=True,
    )
    return made


app = make_app(
    os.environ.get("ASYNCPIPE_BROKER"),
    queue=os.environ.get("ASYNCPIPE_QUEUE_NAME") or core.QUEUE_NAME,
    lease_s=core.lease_of_environment(),
)
shard, generate, enqueue = register(app)


def check(broker: str) -> None:
    """See whether the broker can be reached; raises UsageError."""
    try:
        with Connection(broker, connect_timeout=10) as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
    except (OperationalError, OSError, ValueError, KeyError) as exc:
        raise UsageError(f"the broker {core.shown(broker)} cannot be reached: {exc}") from exc


def send(broker: str, queue: str, place: str, shards: Sequence[int]) -> None:
    """Send shards by their numbers; raises UsageError where the broker cannot be reached."""
    made = make_app(broker, queue=queue, lease_s=core.LEASE_S, results=False)
    sender = register(made).shard
    try:
        # A connection of its own: CELERY_BROKER_URL would go before the app's.
        with Connection(broker) as connection:
            for number in shards:
                sender.apply_async((place, number), connection=connection, retry=False)
    except (OperationalError, OSError) as exc:
        raise UsageError(f"the broker {core.shown(broker)} cannot be reached: {exc}") from exc


def worker(
    broker: str, queue: str, concurrency: int, lease_s: float
) -> tuple[list[str], dict[str, str]]:
    """Celery's own worker command, and the variables it is told besides."""
    command = [sys.executable, "-m", "celery", "-A", "asyncpipe.queues.celery:app", "worker"]
    options = ["--pool", "prefork", "--concurrency", str(concurrency), "--queues", queue]
    options += ["--hostname", f"asyncpipe-{uuid4().hex[:6]}@%h"]  # several on one machine
    named = {"ASYNCPIPE_BROKER": broker, "CELERY_BROKER_URL": broker, "ASYNCPIPE_QUEUE_NAME": queue}
    options += ["--without-mingle", "--without-gossip", "--loglevel", "INFO"]
    return [*command, *options], named
