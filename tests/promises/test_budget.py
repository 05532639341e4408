"""The budget holds: charged and reserved money never exceeds ``max_cost``, at any submit."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpipe import AtlasCloud, Deadlines, Job, JobState, Manifest, Pipeline, Polling, Rate
from asyncpipe.errors import (
    BudgetReached,
    KeyRefused,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.jobs.events import now
from asyncpipe.jobs.settings import Limits
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.pricing.budget import Budget, Fit, Hold
from asyncpipe.pricing.money import from_micro
from asyncpipe.pricing.price import Price
from asyncpipe.pricing.quotes import Quote
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report.totals import Totals
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.clock import Clock
from tests.support.pipelines import a_pipeline, job, opened

FLUX, FAILED = "black-forest-labs/flux-2-pro/text-to-image", PredictionStatus.FAILED
STEPS = ["admit", "intend", "end", "fail", "charge", "drop", "overcharge"]

MODELS = {
    "black-forest-labs/flux-2-pro/text-to-image": Decimal("0.04"),
    "google/imagen4-ultra/text-to-image": Decimal("0.06"),
}
WORKERS = 500
FAULTS = Faults(failed=0.1, moderated=0.03, dropped=0.02, instant=0.05)


class Sampled:
    """Reads the books after every sale: what is charged there and not returned."""

    def __init__(self, simulator: Simulator, cap: Decimal) -> None:
        self.most = Decimal(0)
        self.above: list[Decimal] = []
        self._books, self._cap = simulator.books, cap
        self._sell = simulator.books.sell
        simulator.books.sell = self.sell  # type: ignore[method-assign]

    def sell(self, prediction: BookedPrediction) -> None:
        self._sell(prediction)
        charged = self._books.charged()
        self.most = max(self.most, charged)
        if charged > self._cap:
            self.above.append(charged)


async def one(
    folder: Path, jobs: list[Job], cap: str
) -> tuple[Manifest, Exception | None, Sampled, int]:
    settings = SimulatorSettings(
        speed=1, generation_s=(1.2, 1.8), body_bytes=64, faults=FAULTS, books=folder / "books"
    )
    async with Simulator(settings) as simulator:
        sampled = Sampled(simulator, Decimal(cap))
        provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
        async with Pipeline(
            provider,
            folder / "out",
            max_workers=WORKERS,
            polling=Polling(initial_s=0.9, factor=1.0),
            deadlines=Deadlines(image=60),
            seed=1,
            spending=SpendingLimits(max_cost=Decimal(cap)),
            limits=Limits(window="fixed", downloads=32),
            recovery={"retries": 1, "ambiguous": "hold"},
        ) as pipeline:
            manifest = await pipeline.batch_generate(jobs)
            return manifest, pipeline.stopped, sampled, simulator.books.peak_in_flight()


def usd(manifest: Manifest) -> Decimal:
    return Decimal(manifest.totals.charged_micro + manifest.totals.reserved_micro).scaleb(-6)


def batch(count: int) -> list[Job]:
    models = list(MODELS)
    return [Job(name=f"杯 {n}", model=models[n % 3 == 2], prompt=f"mug {n}") for n in range(count)]


def test_500_in_flight_never_cost_a_cent_more_than_the_cap(
    tmp_path: Path, one_clock: Clock
) -> None:
    """Retries, failures and lost answers; the cap bites in mid-run; a raised one goes on."""
    jobs = batch(640)
    (tmp_path / "out").mkdir()
    manifest, stopped, sampled, peak = one_clock.run(one(tmp_path, jobs, "26.00"))
    assert sampled.above == []
    assert peak > WORKERS // 2
    assert isinstance(stopped, BudgetReached)
    assert sampled.most > Decimal(20)
    assert Decimal("25.9") < usd(manifest) <= 26
    left = manifest.totals.pending
    assert left > 0
    assert manifest.totals.unknown > 0
    manifest, stopped, sampled, _ = one_clock.run(one(tmp_path, jobs, "26.50"))
    assert (sampled.above, isinstance(stopped, BudgetReached)) == ([], True)
    assert 0 < manifest.totals.pending < left
    assert usd(manifest) <= Decimal("26.50")
    manifest, stopped, sampled, _ = one_clock.run(one(tmp_path, jobs, "99"))
    assert (stopped, manifest.totals.pending, sampled.above) == (None, 0, [])


def test_without_the_reservation_the_books_show_it(
    tmp_path: Path, one_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test above can fail: only what is charged counts, not what may be."""

    def charged_only(self: Any, price: Any) -> Fit:
        left = self._cap - self._committed.charged_micro - price.micro
        return Fit.NOW if left >= 0 else Fit.NEVER

    monkeypatch.setattr(Budget, "_fit", charged_only)
    monkeypatch.setattr(Budget, "covers_holds", True)
    (tmp_path / "out").mkdir()
    _, _, sampled, _ = one_clock.run(one(tmp_path, batch(120), "2.00"))
    assert sampled.above


