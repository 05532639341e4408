"""kill -9 at random over chaos, with other providers than Atlas Cloud: nothing is paid twice.

The simulator, as that provider, is a server of its own that lives on; its books judge.
ASYNCPIPE_CHAOS=long kills 40 runs a case instead of three.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from tests.support.chaos import LONG, bought
from tests.support.command_line import a_simulator, server_books, write_jobs
from tests.support.crashes import killing
from tests.support.shops import Shop

KILLS = 40 if LONG else 3
FAULTS = "all=0.08,dropped=0.03,nameless=0.02,server_error_submit=0.02,hung_poll=0.02,slow=0.02"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A provider: its models, and the variable of its key."""

    name: str
    key: str
    models: tuple[str, ...]
    faults: str = ""


CASES = [
    Case(name="fal", key="FAL_KEY", models=("fal-ai/flux/dev", "workflows/me/mugs")),
    # What may be charged or not is left alone, whatever happens to the run.
    Case(
        name="fal",
        key="FAL_KEY",
        models=("fal-ai/flux/dev", "fal-ai/anybody/compute"),
        faults=",late_refusal=0.1,retried=0.5",
    ),
]


def jobs(case: Case, count: int) -> str:
    lines = [f"provider: {case.name}\nmax_workers: 12\nretries: 8\n"]
    lines.append("polling: {initial_s: 0.05, maximum_s: 0.2}\njobs:\n")
    for n in range(count):
        model = case.models[n % len(case.models)]
        lines.append(
            f"  - {{name: 杯 {n}, type: image, model: {model}, prompt: mug {n},"
            " params: {image_size: {width: 64, height: 64}}}\n"
        )
    return "".join(lines)


@killing
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}{case.faults}")
def test_killed_at_random_nothing_is_paid_twice_or_lost(tmp_path: Path, case: Case) -> None:
    """Every prediction that was delivered is somebody's, once; the rest is said to be unknown."""
    seed, count = CASES.index(case), 12 * KILLS
    rng = Random(seed)
    write_jobs(tmp_path / "jobs.yaml", jobs(case, count))
    faults = ("--faults", FAULTS + case.faults, "--seed", seed)
    with a_simulator(tmp_path, "--profile", case.name, *faults) as url:
        shop = Shop(home=tmp_path, url=url, key=case.key)
        for _ in range(KILLS):
            shop.kill_after(rng.choice([rng.uniform(0.7, 1.8), rng.uniform(1.5, 4.0)]))
        report = shop.run_to_the_end()
        sold, charged = server_books(tmp_path)
    kept = bought(sold)
    assert set(kept.values()) == {1}, "paid twice"
    assert (report["pending"], report["failed"]) == (0, 0)
    assert report["successful"] + report["unknown"] == count
    told = {row["prediction_id"] for row in report["results"] if row["status"] == "success"}
    told |= {name[::-1] for name in told}  # fal may list one by another id
    lost = [p for p in sold if p.outcome == "completed" and p.id not in told]
    assert lost == [], "paid for, and nobody has it"
    at_risk = sum(p.price for p in sold if p.outcome == "charged")
    assert Decimal(str(report["total_cost"])) + Decimal(at_risk).scaleb(-6) == charged
    if not case.faults:
        assert report["unknown"] == count - len(kept)
