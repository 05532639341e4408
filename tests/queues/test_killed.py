"""A worker is killed with all its processes in the middle of a shard; the books judge.

Three times with each engine; ASYNCPIPE_CHAOS=long does it 20 times.
"""

from __future__ import annotations

import statistics
import sys
import time
from random import Random

import pytest

from tests.support.brokers import WorkerProcess, until
from tests.support.chaos import LONG
from tests.support.cluster import LEASE_S, Cluster, write_mugs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers and /proc of Linux")

TIMES = 20 if LONG else 3
JOBS = 18


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("queue", ["celery", "rq"])
def test_kill_9_of_a_worker_in_mid_shard_pays_nothing_twice_and_loses_nothing(
    queue: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every job ends once, every prediction is adopted, and soon: whoever is left takes over.

    In every other round there is one shard and the other worker is idle, so that nobody but the
    broker can tell it.
    """
    rng, waits = Random(queue), list[float]()
    workers = [cluster.worker(queue, f"{queue}-{n}") for n in range(2)]
    try:
        for n in range(TIMES):
            place = f"{queue}{n}"
            shard_size = JOBS if n % 2 else 6
            job_file = write_mugs(cluster.home, place, JOBS)
            cluster.enqueue(queue, job_file, "--shard-size", shard_size)
            killed, waited = kill_one(cluster, place, workers, rng)
            waits.append(waited)
            workers[killed] = cluster.worker(queue, f"{queue}-{n + 2}")
            cluster.finish(place, JOBS)
            cluster.check_books(place, JOBS)
    finally:
        for worker in workers:
            worker.kill_tree()
    with capsys.disabled():
        told = ", ".join(f"{each:.1f}" for each in waits)
        print(f"\n{queue}: re-attached {told} s after kill -9, with a lease of {LEASE_S:g} s")
    assert statistics.median(waits) <= 10


def kill_one(
    cluster: Cluster, place: str, workers: list[WorkerProcess], rng: Random
) -> tuple[int, float]:
    """Kill a worker that has predictions under way; wait until others have all of them.

    Returns which, and after how many seconds.
    """

    def busy() -> list[int]:
        carried = [cluster.carried_by(place, worker.tree()) for worker in workers]
        return [n for n, jobs in enumerate(carried) if len(jobs) >= 2]

    victim = rng.choice(until(busy, "a worker with predictions under way"))
    pids = workers[victim].tree()
    workers[victim].kill_tree()
    began = time.monotonic()
    orphans = cluster.carried_by(place, pids)
    assert orphans, "killed between two predictions"
    until(lambda: not cluster.carried_by(place, pids), "others that carry them")
    return victim, time.monotonic() - began