def test_a_job_is_refused_for_money_that_nobody_polls_for(tmp_path: Path) -> None:
    """The key was refused while polling; its caller waited for ever for that job's money."""
    scripts = {"a": Script(polls=[KeyRefused("401")], generation_s=50)}
    provider = FakeProvider(scripts=scripts)

    async def main() -> None:
        async with opened(tmp_path, provider, max_cost=Decimal("0.04")) as pipeline:
            await pipeline.generate(job("a"))
            with pytest.raises(BudgetReached):
                await asyncio.wait_for(pipeline.generate(job("b")), 1_000_000)
            assert (await pipeline.generate(job("a"))).status == "success"
            assert pipeline._parts().tickets.releasable() == 0

    run_virtual(main())
    assert provider.sold == ["a"]


@pytest.mark.parametrize("amount", [Decimal(-1), Decimal("NaN"), Decimal("1e30"), Decimal(0), 0.04])
def test_a_quote_of_nonsense_holds_no_budget_and_ends_no_run(tmp_path: Path, amount: Any) -> None:
    """Below nothing it let jobs go beyond the cap; what is no number ended everybody's run."""

    class Quotes(FakeProvider):
        async def quote(self, asked: Job) -> Quote:
            return Quote(amount=amount, asked_at=now())

    provider = Quotes()

    async def main() -> Totals:
        async with opened(tmp_path, provider, max_cost=Decimal("0.08")) as pipeline:
            return (await pipeline.batch_generate([job(f"{n}") for n in range(5)])).totals

    assert run_virtual(main()).charged == Decimal("0.08")  # by the table


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("sNaN"), None])
def test_a_balance_of_nonsense_ends_no_run(tmp_path: Path, amount: Any) -> None:
    """It cannot be compared, and says nothing of the money."""

    class Telling(FakeProvider):
        async def balance(self) -> Decimal:
            return cast("Decimal", amount)

    async def main() -> Totals:
        async with opened(tmp_path, Telling(), min_balance=Decimal(1)) as pipeline:
            return (await pipeline.batch_generate([job("a")])).totals

    assert run_virtual(main()).successful == 1


def priced(micro: int, margin: int = 0) -> Price:
    return Price(
        amount=from_micro(micro),
        micro=micro,
        source="test",
        estimated=margin > 0,
        margin=margin,
    )


@dataclass
class Books:
    """What is charged and reserved."""

    charged_micro: int = 0
    reserved_micro: int = 0


