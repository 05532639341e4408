"""The profile of Replicate, and what a pipeline makes of its odd ways."""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Pipeline, Polling, Rate, Replicate, Result, SpendingLimits
from asyncpipe.jobs import Job, now
from asyncpipe.providers import Cancelled
from asyncpipe.report import Outcome
from asyncpipe.simulator import Books, Faults, Simulator, SimulatorSettings
from asyncpipe.simulator.books import BookedPrediction
from tests.support.clock import Clock
from tests.support.servers import PNG

MODEL = "demo/text-to-image"
PRICES = SpendingLimits(prices={MODEL: Rate(per_image=Decimal("0.05"))})

Bought = tuple[list[Result], Any, list[BookedPrediction], Decimal]


def jobs(count: int) -> list[dict[str, Any]]:
    """Of one to three pictures each."""
    return [
        {
            "name": f"j{n}",
            "model": MODEL,
            "prompt": f"mug {n}",
            "params": {"num_outputs": 1 + n % 3},
        }
        for n in range(count)
    ]


def run(
    folder: Path, clock: Clock, faults: str, count: int, *, seed: int = 0, retries: int = 8
) -> Bought:
    """A batch against the profile; what came of it, and what the books say."""

    async def main() -> Bought:
        settings = SimulatorSettings(
            profile="replicate", seed=seed, faults=Faults.parse(faults), body_bytes=512
        )
        async with Simulator(settings) as simulator:
            provider = Replicate("r8_key", base_url=simulator.base_url, simulated=True)
            async with Pipeline(
                provider,
                folder,
                spending=PRICES,
                polling=Polling(initial_s=0.5, maximum_s=2.0),
                recovery={"retries": retries, "search_s": 30.0},
                storage={"min_free_bytes": 0},
            ) as pipeline:
                manifest = await pipeline.batch_generate(jobs(count))
            books: Books = simulator.books
            return list(manifest), manifest.totals, books.predictions(), books.charged()

    return clock.run(main())


@pytest.mark.parametrize("seed", [1, 2])
def test_everything_that_can_be_made_good_is(tmp_path: Path, one_clock: Clock, seed: int) -> None:
    """Every recoverable fault: each file once, lost answers found in the list, the books agree.

    Apart from those that fail, which nobody says the price of: they stay reserved.
    """
    faults = "all=0.1,failed=0,failed_500=0,dropped=0.1,nameless=0.05,server_error_submit=0.05"
    results, totals, sold, charged = run(tmp_path, one_clock, faults, 25, seed=seed)
    assert [each.error for each in results if each.outcome is not Outcome.SUCCEEDED] == []
    assert (totals.successful, totals.unknown, totals.reserved) == (25, 0, 0)
    assert totals.charged == charged
    kept = [each.body["prompt"] for each in sold if each.outcome == "completed"]
    assert sorted(kept) == sorted(f"mug {n}" for n in range(25))


@pytest.mark.parametrize(
    ("faults", "outcome", "charged", "reserved", "words"),
    [
        ("canceled=1", Outcome.FAILED_CHARGED, "0.05", "0", "canceled at Replicate"),
        ("output_removed=1", Outcome.FAILED_CHARGED, "0.05", "0", "an hour after"),
        ("failed=1", Outcome.UNKNOWN, "0", "0.05", "CUDA out of memory"),
        ("moderated=1", Outcome.UNKNOWN, "0", "0.05", "flagged as sensitive"),
        ("aborted=1", Outcome.FAILED_NOT_CHARGED, "0", "0", "before it began"),
        ("refused=1", Outcome.FAILED_NOT_CHARGED, "0", "0", "input.seed"),
    ],
)
def test_an_end_says_what_became_of_its_money(
    *,
    tmp_path: Path,
    one_clock: Clock,
    faults: str,
    outcome: Outcome,
    charged: str,
    reserved: str,
    words: str,
) -> None:
    """The time of a canceled one is charged, an aborted one is free, of a failed one who knows."""
    results, totals, _, _ = run(tmp_path, one_clock, faults, 1, retries=1)
    assert results[0].outcome is outcome
    assert (totals.charged, totals.reserved) == (Decimal(charged), Decimal(reserved))
    assert words in (results[0].error or "")


def test_without_money_the_run_stops(tmp_path: Path, one_clock: Clock) -> None:
    _, totals, sold, _ = run(tmp_path, one_clock, "no_balance=1", 3)
    assert (totals.successful, totals.failed, sold) == (0, 0, [])


def asked(clock: Clock, do: Callable[[Replicate, Simulator], Any]) -> Any:
    async def main() -> Any:
        async with Simulator(SimulatorSettings(profile="replicate", body_bytes=512)) as simulator:
            provider = Replicate("r8_key", base_url=simulator.base_url, simulated=True)
            async with provider:
                return await do(provider, simulator)

    return clock.run(main())


def test_a_cancel_is_free_before_it_starts_and_charged_after(one_clock: Clock) -> None:
    async def cancel(provider: Replicate, simulator: Simulator) -> tuple[Any, ...]:
        told = []
        for wait_s in (0.0, 0.35, 60.0):
            sold = await provider.submit(Job(model=MODEL, prompt="a mug"))
            await sleep(wait_s)
            told.append(await provider.cancel(sold.id))
        return (*told, simulator.books.charged())

    assert asked(one_clock, cancel) == (
        Cancelled.UNKNOWN,
        Cancelled.CHARGED,
        Cancelled.TOO_LATE,
        Decimal("0.10"),
    )


def test_after_an_hour_nothing_is_left_but_that_it_was(one_clock: Clock) -> None:
    """Neither its output, nor in the list its input."""

    async def wait(provider: Replicate, simulator: Simulator) -> tuple[Any, ...]:
        sold = await provider.submit(Job(model=MODEL, prompt="a mug"))
        await sleep(3700.0)
        end = await provider.poll(sold.id)
        rows = [row for page in [p async for p in provider.history(now(), now())] for row in page]
        return end.outputs, end.released, [(row.id == sold.id, row.body) for row in rows]

    assert asked(one_clock, wait) == ((), False, [(True, None)])


def test_its_list_has_pages_and_its_files_are_taken(one_clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "mug.png"
    path.write_bytes(PNG)

    async def buy(provider: Replicate, simulator: Simulator) -> tuple[int, list[int]]:
        url = await provider.upload(path)
        for n in range(130):
            await provider.submit(Job(model=MODEL, prompt=f"mug {n}", params={"image": url}))
        since = now().replace(year=2000)
        pages = [len(page) async for page in provider.history(since, now())]
        return simulator.books.submits(), pages

    assert asked(one_clock, buy) == (130, [100, 30])
