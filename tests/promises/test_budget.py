"""The budget holds: charged and reserved money never exceeds ``max_cost``, at any submit."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from asyncpipe import AtlasCloud, Deadlines, Job, Manifest, Pipeline, Polling
from asyncpipe.errors import BudgetReached, KeyRefused
from asyncpipe.jobs.events import now
from asyncpipe.pricing.budget import Budget, Fit
from asyncpipe.pricing.quotes import Quote
from asyncpipe.report.totals import Totals
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import job, opened

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
            window="fixed",
            downloads=32,
            max_cost=Decimal(cap),
            retries=1,
            polling=Polling(initial_s=0.9, factor=1.0),
            deadlines=Deadlines(image=60),
            seed=1,
        ) as pipeline:
            manifest = await pipeline.batch_generate(jobs)
            return manifest, pipeline.stopped, sampled, simulator.books.peak_in_flight()


def usd(manifest: Manifest) -> Decimal:
    return Decimal(manifest.totals.charged + manifest.totals.reserved).scaleb(-6)


def batch(count: int) -> list[Job]:
    models = list(MODELS)
    return [Job(name=f"杯 {n}", model=models[n % 3 == 2], prompt=f"mug {n}") for n in range(count)]


def test_500_in_flight_never_cost_a_cent_more_than_the_cap(tmp_path: Path) -> None:
    """Retries, failures and lost answers; the cap bites in mid-run; a raised one goes on."""
    jobs = batch(640)
    (tmp_path / "out").mkdir()
    manifest, stopped, sampled, peak = asyncio.run(one(tmp_path, jobs, "26.00"))
    assert sampled.above == []
    assert peak > WORKERS // 2
    assert isinstance(stopped, BudgetReached)
    assert sampled.most > Decimal(20)
    assert Decimal("25.9") < usd(manifest) <= 26
    left = manifest.totals.pending
    assert left > 0
    assert manifest.totals.unknown > 0
    manifest, stopped, sampled, _ = asyncio.run(one(tmp_path, jobs, "26.50"))
    assert (sampled.above, isinstance(stopped, BudgetReached)) == ([], True)
    assert 0 < manifest.totals.pending < left
    assert usd(manifest) <= Decimal("26.50")
    manifest, stopped, sampled, _ = asyncio.run(one(tmp_path, jobs, "99"))
    assert (stopped, manifest.totals.pending, sampled.above) == (None, 0, [])


def test_without_the_reservation_the_books_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test above can fail: only what is charged counts, not what may be."""

    def charged_only(self: Any, price: Any) -> Fit:
        left = self._cap - self._committed.charged - price.micro
        return Fit.NOW if left >= 0 else Fit.NEVER

    monkeypatch.setattr(Budget, "fit", charged_only)
    monkeypatch.setattr(Budget, "covers_holds", True)
    (tmp_path / "out").mkdir()
    _, _, sampled, _ = asyncio.run(one(tmp_path, batch(120), "2.00"))
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

    class Quoting(FakeProvider):
        async def quote(self, asked: Job) -> Quote:
            return Quote(amount=amount, asked_at=now())

    provider = Quoting()

    async def main() -> Totals:
        async with opened(tmp_path, provider, max_cost=Decimal("0.08")) as pipeline:
            return (await pipeline.batch_generate([job(f"{n}") for n in range(5)])).totals

    assert run_virtual(main()).charged == 80_000  # by the table


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
