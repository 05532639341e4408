"""Paid once, and nothing lost, however many processes share a ledger and whatever ends them.

The simulator is a server of its own; its books judge. ASYNCPIPE_CHAOS=long kills ten times as many.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from asyncpipe.simulator.books import BookedPrediction
from tests.support.chaos import LONG
from tests.support.command_line import a_simulator, asyncpipe, server_books
from tests.support.crashes import killing
from tests.support.many import Crew, crew, job_file
from tests.support.postgres import a_relay, own_server, shared_url

pytestmark = [killing, pytest.mark.timeout(300)]

JOBS = 60

SLOW = ("--speed", 4)
"""Generations take seconds: what is asked meanwhile finds the run under way."""


def once_each(workers: Crew) -> None:
    """Every job is sold once and ended once; every prediction that exists is some job's."""
    assert workers.bought() == Counter({f"mug {n}": 1 for n in range(JOBS)})
    assert workers.count("jobs WHERE state='succeeded'") == JOBS
    assert workers.count("attempts WHERE settled='charged'") == JOBS
    assert workers.count("jobs WHERE worker IS NOT NULL") == 0
    with workers.tables() as raw:
        total = raw.execute("SELECT sum(charged + reserved) FROM attempts").fetchone()
        assert raw.execute("SELECT committed FROM spent").fetchone() == total


def test_three_commands_share_a_job_file(tmp_path: Path) -> None:
    """Each does a part, all end with 0, and say the same at the end."""
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with a_simulator(tmp_path) as url, crew(tmp_path, url, shared_url()) as workers:
        for _ in range(3):
            workers.start()
        assert workers.end() == [0, 0, 0], workers.log(0)
        once_each(workers)
        assert all(f"succeeded    {JOBS}" in workers.log(n) for n in range(3)), workers.log(0)
        stores = workers.count("(SELECT DISTINCT store FROM assets) s")
        files = [len([*(tmp_path / f"out{n}" / "images").iterdir()]) for n in range(3)]
        assert sum(files) == JOBS
        assert stores == sum(count > 0 for count in files)


@pytest.mark.parametrize("seed", range(20 if LONG else 2))
def test_what_a_killed_worker_had_another_goes_on_with(tmp_path: Path, seed: int) -> None:
    """kill -9 of two of three workers in mid-run, one after the other."""
    rng = Random(seed)
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with a_simulator(tmp_path) as url, crew(tmp_path, url, shared_url()) as workers:
        for _ in range(3):
            workers.start()
        for n in range(2):
            workers.wait_for("attempts", rng.randint(4 + 16 * n, 16 + 16 * n))
            workers.processes[n].send_signal(signal.SIGKILL)
        code = workers.end()[2]
        sold = workers.bought()
        assert max(sold.values()) == 1
        assert workers.count("jobs WHERE state='succeeded'") == len(sold)
        # What was killed between its intent and its submit is not at the provider, and said so.
        unknown = workers.count("jobs WHERE state='unknown' AND attempt=1")
        assert (code, unknown) == (75 if unknown else 0, JOBS - len(sold)), workers.log(2)
        assert workers.count("jobs WHERE worker IS NOT NULL") == 0


def test_a_worker_that_was_stopped_for_longer_than_its_lease_buys_nothing_twice(
    tmp_path: Path,
) -> None:
    """SIGSTOP in mid-run until others have its jobs: what it finds out then is a fact for them."""
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with (
        a_simulator(tmp_path, "--faults", "slow=0.2") as url,
        crew(tmp_path, url, shared_url(), lease_s=3) as workers,
    ):
        for _ in range(2):
            workers.start()
        workers.wait_for("attempts", 10)
        stopped = workers.processes[0]
        stopped.send_signal(signal.SIGSTOP)
        workers.wait_for("(SELECT 1 WHERE NOT EXISTS(SELECT 1 FROM jobs WHERE worker=1)) none", 1)
        stopped.send_signal(signal.SIGCONT)
        assert workers.end() == [0, 0], workers.log(0) + workers.log(1)
        once_each(workers)


def test_the_database_killed_and_brought_back_costs_nothing(tmp_path: Path) -> None:
    """While answers are out: their ids are written when it is back, and the runs go on."""
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with (
        own_server() as server,
        a_simulator(tmp_path) as url,
        crew(tmp_path, url, server.url, lease_s=3) as workers,
    ):
        for _ in range(2):
            workers.start()
        workers.wait_for("attempts", 12)
        server.kill()
        server.start()
        assert workers.end() == [0, 0], workers.log(0) + workers.log(1)
        once_each(workers)


