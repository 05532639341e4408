"""Budgets of labels and days, in runs and services: what fits, what waits, and who is told."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from datetime import datetime
from datetime import time as clock_time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Pipeline, Polling
from asyncpipe.errors import BudgetReached, SubmitUnknown
from asyncpipe.ledger import purses
from asyncpipe.pricing import SpendingLimits, from_micro
from asyncpipe.pricing.purses import Purses
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.clock import Clock
from tests.support.command_line import (
    a_simulator,
    asyncpipe,
    command,
    environment,
    manifest,
    server_books,
    submitted,
    write_jobs,
)
from tests.support.crashes import killing
from tests.support.pipelines import counts_agree, job, opened
from tests.support.postgres import shared_url

SPRING = "label:campaign=spring"


@pytest.fixture
def noon(one_clock: Clock) -> Clock:
    one_clock.set_noon()
    return one_clock


def of(campaign: str, count: int) -> list[Job]:
    return [job(f"{campaign}-{n}", labels={"campaign": campaign}) for n in range(count)]


def sold(provider: FakeProvider) -> dict[str, int]:
    return dict(Counter(name.partition("-")[0] for name in provider.sold))


def test_a_labels_jobs_stop_at_its_budget_and_others_go_on(tmp_path: Path) -> None:
    """What is left is pending, its reason named; with more money it goes on, in any process."""
    provider = FakeProvider()
    jobs = [each for two in zip(of("spring", 40), of("autumn", 40), strict=True) for each in two]

    async def run(usd: str) -> tuple[int, str]:
        async with opened(
            tmp_path, provider, budgets={SPRING: Decimal(usd)}, max_workers=4
        ) as pipeline:
            manifest = await pipeline.batch_generate(jobs)
            await counts_agree(pipeline)
            return manifest.totals.pending, str(pipeline.stopped)

    pending, stopped = run_virtual(run("0.41"))
    assert (pending, sold(provider)) == (30, {"spring": 10, "autumn": 40})
    assert "the budget of 0.41 USD for label:campaign=spring is reached: 0.40 are" in stopped
    pending, _ = run_virtual(run("0.79"))
    assert (pending, sold(provider)) == (21, {"spring": 19, "autumn": 40})
    assert run_virtual(run("99")) == (0, "None")
    assert sold(provider) == {"spring": 40, "autumn": 40}


def test_what_was_bought_before_it_had_the_label_counts(tmp_path: Path) -> None:
    """Labels are no part of a job: they may come, or change, with the next run."""
    provider = FakeProvider()
    plain = [job(f"spring-{n}") for n in range(8)]

    async def run(jobs: list[Job], **budgets: Any) -> int:
        async with opened(tmp_path, provider, **budgets) as pipeline:
            return (await pipeline.batch_generate(jobs)).totals.pending

    assert run_virtual(run(plain[:4])) == 0
    assert run_virtual(run(of("spring", 8), budgets={SPRING: Decimal("0.20")})) == 3
    assert run_virtual(run(of("spring", 8), budgets={SPRING: Decimal("0.28")})) == 1


def test_what_waits_for_its_labels_money_holds_nobody_up_and_goes_when_it_comes_back(
    tmp_path: Path,
) -> None:
    """Two failures give back what they had: two more go. Lost answers keep theirs."""
    failed = Script(end=PredictionStatus.FAILED, generation_s=250.0)
    lost = Script(submits=[SubmitUnknown("reset")])
    scripts = {"spring-0": failed, "spring-1": failed, "spring-2": lost}
    provider = FakeProvider(scripts=scripts)

    async def main() -> None:
        async with opened(
            tmp_path, provider, budgets={SPRING: Decimal("0.16")}, max_workers=8, retries=0
        ) as pipeline:
            manifest = await pipeline.batch_generate([*of("spring", 8), *of("autumn", 20)])
            totals = manifest.totals
            assert (totals.unknown, totals.failed, totals.pending) == (1, 2, 2)
            assert "label:campaign=spring" in str(pipeline.stopped)
            await counts_agree(pipeline)

    run_virtual(main())
    # 0, 1 and 3; then, when the first two had failed, 4 and 5; 2 was lost and may have been bought.
    assert sold(provider) == {"spring": 5, "autumn": 20}
    assert provider.sold.index("autumn-19") < provider.sold.index("spring-4")


def test_a_caller_is_told_which_budget_its_job_does_not_fit(tmp_path: Path) -> None:
    """It is withdrawn; whoever has no such label is served."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, budgets={SPRING: Decimal("0.05")}) as pipeline:
            one, two, other = *of("spring", 2), job("other")
            await pipeline.generate(one)
            with pytest.raises(BudgetReached, match=SPRING) as caught:
                await pipeline.generate(two)
            assert (caught.value.budget, pipeline.stopped) == (SPRING, None)
            assert (await pipeline.generate(other)).status == "success"
            assert pipeline.totals.pending == 0

    run_virtual(main())
    assert provider.sold == ["spring-0", "other"]