class Flying(list[Price]):
    """Predictions in flight."""

    def releasable(self) -> int:
        return sum(price.to_reserve for price in self)

    def unanswered(self) -> int:
        return 0


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    cap=st.integers(0, 1000),
    before=st.sampled_from([0, 0, 100, 700, 1500]),
    steps=st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 300), st.sampled_from([0, 0, 10, 75])),
        max_size=60,
    ),
)
def test_no_order_of_events_leaks(cap: int, before: int, steps: list[tuple[str, int, int]]) -> None:
    """Held, reserved and charged together never exceed the cap, and NEVER means never.

    Margins are reserved, and come back when the price is charged. Only what a provider charges
    beyond what was reserved goes above the cap, by that much, and a cap that was lowered below what
    earlier runs were charged (``before``): then nothing fits any more.
    """
    books, flying = Books(charged_micro=before), Flying()
    budget, gone = Budget(cap, books, flying), before
    held, overrun = list[Hold](), 0
    for what, amount, margin in steps:
        asked = priced(amount, margin)
        fit = budget.fit(asked)
        promised = sum(p.to_reserve for p in [*(h.price for h in held), *flying]) + gone
        assert (fit is Fit.NOW) == (promised + asked.to_reserve <= cap)
        assert (fit is Fit.NEVER) == (gone + asked.to_reserve > cap)
        if what == "admit" and fit is Fit.NOW:
            held.append(budget.hold(asked))
        elif what in ("intend", "drop") and held:
            if what == "intend" and not budget.covers_holds:
                continue  # the engine puts it back
            hold = held.pop(0)
            hold.end()
            hold.end()  # twice is the same as once
            if what == "intend":
                flying.append(hold.price)
                books.reserved_micro += hold.price.to_reserve
        elif what in ("fail", "charge", "end", "overcharge") and flying:
            taken = flying.pop(0)
            cost = 0 if what == "fail" else taken.micro
            cost = taken.to_reserve + amount if what == "overcharge" else cost
            overrun += max(cost - taken.to_reserve, 0)
            gone += cost
            books.reserved_micro -= taken.to_reserve
            books.charged_micro += cost
        committed = sum(p.to_reserve for p in flying) + gone
        assert budget.committed == committed <= max(cap, before) + overrun
        assert budget.exceeded == (committed > cap)
        assert budget.covers_holds == (committed + sum(h.price.to_reserve for h in held) <= cap)


class Watching(FakeProvider):
    """Reads the ledger at every submit, as another process would: never more than the cap."""

    path: Path
    cap: int
    most: int = 0

    async def submit(self, job: Job) -> Prediction:
        with sqlite3.connect(self.path) as other:
            query = "SELECT total(charged)+total(reserved) FROM attempts"
            committed = int(other.execute(query).fetchone()[0])
        other.close()
        self.most = max(self.most, committed)
        assert committed <= self.cap, f"{committed} of {self.cap}"
        return await super().submit(job)