def test_a_worker_that_is_cut_off_from_the_ledger_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """For longer than its lease: the others have its jobs by then, and nothing is bought twice."""
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with (
        a_relay(shared_url()) as relay,
        a_simulator(tmp_path, "--speed", 8) as url,
        crew(tmp_path, url, shared_url(), lease_s=3) as workers,
    ):
        workers.start(ledger=relay.url)
        workers.wait_for("attempts", 8)
        workers.start()
        workers.wait_for("jobs WHERE worker=2", 1)
        relay.cut()
        workers.wait_for("(SELECT 1 WHERE NOT EXISTS(SELECT 1 FROM jobs WHERE worker=1)) none", 1)
        relay.mend()
        assert workers.end() == [0, 0], workers.log(0) + workers.log(1)
        once_each(workers)


def test_a_cap_is_kept_to_the_cent_at_every_sale(tmp_path: Path) -> None:
    """Four workers, money for half of the jobs: what was sold never costs more, at any moment."""
    half = f"max_cost: {Decimal(JOBS // 2) * Decimal('0.04')}\n"
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS, more=half), encoding="utf-8")
    with a_simulator(tmp_path) as url, crew(tmp_path, url, shared_url()) as workers:
        for _ in range(4):
            workers.start()
        assert workers.end() == [3] * 4, workers.log(0)
        assert "the budget of 1.20 USD is reached" in workers.log(0)
        sold, charged = server_books(tmp_path)
        assert (len(sold), charged) == (JOBS // 2, Decimal("1.20"))


def test_a_cap_holds_at_every_sale_with_many_in_flight(tmp_path: Path) -> None:
    """A tenth of the money is given back: four workers use all of it, and at no moment more.

    Looked at for each sale: what is charged by then, and what is in flight, as if all would be.
    """
    at_once = 500 if LONG else 80
    cap = at_once * Decimal("0.04")
    more = f"max_cost: {cap}\nwindow: fixed\n"
    text = job_file(at_once * 6 // 5, workers=at_once // 4, more=more)
    (tmp_path / "jobs.yaml").write_text(text, encoding="utf-8")
    slow = ("--speed", 0.25 if LONG else 2, "--faults", "failed=0.1")
    with a_simulator(tmp_path, *slow) as url, crew(tmp_path, url, shared_url()) as workers:
        for _ in range(4):
            workers.start()
        assert workers.end(within_s=250) == [3] * 4, workers.log(0)
    sold, charged = server_books(tmp_path)
    failed = [each for each in sold if each.outcome == "failed"]
    assert failed
    at_sales = [
        sum(each.price for each in sold if each.created_at <= sale.created_at)
        - sum(each.price for each in failed if each.ready_at <= sale.created_at)
        for sale in sold
    ]
    assert max(at_sales) == charged * 1_000_000 == cap * 1_000_000
    if LONG:
        assert most_at_once(sold) > 0.8 * at_once


def most_at_once(sold: Sequence[BookedPrediction]) -> int:
    """The most predictions in flight at a sale."""
    return max(
        sum(each.created_at <= sale.created_at < each.ready_at for each in sold) for sale in sold
    )


def test_another_job_file_waits_for_the_place(tmp_path: Path) -> None:
    """Exit 3 names who works there; alone it is taken."""
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with a_simulator(tmp_path, *SLOW) as url, crew(tmp_path, url, shared_url()) as workers:
        first = workers.start()
        workers.wait_for("attempts", 4)
        (tmp_path / "jobs.yaml").write_text(job_file(3), encoding="utf-8")
        assert workers.start().wait(100) == 3
        assert "works here on another job file" in workers.log(1)
        assert f"process {first.pid} on" in workers.log(1)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 143
        assert workers.count("jobs WHERE worker IS NOT NULL") == 0
        assert workers.start().wait(100) == 0, workers.log(2)


def test_status_tells_of_every_worker_and_hides_the_password(tmp_path: Path) -> None:
    """From a machine without the folder: lease, jobs in hand; then who ended without a word."""
    (tmp_path / "jobs.yaml").write_text(job_file(JOBS), encoding="utf-8")
    with a_simulator(tmp_path, *SLOW) as url, crew(tmp_path, url, shared_url()) as workers:
        first = workers.start()
        workers.wait_for("attempts", 4)
        asked = ("status", "elsewhere", "--place", workers.place, "--ledger", shared_url())
        (tmp_path / "b").mkdir()
        live = asyncpipe(*asked, cwd=tmp_path / "b")
        assert f"process {first.pid} on" in live.stdout, live.stdout + live.stderr
        assert "lease of" in live.stdout
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        document = json.loads(asyncpipe(*asked, "--json", cwd=tmp_path / "b").stdout)
        assert document["workers"][0]["jobs"] > 0
        told = asyncpipe(*asked, "--write-manifest", cwd=tmp_path / "b")
        assert told.returncode == 0, told.stderr
        written = json.loads((tmp_path / "b" / "elsewhere" / "manifest.json").read_text("utf-8"))
        assert written["total_jobs"] == JOBS
        wrong = "postgresql://me:geheim@127.0.0.1:9/x"
        refused = asyncpipe("status", "out0", "--ledger", wrong, cwd=tmp_path)
        assert refused.returncode != 0
        assert "geheim" not in refused.stdout + refused.stderr