def test_a_days_budget_ends_a_run_and_the_next_day_has_another(tmp_path: Path, noon: Clock) -> None:
    """As max_cost does; what is charged the day after counts on the day of its submit."""
    provider = FakeProvider()

    async def run() -> tuple[int, str]:
        async with opened(tmp_path, provider, budgets={"day": Decimal("0.09")}) as pipeline:
            manifest = await pipeline.batch_generate(of("spring", 5))
            return manifest.totals.pending, str(pipeline.stopped)

    async def night() -> None:
        await asyncio.sleep(86_400)

    for left in (3, 1, 0):
        for _ in range(2):  # the same day once more: nothing
            pending, stopped = noon.run(run())
            assert (pending, "(UTC) is reached" in stopped) == (left, left > 0)
        noon.run(night())
    assert len(provider.sold) == 5


def test_told_to_wait_a_run_goes_on_the_next_day_by_itself(tmp_path: Path, noon: Clock) -> None:
    """Day after day, until all is done."""
    provider = FakeProvider()
    times = list[datetime]()

    async def main() -> None:
        async with opened(
            tmp_path, provider, budgets={"day": Decimal("0.09")}, wait_for_day=True
        ) as pipeline:
            began = noon.time()
            manifest = await pipeline.batch_generate(of("spring", 5))
            assert (manifest.totals.pending, pipeline.stopped) == (0, None)
            times.extend(r.submitted_at for r in manifest if r.submitted_at)
            assert 86_400 < noon.time() - began <= 2 * 86_400 + 60

    noon.run(main())
    days = sorted({at.date() for at in times})
    assert [sum(at.date() == day for at in times) for day in days] == [2, 2, 1]
    for day in days[1:]:  # as soon as there is money
        assert min(at for at in times if at.date() == day).time() < clock_time(0, 0, 5)


def test_a_service_goes_on_by_itself_the_next_day(tmp_path: Path, noon: Clock) -> None:
    """A caller that comes today is refused, one that comes tomorrow is served; one may wait."""
    provider = FakeProvider()

    async def main(wait: bool) -> None:
        async with opened(
            tmp_path, provider, budgets={"day": Decimal("0.04")}, wait_for_day=wait
        ) as pipeline:
            one, two = of(f"day{wait}", 2)
            await pipeline.generate(one)
            if not wait:
                with pytest.raises(BudgetReached, match="wait_for_day"):
                    await pipeline.generate(two)
                await asyncio.sleep(86_400)
            assert (await pipeline.generate(two)).status == "success"
            await asyncio.sleep(86_400)

    noon.run(main(False))
    noon.run(main(True))
    assert len(provider.sold) == 4


def test_an_accepted_job_waits_for_the_day_that_has_money_for_it(
    tmp_path: Path, noon: Clock
) -> None:
    """It will be done, that was promised; health says what it waits for. So after a restart."""
    provider = FakeProvider()
    one, two = of("spring", 2)

    async def accept() -> None:
        async with opened(tmp_path, provider, budgets={"day": Decimal("0.04")}) as pipeline:
            await (await pipeline.submit(one)).wait()
            await pipeline.submit(two)
            await asyncio.sleep(60)
            assert pipeline.health().status == "waiting"
            assert "(UTC) has no room" in str(pipeline.health().why)

    async def go_on() -> None:
        async with opened(tmp_path, provider, budgets={"day": Decimal("0.04")}) as pipeline:
            handle = await pipeline.get(two.name)
            assert handle is not None
            assert (await handle.wait()).status == "success"
            assert pipeline.health().ok

    noon.run(accept())
    noon.run(go_on())
    assert provider.sold == ["spring-0", "spring-1"]


