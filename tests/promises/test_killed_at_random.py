"""kill -9 at random over chaos, on both wires, with and without a list of what was bought.

The simulator is a server of its own that lives on; its books judge. ASYNCPIPE_CHAOS=long kills 40
runs a case instead of four.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from tests.support.chaos import LONG, MODELS, bought
from tests.support.command_line import a_simulator, server_books, write_jobs
from tests.support.crashes import killing
from tests.support.shops import Shop
from tests.support.tables import tables

KILLS = 40 if LONG else 4
FAULTS = "all=0.1,dropped=0.03,rate_limited=0.02,overloaded=0.02,hung_poll=0.02,slow=0.02"
CASES = [
    ("canonical", True, "find"),
    ("article", True, "find"),
    ("canonical", True, "find-resubmit"),
    ("article", True, "find-resubmit"),
    ("article", False, "find"),
]


def jobs(count: int, *, more: int = 0) -> tuple[str, Counter[str]]:
    """A job file, and how often each prompt is wanted: a fifth are two of one body."""
    wanted: Counter[str] = Counter()
    lines = ["max_workers: 12\nretries: 8\npolling: {initial_s: 0.05, maximum_s: 0.2}\njobs:\n"]
    for n in range(count + more):
        prompt = f"mug {n - n % 2 if n % 10 < 2 and n < count else n}"
        wanted[prompt] += 1
        model = MODELS[n // 2 % 2]
        lines.append(
            f"  - {{name: 杯 {n}, model: {model}, prompt: {prompt}, width: 64, height: 64}}\n"
        )
    return "".join(lines), wanted


@killing
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("wire", "history", "ambiguous"), CASES)
def test_killed_at_random_beside_a_list_nothing_is_paid_twice_or_lost(
    tmp_path: Path, wire: str, history: bool, ambiguous: str
) -> None:
    """With a list every prediction that exists is adopted; what has a witness, bought for good."""
    seed = CASES.index((wire, history, ambiguous))
    rng, count = Random(seed), 12 * KILLS
    text, wanted = jobs(count)
    write_jobs(tmp_path / "jobs.yaml", text)
    faults = FAULTS if history else FAULTS + ",no_history=1"
    if ambiguous == "find-resubmit":
        faults += ",history_lag=0"  # it lasts longer than the 2 s that prove something absent
    with a_simulator(tmp_path, "--wire", wire, "--faults", faults, "--seed", seed) as url:
        shop = Shop(home=tmp_path, url=url, options=("--ambiguous", ambiguous))
        for _ in range(KILLS):
            shop.kill_after(rng.choice([rng.uniform(0.7, 1.8), rng.uniform(1.5, 4.0)]))
        report = shop.run_to_the_end()
        if ambiguous == "find-resubmit":
            # Some more jobs, later ones: the witnesses of all that were lost.
            text, wanted = jobs(count, more=8)
            write_jobs(tmp_path / "jobs.yaml", text)
            report = shop.run_to_the_end()
        sold, charged = server_books(tmp_path)
    kept = bought(sold)
    assert not {p: n for p, n in kept.items() if n > wanted[p]}, "paid twice"
    assert (report["pending"], report["failed"]) == (0, 0)
    told = {row["prediction_id"] for row in report["results"] if row["status"] == "success"}
    lost = [p for p in sold if p.outcome == "completed" and p.id not in told]
    cost = Decimal(str(report["total_cost"]))
    if history:
        assert (lost, cost) == ([], charged)
        assert report["unknown"] == sum((wanted - kept).values())
    else:
        assert cost + sum(Decimal(p.price).scaleb(-6) for p in lost) == charged
        assert len(lost) <= report["unknown"]
    if ambiguous == "find-resubmit":
        assert report["unknown"] <= lost_twice(tmp_path / "out")


def lost_twice(folder: Path) -> int:
    """Jobs that were submitted again already: that is done once."""
    with tables(folder) as connection:
        query = "SELECT count(DISTINCT job_id) FROM attempts WHERE settled='absent'"
        return int(connection.execute(query).fetchone()[0])


def test_the_jobs_of_these_tests_are_as_they_say() -> None:
    """Two of one body now and then, and no more."""
    _, wanted = jobs(50, more=2)
    assert Counter(wanted.values()) == {1: 42, 2: 5}
