"""When interim manifests are written."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from asyncpipe.engine.hooks import Hooks
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.tickets import StopReasons, Tickets
from asyncpipe.engine.watch import Watches
from asyncpipe.jobs.events import AssetStored, now
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.states import JobState
from asyncpipe.pricing.budget import Budget
from asyncpipe.report.manifest import manifest_due_s
from asyncpipe.report.totals import Totals
from asyncpipe.testing import run_virtual


@pytest.mark.parametrize(
    ("rows", "took_s", "due_s"), [(0, 0.0, 10.0), (10_000, 0.1, 10.0), (75_000, 0.0, 75.0),
                                  (10, 3.0, 150.0), (1_000_000, 15.0, 1000.0)],
)  # fmt: skip
def test_a_manifest_takes_two_percent_of_the_time_at_most(
    rows: int, took_s: float, due_s: float
) -> None:
    """The first one, too, whose duration nobody has measured."""
    assert manifest_due_s(rows, took_s) == pytest.approx(due_s)


class Written:
    """A ledger that takes everything."""

    def append(self, record: JobRecord, *, held: bool = False) -> None:
        assert record.version


def a_recorder(totals: Totals) -> Recorder:
    """One whose events go nowhere."""
    ledger: Any = Written()
    budget = Budget(None, totals, Tickets())
    return Recorder(
        ledger,
        totals,
        budget,
        StopReasons(asyncio.Event()),
        hooks=Hooks((), print),
        watches=Watches(),
    )


@pytest.mark.parametrize(("ended", "first_s"), [(500, 10.0), (30_000, 30.0)])
def test_the_first_manifest_comes_when_it_is_due(ended: int, first_s: float) -> None:
    """After 10 s in a run of ordinary size, later where it is long."""
    record = JobRecord(id=1, key="k", name="n", job=Job(model="m/text-to-image", prompt="x"))
    event = AssetStored(job_id=1, at=now(), index=0, path="images/n.png", size=1, sha256="0")

    async def main() -> list[float]:
        clock = asyncio.get_running_loop().time
        began, written = clock(), list[float]()

        async def write() -> None:
            written.append(clock() - began)

        totals = Totals(jobs=Counter({JobState.SUCCEEDED: ended}))
        recorder = a_recorder(totals)
        recorder.append(record, event)
        running = asyncio.create_task(recorder.keep_manifest(write), name="manifest")
        await asyncio.sleep(100.0)
        running.cancel()
        return written

    assert run_virtual(main()) == [pytest.approx(first_s)]


@pytest.mark.parametrize("begin_s", [25.4458609934608, 252.5864077938834, 505.28382057960044])
def test_what_rounding_leaves_is_not_waited_for_for_ever(begin_s: float) -> None:
    """A wait so short that the clock does not show it would be made again and again."""
    record = JobRecord(id=1, key="k", name="n", job=Job(model="m/text-to-image", prompt="x"))
    event = AssetStored(job_id=1, at=now(), index=0, path="images/n.png", size=1, sha256="0")

    async def main() -> int:
        count = 0

        async def write() -> None:
            nonlocal count
            count += 1

        recorder = a_recorder(Totals())
        running = asyncio.create_task(recorder.keep_manifest(write), name="manifest")
        await asyncio.sleep(begin_s)
        recorder.append(record, event)
        await asyncio.sleep(20.0)
        running.cancel()
        return count

    assert run_virtual(main()) == 1