def test_two_workers_share_a_labels_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than the lower of their two, though neither knows of what the other has spent.

    As if no look had come yet: each intent is weighed in its own transaction.
    """
    monkeypatch.setattr("asyncpipe.engine.sharing.LOOK_S", 0.2)
    standing, full, refused = purses.standing, Purses.full, list[Job]()

    def hear(self: Purses, job: Job) -> None:
        refused.append(job)
        full(self, job)

    def blind(*asked: Any) -> dict[str, tuple[int, int, int]]:
        told = standing(*asked)
        return told if len(refused) > 2 else {name: (cap, 0, 0) for name, (cap, *_) in told.items()}

    monkeypatch.setattr(purses, "standing", blind)
    monkeypatch.setattr(Purses, "full", hear)
    provider = FakeProvider(default=Script(generation_s=0.2, submit_s=0.02))
    jobs = [*of("spring", 24), *of("autumn", 4)]

    def worker(name: str, usd: str) -> Pipeline:
        return Pipeline(
            provider,
            tmp_path / name,
            ledger={"url": shared_url(), "place": str(tmp_path)},
            spending=SpendingLimits(budgets={SPRING: Decimal(usd)}),
            polling=Polling(initial_s=0.05, maximum_s=0.1),
            max_workers=16,
            storage={"min_free_bytes": 0},
        )

    async def main() -> None:
        async with worker("a", "0.29") as one, worker("b", "9") as other:
            ends = await asyncio.gather(
                *(each.batch_generate(jobs, digest="the same jobs") for each in (one, other))
            )
            assert [each.totals.pending for each in ends] == [17, 17]
            for each in (one, other):
                assert "0.29 USD for label:campaign=spring is reached" in str(each.stopped)

    asyncio.run(main())
    assert sold(provider) == {"spring": 7, "autumn": 4}


FILE = """
output_dir: out
max_workers: 6
polling: {initial_s: 0.05, maximum_s: 0.2}
budgets: {"label:campaign=spring": 0.29, day: 100}
defaults: {model: black-forest-labs/flux-2-pro/text-to-image, params: {width: 64, height: 64}}
jobs:
"""


@killing
def test_killed_runs_never_spend_more_than_a_labels_budget(tmp_path: Path) -> None:
    """By the simulator's books, lost answers and all; what is left stays pending, with exit 3."""
    lines = [
        f"  - {{name: {campaign}-{n}, prompt: {campaign} {n}, labels: {{campaign: {campaign}}}}}\n"
        for n in range(12)
        for campaign in ("spring", "autumn")
    ]
    write_jobs(tmp_path / "jobs.yaml", FILE + "".join(lines))

    def spring() -> Decimal:
        booked, _ = server_books(tmp_path)
        kept = [each for each in booked if each.outcome in ("completed", "charged")]
        return from_micro(sum(e.price for e in kept if e.body["prompt"].startswith("spring")))

    with a_simulator(tmp_path, "--faults", "failed=0.2,dropped=0.1") as url:
        arguments = (
            "run",
            "jobs.yaml",
            "--base-url",
            url,
            "--yes",
            "--min-free",
            0,
            "--search-s",
            2,
        )
        for enough in (3, 6):
            variables = environment(ATLASCLOUD_API_KEY="apikey-1")
            run = subprocess.Popen(command(*arguments), cwd=tmp_path, env=variables)
            while submitted(tmp_path / "out") < enough:
                time.sleep(0.02)
            run.kill()
            run.wait(60)
            assert spring() <= Decimal("0.29")
        done = asyncpipe(*arguments, cwd=tmp_path, ATLASCLOUD_API_KEY="apikey-1")
        assert done.returncode == 3, done.stderr
        assert "for label:campaign=spring is" in done.stdout, done.stdout
        assert Decimal("0.12") <= spring() <= Decimal("0.29")
        states = Counter(row["name"].split("-")[0] for row in manifest(tmp_path / "out")["results"])
        assert states["autumn"] == 12
