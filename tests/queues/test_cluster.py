"""Real jobs through real queues: sent by the command, worked by workers, judged by the books."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asyncpipe import Pipeline
from asyncpipe.errors import ClaimLost
from asyncpipe.testing import FakeProvider, Script
from tests.support.brokers import WorkerProcess, a_broker, until
from tests.support.buckets import a_bucket
from tests.support.cluster import Cluster, write_mugs
from tests.support.command_line import asyncpipe, manifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers and /proc of Linux")

both = pytest.mark.parametrize("queue", ["celery", "rq"])

MUG = {"model": "black-forest-labs/flux-2-pro/text-to-image", "width": 64, "height": 64}


@contextmanager
def working(cluster: Cluster, queue: str, name: str) -> Iterator[WorkerProcess]:
    worker = cluster.worker(queue, name)
    try:
        yield worker
    finally:
        worker.kill_tree()


@both
def test_a_job_file_goes_through_a_queue(queue: str, cluster: Cluster) -> None:
    """Sent twice it is bought once; sent when all is done, nothing is; no password is shown."""
    place = f"file-{queue}"
    job_file = write_mugs(cluster.home, place, 5)
    said = cluster.enqueue(queue, job_file, "--shard-size", 2)
    assert "3 shards sent to redis://:***@127.0.0.1" in said
    assert "3 shards sent" in cluster.enqueue(queue, job_file, "--shard-size", 2)
    with working(cluster, queue, place) as worker:
        cluster.finish(place, 5)
        cluster.check_books(place, 5)
        assert "all have ended, nothing was sent" in cluster.enqueue(queue, job_file)
        worker.leave()
    assert manifest(cluster.home / place)["successful"] == 5
    assert "secret" not in said + worker.said


@both
def test_sigterm_gives_a_shards_jobs_back(queue: str, cluster: Cluster) -> None:
    """What is under way is left at the provider, for the next worker to bring home."""
    place = f"leaving-{queue}"
    cluster.enqueue(queue, write_mugs(cluster.home, place, 12), "--shard-size", 12)
    with working(cluster, queue, f"{place}-a") as worker:
        until(lambda: cluster.states(place).get("submitted", 0) > 2, "jobs under way")
        assert worker.leave() == 0, worker.said
    assert cluster.ask(place, "SELECT id FROM jobs WHERE worker IS NOT NULL") == []
    assert cluster.states(place) != {"succeeded": 12}
    with working(cluster, queue, f"{place}-b"):
        cluster.finish(place, 12)
    cluster.check_books(place, 12)


def test_one_job_of_a_web_app_through_celery(cluster: Cluster) -> None:
    """A name is bought once, however often it is asked for; without one it is, each time."""
    from asyncpipe.queues.celery import make_app, register

    place = "web-celery"
    generate = register(make_app(cluster.broker, queue="asyncpipe", lease_s=6)).generate
    prepare(cluster, "celery", place)
    with working(cluster, "celery", place):
        asked = [generate.delay({"name": "a", "prompt": f"{place} a", **MUG}, place) for _ in "12"]
        first, second = (each.get(timeout=60) for each in asked)
        nameless = generate.delay({"prompt": f"{place} b", **MUG}, place).get(timeout=60)
    assert first == second
    assert first["status"] == nameless["status"] == "success", nameless
    assert first["files"] == ["images/a.png"]
    assert Decimal(first["cost"]) == Decimal("0.04")
    cluster.check_books(place, 3)


def test_a_shop_with_a_task_of_its_own(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """celery_shop.py of the examples in its own worker: sent twice, an order is bought once."""
    monkeypatch.setenv("ASYNCPIPE_BROKER", cluster.broker)
    from tests.examples.celery_shop import order

    prepare(cluster, "celery", "orders")
    words = ["-m", "celery", "-A", "tests.examples.celery_shop", "worker", "-Q", "celery,asyncpipe"]
    log = cluster.home / "shop.log"
    worker = WorkerProcess([sys.executable, *words, "-c", "2"], cluster.variables, log)
    try:
        names = [order.delay(1, ["mug", "杯"]).get(timeout=60) for _ in "12"]
        assert names == [["order-1-mug", "order-1-杯"]] * 2
        cluster.finish("orders", 3)
    finally:
        worker.kill_tree()
    sold = Counter(each.body["prompt"] for each in cluster.sold())
    assert (sold["a photo of mug"], sold["a photo of 杯"]) == (1, 1)


def test_one_job_of_a_web_app_through_rq(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same twin."""
    from asyncpipe.queues.rq import generate

    monkeypatch.setenv("ASYNCPIPE_BROKER", cluster.broker)
    place = "web-rq"
    prepare(cluster, "rq", place)
    with working(cluster, "rq", place):
        asked = [generate.delay({"name": "a", "prompt": f"{place} a", **MUG}, place) for _ in "12"]
        until(lambda: all(each.get_status() == "finished" for each in asked), "their ends")
    first, second = (each.return_value() for each in asked)
    assert first is not None
    assert first == second
    assert first["status"] == "success"
    cluster.check_books(place, 2)


