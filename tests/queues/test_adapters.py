"""Celery and RQ as they are, over a real broker, with shards that only wait."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.queues import WorkerSettings, queue_of
from tests.support.brokers import WorkerProcess, a_broker, a_worker, until
from tests.support.command_line import environment
from tests.support.stand_in import noted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers and /proc of Linux")

both = pytest.mark.parametrize("queue", ["celery", "rq"])

LEDGER = "postgresql://user:secret-of-the-ledger@127.0.0.1/none"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with a_broker(tmp_path / "broker") as url:
        yield url


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def standing(
    queue: str, broker: str, place: Path, name: str
) -> AbstractContextManager[WorkerProcess]:
    return a_worker(queue, broker, place.parent / f"{name}.log", stand_in=True, ledger=LEDGER)


@both
def test_every_shard_is_delivered_and_a_taken_one_later(
    queue: str, broker: str, place: Path
) -> None:
    """Three shards, one of them sent twice, over two workers: the second finds it taken, once."""
    queue_of(queue).check(broker)
    with standing(queue, broker, place, "a"), standing(queue, broker, place, "b"):
        queue_of(queue).send(broker, "asyncpipe", str(place), [1, 1])
        until(lambda: noted(place, "begun") and noted(place, "taken"), "one begun, one taken")
        queue_of(queue).send(broker, "asyncpipe", str(place), [2])
        # The one that is taken blocks no slot: the next shard is begun beside it.
        until(lambda: {2} & {shard for shard, _ in noted(place, "begun")}, "shard 2")
        (place / "go").touch()
        until(lambda: len(noted(place, "ended")) == 3, "both, and the second delivery")
    assert sorted(shard for shard, _ in noted(place, "ended")) == [1, 1, 2]


@both
def test_a_killed_workers_shard_is_delivered_to_another(
    queue: str, broker: str, place: Path
) -> None:
    """The whole tree at once, in the middle of its shard, while the other is idle."""
    with standing(queue, broker, place, "a") as one, standing(queue, broker, place, "b") as two:
        queue_of(queue).send(broker, "asyncpipe", str(place), [1])
        ((_, pid),) = until(lambda: noted(place, "begun"), "shard 1")
        owner = one if pid in one.tree() else two
        owner.kill_tree()
        killed = time.monotonic()
        until(lambda: len(noted(place, "begun")) == 2, "shard 1 with the other")
        print(f"{queue}: delivered again {time.monotonic() - killed:.1f} s after the kill")
        (place / "go").touch()
        until(lambda: noted(place, "ended"), "its end")


def test_a_worker_killed_while_it_restores_holds_up_the_others_for_a_moment(
    broker: str, place: Path
) -> None:
    """Celery's lock for that outlives it; the next one restores when it has run out."""
    from redis import Redis

    from asyncpipe.queues.celery import make_app

    kept = make_app(broker, queue="asyncpipe", lease_s=6).conf.broker_transport_options
    with (
        standing("celery", broker, place, "a") as one,
        standing("celery", broker, place, "b") as two,
    ):
        queue_of("celery").send(broker, "asyncpipe", str(place), [1])
        ((_, pid),) = until(lambda: noted(place, "begun"), "shard 1")
        owner = one if pid in one.tree() else two
        with Redis.from_url(broker) as connection:
            lock = connection.lock("unacked_mutex", timeout=kept["unacked_mutex_expire"])
            assert lock.acquire(blocking=True)
            owner.kill_tree()
        until(lambda: len(noted(place, "begun")) == 2, "shard 1 with the other", 30)


@both
def test_sigterm_drains_a_shard_and_others_go_on_with_it(
    queue: str, broker: str, place: Path
) -> None:
    """To the command alone; it leaves soon, and what it had is begun again by the next worker."""
    with standing(queue, broker, place, "a") as worker:
        queue_of(queue).send(broker, "asyncpipe", str(place), [1])
        until(lambda: noted(place, "begun"), "shard 1")
        assert worker.leave() == 0, worker.said
    assert len(noted(place, "left")) == 1
    assert not noted(place, "ended")
    (place / "go").touch()
    with standing(queue, broker, place, "b"):
        until(lambda: noted(place, "ended"), "its end, with the next worker")


