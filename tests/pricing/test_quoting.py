"""Asking for quotes: once per price key, bounded, lazily, and without them if need be."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Manifest, Pipeline, UsageError
from asyncpipe.errors import (
    AsyncpipeError,
    BudgetReached,
    KeyRefused,
    ProviderError,
    RateLimited,
    Rejected,
)
from asyncpipe.jobs.events import Intended
from asyncpipe.jobs.record import JobRecord
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.pricing import PriceBook
from asyncpipe.pricing.quotes import Quote, price_key
from asyncpipe.pricing.quoting import (
    AGAIN_S,
    AT_ONCE,
    FILL_S,
    FRESH_S,
    QUOTE_S,
    SLOW_S,
    Quotes,
)
from asyncpipe.providers import known_prices
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import a_pipeline

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
NEW = "new/model/text-to-image"
AT = datetime(2026, 11, 25, tzinfo=UTC)


def quote(usd: str, *, estimated: bool = False) -> Quote:
    return Quote(amount=Decimal(usd), asked_at=AT, estimated=estimated)


@dataclass(kw_only=True)
class Quoter(FakeProvider):
    """A fake provider that quotes: the answers in turn, the last one for ever."""

    price_book: PriceBook | None = field(default_factory=partial(known_prices, simulated=True))
    answers: Sequence[Quote | Exception] = (quote("0.05"),)
    quote_s: float = 0.0
    quoted: list[Job] = field(default_factory=list)
    asking: int = 0
    peak: int = 0

    async def quote(self, job: Job) -> Quote:
        self.quoted.append(job)
        answer = self.answers[min(len(self.quoted), len(self.answers)) - 1]
        self.asking += 1
        self.peak = max(self.peak, self.asking)
        try:
            await asyncio.sleep(self.quote_s)
        finally:
            self.asking -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def jobs(count: int, *, model: str = FLUX, sizes: int = 1) -> list[Job]:
    return [
        Job(
            name=f"杯子 {n}",
            model=model,
            prompt=f"mug {n}",
            params={"seed": n, "width": 100 + n % sizes},
        )
        for n in range(count)
    ]


def ask(
    provider: Quoter, wanted: Sequence[Job], *, rounds: Callable[[Quotes], Any] | None = None
) -> tuple[Quotes, list[str], float]:
    told: list[str] = []

    async def main() -> tuple[Quotes, list[str], float]:
        quoting = Quotes(provider, tell=told.append)
        for job in wanted:
            quoting.want(job)
        await quoting.fill()
        if rounds is not None:
            await rounds(quoting)
        return quoting, told, asyncio.get_running_loop().time()

    return run_virtual(main())


def run_batch(
    folder: Path, provider: FakeProvider, wanted: Sequence[Job], **options: Any
) -> tuple[Manifest, AsyncpipeError | None]:
    async def main() -> tuple[Manifest, AsyncpipeError | None]:
        async with a_pipeline(provider, folder, seed=1, **options) as pipeline:
            manifest = await pipeline.batch_generate(wanted)
            return manifest, pipeline.stopped

    return run_virtual(main())


def attempts(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(ledger_path(folder)) as connection:
        query = f"SELECT {', '.join(columns)} FROM attempts ORDER BY job_id"
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_like_jobs_are_asked_for_once(tmp_path: Path) -> None:
    """500 jobs that differ in prompt and seed: one quote, all charged by it."""
    provider = Quoter()
    manifest, _ = run_batch(tmp_path, provider, jobs(500), max_workers=50)
    assert len(provider.quoted) == 1
    assert manifest.totals.charged_micro == 500 * 50_000
    assert set(attempts(tmp_path, "price_source")) == {("provider quote of 2026-11-25",)}


def test_each_distinct_price_is_asked_for_once_and_lazily(tmp_path: Path) -> None:
    """As many quotes as there are sizes, a few at a time, as the jobs come up."""
    provider = Quoter(quote_s=0.1)
    run_batch(tmp_path, provider, jobs(60, sizes=20), max_workers=4)
    assert len(provider.quoted) == 20
    assert 1 < provider.peak <= AT_ONCE


def test_a_provider_without_quotes_goes_on_as_before(tmp_path: Path) -> None:
    """The protocol method is optional, and so is asking."""
    manifest, _ = run_batch(tmp_path / "a", FakeProvider(), jobs(2))
    assert manifest.totals.charged_micro == 80_000
    provider = Quoter()
    manifest, _ = run_batch(tmp_path / "b", provider, jobs(2), quotes=False)
    assert (manifest.totals.charged_micro, provider.quoted) == (80_000, [])


def test_a_refused_quote_falls_back_and_is_told_once(tmp_path: Path) -> None:
    """The table's price counts; one line for all of a model's jobs, no second try."""
    told: list[str] = []
    provider = Quoter(answers=[Rejected("the API gives no quote (HTTP 400: bad)", status=400)])
    manifest, stopped = run_batch(tmp_path, provider, jobs(9, sizes=3), on_remark=told.append)
    assert (manifest.totals.charged_micro, stopped) == (9 * 40_000, None)
    assert len(provider.quoted) == 3
    assert told == [
        f"no quote for {FLUX}, priced from files, tables and lists instead: "
        "the API gives no quote (HTTP 400: bad)"
    ]


def test_a_failing_quote_is_tried_again() -> None:
    """A 500 or a lost answer is no answer: asked again after a moment, then had."""
    provider = Quoter(answers=[ProviderError("500", status=500), ProviderError("?"), quote("1")])
    quoting, told, elapsed_s = ask(provider, jobs(1))
    assert (len(provider.quoted), len(quoting.quotes), told) == (3, 1, [])
    assert 0.75 <= elapsed_s <= 1.5


def test_a_short_wish_to_wait_is_granted_and_a_long_one_is_not() -> None:
    """Prices are worth seconds, not minutes."""
    busy = RateLimited("429", retry_after_s=3)
    assert ask(Quoter(answers=[busy, quote("1")]), jobs(1))[2] == 3.0
    busy = RateLimited("429", retry_after_s=60)
    quoting, told, elapsed_s = ask(Quoter(answers=[busy, quote("1")]), jobs(1))
    assert (len(quoting.quotes), len(told), elapsed_s) == (0, 1, 0.0)


def test_an_api_that_hangs_costs_seconds_and_no_run() -> None:
    """100 keys, no answer ever: given up after the first few, all of them told in one line."""
    provider = Quoter(quote_s=10_000.0)
    quoting, told, elapsed_s = ask(provider, jobs(100, sizes=100))
    assert elapsed_s == 2 * QUOTE_S
    assert provider.peak == AT_ONCE
    assert told == [
        f"no quote for {FLUX}, priced from files, tables and lists instead: "
        f"no quote came within {QUOTE_S:g} s"
    ]
    assert len(quoting.quotes) == 0


def test_an_api_that_is_slow_has_a_minute_in_all() -> None:
    """What came counts, the rest is done without."""
    quoting, told, elapsed_s = ask(Quoter(quote_s=9.0), jobs(100, sizes=100))
    assert elapsed_s == FILL_S
    assert len(quoting.quotes) == 6 * AT_ONCE
    assert told[0].endswith(f"no answer within {FILL_S:g} s")


def test_a_refused_key_is_asked_once_more_and_then_no_other() -> None:
    """Nothing more is asked for a while, then again."""
    answers: list[Quote | Exception] = [KeyRefused("401", status=401)] * (2 * AT_ONCE)
    answers.append(quote("1"))
    provider = Quoter(answers=answers)

    async def later(quoting: Quotes) -> None:
        assert not quoting.want(jobs(200, sizes=200)[150])
        await asyncio.sleep(AGAIN_S)
        assert quoting.want(jobs(1)[0])
        await quoting.fill()

    quoting, told, _ = ask(provider, jobs(100, sizes=100), rounds=later)
    assert (len(provider.quoted), len(quoting.quotes), len(told)) == (2 * AT_ONCE + 1, 1, 1)


@pytest.mark.parametrize(
    "slip", [KeyRefused("401", status=401), ProviderError("a firewall's page", status=403)]
)
def test_a_slip_of_a_gateway_costs_no_quote(slip: ProviderError) -> None:
    quoting, told, _ = ask(Quoter(answers=[slip, quote("1")]), jobs(1))
    assert (len(quoting.quotes), told, quoting.refusal) == (1, [], None)


@dataclass(kw_only=True)
class PartlyHanging(Quoter):
    """Never answers for some models."""

    hanging: Sequence[str] = ()

    async def quote(self, job: Job) -> Quote:
        if job.model in self.hanging:
            self.quoted.append(job)
            await asyncio.sleep(1e6)
        return await super().quote(job)


OTHERS = [f"maker/model-{n}/text-to-image" for n in range(4)]


@pytest.mark.parametrize("keys", [1, 7, 8, 40, 300])
def test_a_model_whose_quotes_hang_holds_up_no_other(tmp_path: Path, keys: int) -> None:
    """However many prices of it are asked for, in the same go or before: all are bought at once."""
    provider = PartlyHanging(hanging=[FLUX], quote_s=0.2)
    wanted = jobs(keys, sizes=keys)
    others = [job for model in OTHERS for job in jobs(20, model=model, sizes=5)]
    others = [replace(job, name=f"{job.name} {job.model}") for job in others]
    bought: list[float] = []

    class Timed(PartlyHanging):
        async def submit(self, job: Job) -> Any:
            if job.model in OTHERS:
                bought.append(asyncio.get_running_loop().time())
            return await super().submit(job)

    provider = Timed(hanging=[FLUX], quote_s=0.2)
    manifest, stopped = run_batch(tmp_path, provider, [*wanted, *others], max_workers=64)
    assert stopped is None
    assert manifest.totals.successful == keys + 80
    assert len(bought) == 80
    assert bought[63] < 5.0


@pytest.mark.parametrize("together", [True, False])
def test_quotes_that_hang_hold_up_those_of_others_a_second_at_most(*, together: bool) -> None:
    """All that may be asked at once hang already, or are to be asked first, in the same go."""
    provider = PartlyHanging(hanging=[FLUX], quote_s=0.2)
    others = [job for model in OTHERS for job in jobs(5, model=model, sizes=5)]
    at: list[float] = []

    async def main() -> None:
        quoting = Quotes(provider)

        def look() -> None:
            if not at and all(quoting.quotes.of(job) for job in others):
                at.append(asyncio.get_running_loop().time())

        for job in jobs(40, sizes=40):
            assert quoting.want(job)
        if not together:
            asking = asyncio.ensure_future(quoting.ask())
            await asyncio.sleep(0.1)
        for job in others:
            assert quoting.want(job)
        await quoting.ask(told=look)
        if not together:
            await asking

    run_virtual(main())
    assert at
    assert at[0] < 2 * SLOW_S


def test_a_model_without_quotes_does_not_take_those_of_others(tmp_path: Path) -> None:
    """Others that no table prices are bought at theirs, however often it has failed in a row."""
    provider = PartlyHanging(hanging=[FLUX])
    hanging = jobs(30, sizes=30)
    other = replace(jobs(1, model=OTHERS[0])[0], name="壶")

    async def later(quoting: Quotes) -> None:
        assert not quoting.want(hanging[7])
        assert quoting.want(other)
        await quoting.fill()

    quoting, _, _ = ask(provider, hanging, rounds=later)
    assert quoting.quotes.of(other) is not None


def test_where_no_model_has_quotes_nothing_more_is_asked() -> None:
    """An API that hangs is not asked model by model."""
    provider = Quoter(quote_s=1e6)
    lot = [job for n in range(100) for job in jobs(1, model=f"maker/{n}/text-to-image")]

    async def later(quoting: Quotes) -> None:
        assert not quoting.want(jobs(1, model="maker/another/text-to-image")[0])

    _, told, elapsed_s = ask(provider, lot, rounds=later)
    assert elapsed_s <= 2 * QUOTE_S
    assert len(told) == 1
    assert len(provider.quoted) < 100


def test_quotes_grow_old_and_an_old_one_is_better_than_none() -> None:
    """After an hour it is asked for anew; if that fails the older one counts, silently."""
    answers: list[Quote | Exception] = [quote("1"), quote("2"), Rejected("no")]
    job = jobs(1)[0]

    async def later(quoting: Quotes) -> None:
        for expected in ("2", "2"):
            assert not quoting.want(job)
            await asyncio.sleep(FRESH_S)
            assert quoting.want(job)
            await quoting.fill()
            kept = quoting.quotes.of(job)
            assert kept is not None
            assert kept.amount == Decimal(expected)

    provider = Quoter(answers=answers)
    _, told, _ = ask(provider, [job], rounds=later)
    assert (len(provider.quoted), told) == (3, [])


def test_a_bug_in_a_provider_costs_its_quote(caplog: pytest.LogCaptureFixture) -> None:
    quoting, told, _ = ask(Quoter(answers=[KeyError("oops")]), jobs(1))
    assert len(quoting.quotes) == 0
    assert "the provider's code failed during a quote: KeyError('oops')" in told[0]
    assert "quote failed" in caplog.text


def test_an_estimate_is_reserved_with_a_margin_and_booked_as_quoted(tmp_path: Path) -> None:
    """In the ledger as in the manifest: reserved x 1.25, charged x 1, marked."""
    provider = Quoter(answers=[quote("0.976", estimated=True)])
    reserved = []

    def look(event: object, record: JobRecord) -> None:
        if isinstance(event, Intended):
            reserved.append(record.attempt.reserved)

    manifest, _ = run_batch(tmp_path, provider, jobs(3), on_event=look)
    assert manifest.totals.charged_micro == 3 * 976_000
    seen = attempts(tmp_path, "reserved", "booked", "estimated")
    assert {(booked, estimated) for _, booked, estimated in seen} == {(976_000, 1)}
    assert reserved == [1_220_000] * 3


@pytest.mark.parametrize(("factor", "bought"), [("1.25", 3), ("1", 4), ("2", 2)])
def test_the_margin_counts_against_the_cap(tmp_path: Path, factor: str, bought: int) -> None:
    """4.00 USD hold three reservations of 1.25 at once, four of 1.00, two of 2.00."""
    provider = Quoter(answers=[quote("1", estimated=True)], default=Script(generation_s=1000.0))
    folder = tmp_path / "out"

    async def main() -> int:
        options: dict[str, Any] = {"estimate_factor": Decimal(factor), "max_cost": Decimal(4)}
        async with a_pipeline(provider, folder, max_workers=9, **options) as pipeline:
            task = asyncio.ensure_future(pipeline.batch_generate(jobs(9)))
            await asyncio.sleep(100)
            flying = len(provider.sold)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return flying

    assert run_virtual(main()) == bought


def test_a_quote_holds_the_budget_where_the_table_would_not(tmp_path: Path) -> None:
    """Ten jobs at 0.04 would fit into 1 USD; at the quoted 0.40 two do."""
    provider = Quoter(answers=[quote("0.40")])
    manifest, stopped = run_batch(tmp_path, provider, jobs(10), max_cost=Decimal(1))
    assert (len(provider.sold), manifest.totals.charged_micro) == (2, 800_000)
    assert isinstance(stopped, BudgetReached)


def test_a_model_no_table_knows_is_bought_at_its_quote(tmp_path: Path) -> None:
    """It needs no prices: of the user's; in a batch and alone."""
    provider = Quoter()

    async def main() -> None:
        async with Pipeline(provider, tmp_path) as pipeline:
            manifest = await pipeline.batch_generate(jobs(2, model=NEW))
            assert manifest.totals.charged_micro == 100_000
            result = await pipeline.generate(Job(model=NEW, prompt="x", params={"width": 7}))
            assert result.cost == Decimal("0.05")

    run_virtual(main())
    assert len(provider.quoted) == 2