def prepare(cluster: Cluster, queue: str, place: str) -> None:
    """Make a place with one job, so that it is the simulator's; prompts are told apart by it."""
    cluster.enqueue(queue, write_mugs(cluster.home, place, 1))


@both
def test_a_job_file_goes_through_a_queue_into_a_bucket(
    queue: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is the bucket's URL, wherever it is worked."""
    job_file = write_mugs(cluster.home, f"bucket-{queue}", 3)
    with a_bucket(monkeypatch) as s3:
        place = str(s3.place)
        cluster.enqueue(queue, job_file, "-o", place)
        with working(cluster, queue, f"bucket-{queue}"):
            cluster.finish(place, 3)
        names = [name for name in s3.names() if name.startswith("images/")]
    assert sorted(names) == ["images/mug_0.png", "images/mug_1.png", "images/mug_2.png"]


@both
def test_a_broker_killed_in_mid_run_costs_nothing(
    queue: str, cluster: Cluster, tmp_path: Path
) -> None:
    """What is under way is brought home meanwhile, the rest when it is back; by itself."""
    place = f"broken-{queue}"
    job_file = write_mugs(cluster.home, place, 12)
    with ExitStack() as stack:
        with a_broker(tmp_path / "broker", appendfsync="always") as url:
            own = replace(cluster, broker=url)
            own.enqueue(queue, job_file, "--shard-size", 6)
            worker = stack.enter_context(working(own, queue, place))
            until(lambda: own.states(place).get("submitted", 0) > 1, "jobs under way")
        until(lambda: own.states(place).get("succeeded", 0) >= 6, "a shard without its broker")
        port = urlsplit(url).port
        stack.enter_context(a_broker(tmp_path / "broker", port=port, appendfsync="always"))
        own.finish(place, 12)
        assert worker.process.poll() is None, worker.said
    cluster.check_books(place, 12)


def test_what_cannot_be_sent_is_not_written(cluster: Cluster) -> None:
    """Without a ledger, without a broker, or with a mistake in the file: exit code 2, said how."""
    job_file = write_mugs(cluster.home, "unsent", 2)
    options = ["enqueue", job_file, "--queue", "rq", "--base-url", cluster.api, "--yes"]
    told = cluster.variables

    without = asyncpipe(*options, cwd=cluster.home, **{**told, "ASYNCPIPE_LEDGER": ""})
    assert (without.returncode, "--ledger" in without.stderr) == (2, True)

    nowhere = {**told, "ASYNCPIPE_BROKER": "redis://:secret@127.0.0.1:1/0"}
    away = asyncpipe(*options, cwd=cluster.home, **nowhere)
    assert away.returncode == 2
    assert "redis://:***@127.0.0.1:1/0 cannot be reached" in away.stderr
    assert "secret" not in away.stderr

    job_file.write_text(job_file.read_text(encoding="utf-8").replace("width: 64", "widht: 64"))
    wrong = asyncpipe(*options, cwd=cluster.home, **told)
    assert (wrong.returncode, "widht" in wrong.stderr) == (2, True)
    assert cluster.states("unsent") == {}


def test_the_key_is_nowhere_in_the_ledger_or_the_broker(cluster: Cluster) -> None:
    """Settings are kept for the workers, without it; a message is a place and a number."""
    from redis import Redis

    place = "keyless"
    cluster.enqueue("rq", write_mugs(cluster.home, place, 2), "--queue-name", "nobodys")
    (kept,) = cluster.ask(place, "SELECT settings FROM asyncpipe.places WHERE name=%s", place)[0]
    assert json.loads(kept)["base_url"] == cluster.api
    assert "apikey" not in kept
    connection = Redis.from_url(cluster.broker)
    (job_id,) = connection.lrange("rq:queue:nobodys", 0, -1)
    message = repr(connection.hgetall(f"rq:job:{bytes(job_id).decode()}"))  # type: ignore[arg-type]
    assert "keyless" in message
    assert "apikey" not in message
    assert "postgres" not in message


def test_a_job_that_another_worker_carries_is_put_back_at_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One slot waits for a provider, not two: the second delivery says so and is over."""
    provider = FakeProvider(default=Script(generation_s=3600))
    job = {"name": "a", "prompt": "a mug", **MUG}
    shared: dict[str, Any] = {
        "ledger": {"url": cluster.ledger, "place": "put-back"},
        "storage": {"min_free_bytes": 0},
    }

    async def main() -> None:
        async with Pipeline(provider, tmp_path, **shared) as one:
            first = asyncio.ensure_future(one.generate(job))
            while not provider.sold:  # noqa: ASYNC110 (what another task of ours does)
                await asyncio.sleep(0.01)
            async with Pipeline(provider, tmp_path, **shared) as two:
                with pytest.raises(ClaimLost, match="carried by another worker"):
                    await asyncio.wait_for(two.generate(job, wait=False), 30)
            first.cancel()

    asyncio.run(main())
    assert provider.sold == ["a"]