def script(rng: Random) -> Script:
    refusals: list[ProviderError] = [RateLimited("429"), SubmitUnknown("reset"), Rejected("400")]
    return Script(
        submits=rng.choices(refusals, k=rng.choice([0, 0, 0, 0, 1])),
        generation_s=rng.choice([0.0, 5.0, 60.0]),
        submit_s=rng.choice([0.0, 0.5]),
        end=rng.choice([PredictionStatus.COMPLETED, PredictionStatus.COMPLETED, FAILED]),
        error="gpu",
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_cap_holds_over_runs_retries_and_lost_answers(tmp_path: Path, seed: int) -> None:
    """With 64 at once, cut short and raised in between; what fits at the end is bought."""
    rng = Random(seed)
    models = [f"m/{n}/text-to-image" for n in range(3)]
    prices = {
        m: Rate(per_image=Decimal(c)) for m, c in zip(models, ["0.03", "0.05", "0.11"], strict=True)
    }
    jobs = [Job(name=f"杯 {n}", model=rng.choice(models), prompt="x") for n in range(120)]
    provider = Watching(scripts={str(job.name): script(rng) for job in jobs})
    provider.path = ledger_path(tmp_path)

    async def one(cap: str, limit_s: float) -> None:
        provider.cap = int(Decimal(cap) * 1_000_000)
        options: dict[str, Any] = {"prices": prices, "max_cost": Decimal(cap), "retries": 2}
        async with a_pipeline(provider, tmp_path, max_workers=64, **options) as pipeline:
            try:
                await asyncio.wait_for(pipeline.batch_generate(jobs), limit_s)
            except TimeoutError:
                return
            totals = pipeline.totals
            assert totals.charged_micro + totals.reserved_micro <= provider.cap
            committed = pipeline._parts(ever=True).spending.budget.committed
            assert committed == totals.charged_micro + totals.reserved_micro
            if totals.jobs[JobState.PENDING]:
                assert isinstance(pipeline.stopped, BudgetReached)
                assert provider.cap - committed < 110_000

    for cap, limit_s in (("0.50", 40.0), ("0.50", 1e6), ("1.17", 20.0), ("1.17", 1e6), ("99", 1e6)):
        for made in provider._made.values():
            made.ready = 0.0
        run_virtual(one(cap, limit_s))
    assert provider.most > 1_170_000


def run(folder: Path, provider: FakeProvider, cap: str, count: int = 10) -> tuple[Manifest, Any]:
    async def main() -> tuple[Manifest, Any]:
        async with Pipeline(
            provider, folder, max_workers=4, seed=1, spending=SpendingLimits(max_cost=Decimal(cap))
        ) as pipeline:
            batch = [Job(name=f"杯 {n}", model=FLUX, prompt="x") for n in range(count)]
            return await pipeline.batch_generate(batch), pipeline.stopped

    return run_virtual(main())


def test_raising_the_cap_goes_on(tmp_path: Path) -> None:
    """Exactly to the cent, then the rest; the reason names the figures and the remedy."""
    provider = FakeProvider()
    manifest, stopped = run(tmp_path, provider, "0.20")
    assert (manifest.totals.successful, manifest.totals.pending) == (5, 5)
    assert isinstance(stopped, BudgetReached)
    assert "0.2" in str(stopped)
    assert "--max-cost" in str(stopped)
    manifest, stopped = run(tmp_path, provider, "0.2399")
    assert (manifest.totals.successful, isinstance(stopped, BudgetReached)) == (5, True)
    manifest, stopped = run(tmp_path, provider, "0.40")
    assert (manifest.totals.successful, stopped, len(provider.sold)) == (10, None, 10)


def test_a_job_waits_for_money_that_may_come_back(tmp_path: Path) -> None:
    """One that fails gives its money to one that waits, instead of leaving that out."""
    scripts = {"杯 0": Script(generation_s=200.0, end=FAILED, moderated=True, error="no")}
    manifest, stopped = run(tmp_path, FakeProvider(scripts=scripts), "0.08", count=3)
    assert (manifest.totals.failed, manifest.totals.successful) == (1, 2)
    assert stopped is None


def test_lost_answers_count_against_the_cap(tmp_path: Path) -> None:
    """They may have been bought."""
    provider = FakeProvider(scripts={"杯 0": Script(submits=[SubmitUnknown("reset")])})
    manifest, stopped = run(tmp_path, provider, "0.08", count=3)
    assert (manifest.totals.unknown, manifest.totals.successful) == (1, 1)
    assert isinstance(stopped, BudgetReached)


def test_a_caller_is_told_that_the_budget_is_reached(tmp_path: Path) -> None:
    """Not left waiting; a later, cheaper job may still go."""

    async def main() -> None:
        prices = {"m/x/text-to-image": Rate(per_image=Decimal("0.01"))}
        async with Pipeline(
            FakeProvider(),
            tmp_path,
            spending=SpendingLimits(max_cost=Decimal("0.05"), prices=prices),
        ) as pipeline:
            for n in range(2):
                call = pipeline.generate(Job(name=f"{n}", model=FLUX, prompt="x"))
                if n == 0:
                    assert (await call).status == "success"
                    continue
                with pytest.raises(BudgetReached):
                    await call
            cheap = await pipeline.generate(Job(name="c", model="m/x/text-to-image", prompt="x"))
            assert cheap.status == "success"

    run_virtual(main())
