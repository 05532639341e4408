"""About how long a run takes yet: a guess where there is ground for one, else nothing."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import anyio
import pytest

from asyncpipe import Job, Pipeline
from asyncpipe.commands.estimate import Costs
from asyncpipe.flow.learned import Latency
from asyncpipe.jobs.events import now
from asyncpipe.jobs.settings import Limits
from asyncpipe.ledger.rows import OpenWork
from asyncpipe.pricing.price import Price
from asyncpipe.report.eta import FEWEST, about, left_s
from asyncpipe.report.progress import BEAT_S, Progress
from asyncpipe.report.status import read_status, status_document, status_lines
from asyncpipe.testing import FakeProvider, Script, run_virtual

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3/text-to-video"
KNOWN = {FLUX: Latency(10.0, 20.0, 12.0), VEO: Latency(60.0, 120.0, 80.0)}


def guess(
    listed: dict[str, int], under_way: list[tuple[str, float]], waiting: int | None = None
) -> float | None:
    at = now()
    submits = [(model, (at - timedelta(seconds=age)).isoformat()) for model, age in under_way]
    jobs = OpenWork(waiting=listed, under_way=tuple(submits))
    waiting = sum(listed.values()) if waiting is None else waiting
    return left_s(jobs, waiting, KNOWN.get, len(under_way), at=at)


def test_those_that_wait_share_the_slots() -> None:
    """At the mean of their models, and then the last ones have to end."""
    assert guess({FLUX: 100}, [(FLUX, 5.0)] * 10) == 100 * 12.0 / 10 + 20.0
    mixed = guess({FLUX: 50, VEO: 50}, [(VEO, 0.0)] * 10)
    assert mixed == 50 * (12.0 + 80.0) / 10 + 120.0


def test_jobs_that_are_no_longer_wanted_do_not_count() -> None:
    """The ledger lists 100; of those 40 are still in the job file."""
    assert guess({FLUX: 100}, [(FLUX, 5.0)] * 10, waiting=40) == 40 * 12.0 / 10 + 20.0


def test_the_last_ones_get_nearer_their_end() -> None:
    """By the slowest of them; once all are overdue nothing is said."""
    assert guess({}, [(FLUX, 15.0), (VEO, 90.0)]) == 30.0
    assert guess({}, [(FLUX, 15.0), (VEO, 121.0)]) == 5.0
    assert guess({}, [(FLUX, 21.0)]) is None


def test_nothing_is_said_where_nothing_is_known() -> None:
    """Not of a model nobody has seen end, not without any slot, not of an empty folder."""
    assert guess({FLUX: 5, "new/one": 1}, [(FLUX, 0.0)]) is None
    assert guess({}, [(FLUX, 0.0), ("new/one", 0.0)]) is None
    assert guess({FLUX: 5}, []) is None
    assert guess({}, []) is None
    assert guess({"new/one": 3}, [(FLUX, 5.0)], waiting=0) == 15.0, "gone from the job file"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "less than a minute"),
        (59.9, "less than a minute"),
        (60.0, "about 1 min"),
        (560.0, "about 9 min"),
        (760.0, "about 15 min"),
        (5_380.0, "about 90 min"),
        (5_400.0, "about 1.5 h"),
        (36_500.0, "about 10 h"),
    ],
)
def test_a_guess_is_written_as_one(seconds: float, text: str) -> None:
    """No seconds where minutes are uncertain."""
    assert about(seconds) == text


def test_progress_and_status_say_it_while_a_run_goes_on(tmp_path: Path) -> None:
    """Nothing at first; then a guess that shrinks; status by what the folder has seen."""
    lines: list[str] = []
    seen: list[tuple[float, float | None]] = []
    progress = Progress(lines.append)

    async def main() -> float:
        provider = FakeProvider(default=Script(generation_s=60.0))
        clock = asyncio.get_running_loop().time
        jobs = [Job(name=f"job {n}", model=FLUX, prompt="p") for n in range(80)]
        async with (
            Pipeline(
                provider,
                tmp_path,
                max_workers=4,
                on_event=progress,
                limits=Limits(window="fixed"),
                storage={"min_free_bytes": 0},
            ) as pipeline,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(progress.beat, pipeline)
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
            while not batch.done():
                seen.append((clock(), read_status(tmp_path).left_s))
                if seen[-1][1] is not None and "in it since" not in "".join(lines):
                    lines.extend(status_lines(read_status(tmp_path)))
                    assert status_document(read_status(tmp_path))["left_s"]
                await anyio.sleep(BEAT_S)
            tasks.cancel_scope.cancel()
        return clock()

    end = run_virtual(main())
    totals = [line for line in lines if "in flight" in line]
    assert "left" not in totals[0]
    guesses = [line for line in totals if re.search(r"; about \d+ min left$", line)]
    assert len(guesses) > 20
    assert re.search(r"in it since .*; about \d+ min left$", "\n".join(lines), re.MULTILINE)
    assert [left for _, left in seen if left is None], "nothing at first"
    early, left = next((at, left) for at, left in seen if left is not None)
    assert early + left == pytest.approx(end, rel=0.25)
    assert read_status(tmp_path).left_s is None, "nobody works in it"


def test_status_says_nothing_of_a_few(tmp_path: Path) -> None:
    """Fewer than five ends tell too little."""

    async def main() -> float | None:
        scripts = {f"job {n}": Script(generation_s=1.0) for n in range(FEWEST - 1)}
        provider = FakeProvider(scripts=scripts, default=Script(generation_s=200.0))
        jobs = [Job(name=f"job {n}", model=FLUX, prompt="p") for n in range(FEWEST)]
        async with Pipeline(
            provider, tmp_path, max_workers=9, storage={"min_free_bytes": 0}
        ) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
            await anyio.sleep(100.0)
            assert pipeline.totals.successful == FEWEST - 1
            left = read_status(tmp_path).left_s
            await batch
            return left

    assert run_virtual(main()) is None


def test_an_estimate_goes_by_what_was_measured() -> None:
    """Where it was; and it says for how many jobs it was not."""
    price = Price(amount=Decimal("0.04"), micro=40_000, source="table")
    measured, mixed, stated = (
        Costs(lambda model, params: KNOWN.get(model)),
        Costs(lambda model, params: KNOWN.get(model)),
        Costs(),
    )
    flux, other = (Job(model=m, prompt="p") for m in (FLUX, "new/one/text-to-image"))
    for costs in (measured, mixed, stated):
        costs.add(flux, price)
    mixed.add(other, price)
    assert measured.duration_s(1) == (10.0, 20.0)
    assert measured.document(1)["duration_s"]["by"] == "times that earlier runs measured"
    assert "for 1 jobs by the times stated for such models" in " ".join(mixed.remarks(1))
    assert stated.document(1)["duration_s"]["by"] == "times stated for such models"


def test_nothing_is_left_where_nobody_works(tmp_path: Path) -> None:
    """An interrupted run ends when somebody goes on with it, whenever that may be."""

    async def main() -> None:
        provider = FakeProvider(default=Script(generation_s=10.0))
        jobs = [Job(name=f"job {n}", model=FLUX, prompt="p") for n in range(80)]
        async with Pipeline(
            provider, tmp_path, max_workers=4, storage={"min_free_bytes": 0}
        ) as pipeline:
            await asyncio.wait_for(pipeline.batch_generate(jobs), 100.0)

    with pytest.raises(TimeoutError):
        run_virtual(main())
    status = read_status(tmp_path)
    assert status.counts["pending"] > 20
    assert status.counts["succeeded"] > FEWEST
    assert status.left_s is None