@both
def test_an_unreachable_ledger_is_tried_again(queue: str, broker: str, place: Path) -> None:
    """It is no failure of the shard, and uses up none of its deliveries."""
    (place / "go").touch()
    (place / "unreachable.1").touch()
    with standing(queue, broker, place, "a"):
        queue_of(queue).send(broker, "asyncpipe", str(place), [1])
        until(lambda: noted(place, "ended"), "its end")
    assert len(noted(place, "begun")) == 2


def test_a_stopped_shard_is_a_failure_that_celery_shows(broker: str, place: Path) -> None:
    """With the reason in words that people read, as Flower has them, and totals of one that ran."""
    from asyncpipe.queues.celery import make_app, register

    for path in ("go", "stops.1"):
        (place / path).touch()
    tasks = register(make_app(broker, queue="asyncpipe", lease_s=6))
    with standing("celery", broker, place, "a"):
        stopped, ended = (tasks.shard.delay(str(place), shard) for shard in (1, 2))
        assert ended.get(timeout=60) == {"succeeded": 3, "left": 0}
        until(stopped.ready, "the end of the one that stops")
    assert stopped.state == "FAILURE"
    assert str(stopped.result) == "BalanceTooLow: the account has less than 5 USD (3 pending)"


def test_a_stopped_shard_is_a_failure_that_rq_shows(broker: str, place: Path) -> None:
    """In its own ``rq info``, after no further delivery: it would stop again."""
    from asyncpipe.queues import rq

    for path in ("go", "stops.1"):
        (place / path).touch()
    queue = rq.queue_at(broker, "asyncpipe")
    with standing("rq", broker, place, "a"):
        jobs = [rq.enqueue(queue, rq.SHARD, str(place), shard) for shard in (1, 2)]
        until(lambda: all(each.get_status() in ("failed", "finished") for each in jobs), "ends")
    stopped, ended = (each.latest_result() for each in jobs)
    assert ended is not None
    assert ended.return_value == {"succeeded": 3, "left": 0}
    assert stopped is not None
    last = (stopped.exc_string or "").strip().splitlines()[-1]
    assert last.endswith("ShardStopped: BalanceTooLow: the account has less than 5 USD (3 pending)")
    assert len(noted(place, "begun")) == 2
    shown = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "-R"],
        env=environment(RQ_REDIS_URL=broker),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "asyncpipe" in shown.stdout