def test_without_table_and_quote_nothing_is_bought(tmp_path: Path) -> None:
    """The error names the model and the remedy, before anything is submitted."""
    provider = Quoter(answers=[Rejected("no such model", status=404)])
    with pytest.raises(UsageError, match=r"'new/model/text-to-image' has no known price"):
        run_batch(tmp_path, provider, [*jobs(1), *jobs(1, model=NEW)])
    assert provider.sold == []


def test_what_is_bought_is_finished_though_its_quote_is_gone(tmp_path: Path) -> None:
    """The second run cannot price a job that the first has bought: it needs no price any more."""
    first = Quoter()
    run_batch(tmp_path, first, jobs(2, model=NEW))
    again = Quoter(answers=[Rejected("gone", status=404)])
    manifest, stopped = run_batch(tmp_path, again, jobs(2, model=NEW))
    assert (manifest.totals.successful, again.sold, stopped) == (2, [], None)
    with pytest.raises(UsageError, match="no known price"):
        run_batch(tmp_path, again, jobs(3, model=NEW))


def test_a_job_whose_only_quote_went_away_stays_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first pass was not made, admission leaves it out, says why, and does the rest."""

    async def unchecked(*_: Any) -> None:
        return None

    monkeypatch.setattr("asyncpipe.engine.ingest.check_prices", unchecked)
    provider = Quoter(answers=[Rejected("gone", status=404)])
    manifest, stopped = run_batch(tmp_path, provider, [*jobs(2, model=NEW), *jobs(3)[2:]])
    assert (provider.sold, manifest.totals.pending) == (["杯子 2"], 2)
    assert "no known price" in str(stopped)


def test_a_thousand_callers_ask_once(tmp_path: Path) -> None:
    """A service that generates much at once does not ask for each."""
    provider = Quoter(quote_s=1.0)

    async def main() -> None:
        async with Pipeline(provider, tmp_path, max_workers=20) as pipeline:
            wanted = jobs(200, model=NEW)
            results = await asyncio.gather(*map(pipeline.generate, wanted))
            assert {result.cost for result in results} == {Decimal("0.05")}

    run_virtual(main())
    assert len(provider.quoted) == 1


def test_a_caller_waits_for_a_quote_that_is_being_asked(tmp_path: Path) -> None:
    """It does not ask for its own, and is not priced without it."""
    provider = Quoter(quote_s=1.0)

    async def main() -> None:
        async with Pipeline(provider, tmp_path) as pipeline, asyncio.TaskGroup() as group:
            for job in jobs(3, model=NEW):
                group.create_task(pipeline.generate(job))
                await asyncio.sleep(0.3)

    run_virtual(main())
    assert (len(provider.quoted), len(provider.sold)) == (1, 3)


def test_a_caller_who_leaves_takes_no_quote_along() -> None:
    """What was being asked for is wanted by the next one anew."""
    provider = Quoter(quote_s=5.0)

    async def main() -> None:
        quoting = Quotes(provider)
        for _ in range(2):
            assert quoting.want(jobs(1)[0])
            task = asyncio.ensure_future(quoting.fill())
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not quoting.wanted
        assert quoting.want(jobs(1)[0])
        await quoting.fill()
        assert len(quoting.quotes) == 1

    run_virtual(main())


def test_a_job_that_comes_alone_is_priced_by_its_quote_too(tmp_path: Path) -> None:
    """Nobody drew it from the ledger; the table has a price, the quote is right."""
    provider = Quoter()

    async def main() -> None:
        async with Pipeline(provider, tmp_path) as pipeline:
            result = await pipeline.generate(jobs(1)[0])
            assert result.cost == Decimal("0.05")

    run_virtual(main())


def test_the_same_trouble_is_told_once() -> None:
    """A run that asks now and again does not fill the screen."""

    async def later(quoting: Quotes) -> None:
        for job in jobs(3, sizes=3)[1:]:
            quoting.want(job)
            await quoting.fill()

    _, told, _ = ask(Quoter(answers=[Rejected("no", status=400)]), jobs(1), rounds=later)
    assert len(told) == 1


def test_keys_are_kept_not_jobs() -> None:
    """A million like jobs leave one entry behind."""
    provider = Quoter()
    quoting, _, _ = ask(provider, jobs(1000, sizes=2))
    assert len(quoting.quotes) == 2
    assert {price_key(job) for job in provider.quoted} == {price_key(j) for j in jobs(2, sizes=2)}