def test_an_app_of_ones_own_takes_in_shards_by_one_line(
    broker: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its own tasks, in its own worker; there, too, SIGTERM lets a shard leave."""
    monkeypatch.setenv("SHOP_BROKER", broker)
    from tests.support import shop

    # The app's own worker command, as its people start it.
    words = ["-m", "tests.support.stand_in", "celery", "-A", "tests.support.shop", "worker"]
    told = WorkerSettings(ledger=LEDGER).variables
    worker = WorkerProcess([sys.executable, *words, "-c", "2"], told, place.parent / "log")
    try:
        shard = shop.tasks.shard.delay(str(place), 1)
        until(lambda: noted(place, "begun"), "shard 1")
        assert shop.add_task.delay(1, 2).get(timeout=60) == 3
        assert worker.leave() == 0, worker.said
        assert noted(place, "left")
        assert shard.state == "RETRY"
    finally:
        worker.kill_tree()


def test_celerys_beat_sends_a_job_file(
    broker: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a task like any other of the app's, which a worker of its own does."""
    monkeypatch.setenv("SHOP_BROKER", broker)
    monkeypatch.setenv("SHOP_WEEKLY", str(place / "weekly.yaml"))
    words = ["-m", "tests.support.stand_in", "celery", "-A", "tests.support.shop"]
    schedule = str(place.parent / "schedule")
    beat = WorkerProcess(
        [sys.executable, *words, "beat", "--schedule", schedule], {}, place.parent / "beat.log"
    )
    worker = WorkerProcess([sys.executable, *words, "worker"], {}, place.parent / "worker.log")
    try:
        until(lambda: noted(place, "sent"), "the weekly file")
    finally:
        beat.kill_tree()
        worker.kill_tree()
    assert {options for options, _ in noted(place, "sent")} == {2}


def test_rqs_cron_sends_a_job_file(broker: str, place: Path) -> None:
    """RQ's cron pickles what it sends; workers take it as long as it is plain values."""
    from redis import Redis
    from rq.cron import CronScheduler

    from asyncpipe.queues.rq import enqueue_file

    cron = CronScheduler(Redis.from_url(broker))
    cron.register(
        enqueue_file, "asyncpipe", args=(str(place / "weekly.yaml"), ["-q"]), interval=3600
    )
    with standing("rq", broker, place, "a"):
        cron.enqueue_jobs()
        until(lambda: noted(place, "sent"), "the weekly file")


def test_nothing_but_plain_values_comes_through_rq() -> None:
    """A pickled class or function is refused before anything of it is called."""
    from asyncpipe.queues.rq import PlainSerializer

    plain: tuple[object, ...] = ("asyncpipe.queues.rq.shard", None, ["place", 1], {})
    assert PlainSerializer.loads(pickle.dumps(plain)) == plain
    assert PlainSerializer.loads(PlainSerializer.dumps(plain)) == list(plain)
    with pytest.raises(pickle.UnpicklingError, match="does not come through"):
        PlainSerializer.loads(pickle.dumps(print))


JOB = {"name": "mug", "model": "black-forest-labs/flux-2-pro/text-to-image", "prompt": "a mug"}


def test_one_job_through_celery(broker: str, place: Path) -> None:
    """Its message names it, so that delivered twice it is the same job, even without a name."""
    from asyncpipe.queues.celery import make_app, register

    generate = register(make_app(broker, queue="asyncpipe", lease_s=6)).generate
    with standing("celery", broker, place, "a"):
        sent = generate.delay(JOB, str(place))
        assert sent.get(timeout=60) == {"name": "mug", "once": sent.id}
    with pytest.raises(JobFileError, match="promt"):
        generate.delay({**JOB, "promt": "a mug"}, str(place))


def test_one_job_through_rq(broker: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, by the broker that a variable names."""
    from asyncpipe.queues.rq import generate

    with pytest.raises(UsageError, match="ASYNCPIPE_BROKER"):
        generate.delay(JOB, str(place))
    monkeypatch.setenv("ASYNCPIPE_BROKER", broker)
    with standing("rq", broker, place, "a"):
        sent = generate.delay(JOB, str(place))
        until(lambda: sent.get_status() == "finished", "its end")
    result = sent.latest_result()
    assert result is not None
    assert result.return_value == {"name": "mug", "once": sent.id}
    with pytest.raises(JobFileError, match="promt"):
        generate.delay({**JOB, "promt": "a mug"}, str(place))


@both
def test_a_broker_that_is_killed_and_comes_back(queue: str, tmp_path: Path, place: Path) -> None:
    """What a worker was at goes on meanwhile; what waited is delivered from the broker's disk."""
    with a_broker(tmp_path / "broker", appendfsync="always") as broker:
        port = urlsplit(broker).port
        worker = standing(queue, broker, place, "a")
        running = worker.__enter__()
        queue_of(queue).send(broker, "asyncpipe", str(place), [1, 2])
        until(lambda: noted(place, "begun"), "the first")
    try:
        (place / "go").touch()
        until(lambda: noted(place, "ended"), "its end, without a broker")
        with a_broker(tmp_path / "broker", port=port, appendfsync="always"):
            until(lambda: {shard for shard, _ in noted(place, "ended")} == {1, 2}, "the second")
            assert running.process.poll() is None, running.said
    finally:
        worker.__exit__(None, None, None)


@both
def test_no_password_is_printed(queue: str, broker: str, place: Path) -> None:
    """Neither the broker's nor the ledger's: in no log, and in no list of processes."""
    (place / "go").touch()
    with standing(queue, broker, place, "a") as worker:
        queue_of(queue).send(broker, "asyncpipe", str(place), [1])
        until(lambda: noted(place, "ended"), "its end")
        listed = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in worker.tree()]
        worker.leave()
    assert not [line for line in listed if b"secret-of" in line]
    assert "secret-of" not in worker.said


def test_a_broker_that_cannot_be_reached_is_said_before_anything_is_written() -> None:
    """By both, soon, without the password."""
    for name in ("celery", "rq"):
        with pytest.raises(UsageError, match="cannot be reached") as caught:
            queue_of(name).check("redis://:secret-of-the-broker@127.0.0.1:1/0")
        assert "secret" not in str(caught.value)
