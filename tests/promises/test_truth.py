"""The truth: ledger, manifest and the provider's books agree on every job and every cent."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, JobState, Manifest, Pipeline, Polling, Rate, read_manifest
from asyncpipe.engine.decide import PredictionOwners, RetryPolicy, after_submit
from asyncpipe.engine.resolve import Decision, resolve
from asyncpipe.engine.submit import Submitter
from asyncpipe.engine.tickets import StopReasons, Ticket, Tickets
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    BudgetReached,
    NotAccepted,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Limiter
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.window import Window
from asyncpipe.jobs.events import Failed, Submitted, now
from asyncpipe.jobs.record import JobRecord
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.pricing.bill import Bill, BilledDay
from asyncpipe.pricing.money import from_micro, to_micro
from asyncpipe.pricing.price import Price, Prices, price
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.providers import known_prices
from asyncpipe.providers.atlas.prices import built_in
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report.export import export_file
from asyncpipe.report.purchases import read_entries
from asyncpipe.report.reconcile import CauseKind, compare
from asyncpipe.report.results import Outcome, Result
from asyncpipe.report.status import next_steps, read_status, status_document, status_lines
from asyncpipe.report.summary import summary
from asyncpipe.report.totals import Totals
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.chaos import all_sorts, bought, every_fault, run_simulated
from tests.support.clock import Clock
from tests.support.pipelines import FLUX, a_pipeline, counts_agree, job, opened

OTHER = "other/text-to-image"

COMPLETED, FAILED = PredictionStatus.COMPLETED, PredictionStatus.FAILED
LOST = SubmitUnknown("reset")


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every price be an estimate of the provider's: a quarter more is reserved."""

    exact = Prices.of

    def estimate(prices: Prices, job: Job) -> Price:
        found = exact(prices, job)
        return replace(found, source="quote", estimated=True, margin=found.micro // 4)

    monkeypatch.setattr(Prices, "of", estimate)


def jobs(count: int, model: str = FLUX) -> list[Job]:
    return [Job(name=f"杯 {n}", model=model, prompt="x") for n in range(count)]


def run(
    folder: Path,
    provider: FakeProvider,
    batch: list[Job],
    *,
    cap: str | None = None,
    retry_failed: bool = False,
    **options: Any,
) -> tuple[Manifest, Exception | None]:
    async def main() -> tuple[Manifest, Exception | None]:
        given = {"max_workers": 4, "seed": 1, "retries": 0, **options}
        limit = None if cap is None else Decimal(cap)
        async with a_pipeline(provider, folder, max_cost=limit, **given) as pipeline:
            manifest = await pipeline.batch_generate(batch, retry_failed=retry_failed)
            return manifest, pipeline.stopped

    return run_virtual(main())


def decide(folder: Path, *names: str, **decision: bool) -> None:
    run_virtual(resolve(folder, names, Decision(**decision)))


def results(folder: Path) -> dict[str, Result]:
    return {result.name: result for result in read_manifest(folder)}


def document(folder: Path) -> dict[str, Any]:
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    return json.loads(text, parse_float=Decimal)  # type: ignore[no-any-return]


# -- margins ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("estimated")
def test_a_margin_is_reserved_and_what_is_not_charged_of_it_released(tmp_path: Path) -> None:
    """0.05 reserved while it runs, 0.04 charged when it is there, marked as estimated."""
    reserved: list[int] = []

    def look(event: object, record: JobRecord) -> None:
        if record.state is JobState.SUBMITTED:
            reserved.append(record.attempt.reserved)

    manifest, _ = run(tmp_path, FakeProvider(), jobs(2), on_event=look)
    assert set(reserved) == {50_000}
    totals = manifest.totals
    assert totals.charged_micro == totals.estimated_micro == 80_000
    assert totals.reserved == 0
    head = document(tmp_path)
    assert (head["total_cost"], head["estimated_cost"], head["overrun"]) == (
        Decimal("0.08"), Decimal("0.08"), 0
    )  # fmt: skip
    assert all(row["estimated"] for row in head["results"])
    assert "estimates" in head["remarks"][0]
    text = "\n".join(summary(totals, elapsed_s=1, manifest="m", simulated=False))
    assert "0.08 USD, 0.08 USD of it estimated" in text
    assert "estimated" in "\n".join(status_lines(read_status(tmp_path)))


@pytest.mark.usefixtures("estimated")
def test_margins_count_against_the_cap_until_they_come_back(tmp_path: Path) -> None:
    """Four at 0.05 fill 0.20; delivered at 0.04 they leave 0.04, too little for a fifth."""
    provider = FakeProvider()
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.20")
    assert (manifest.totals.successful, manifest.totals.charged_micro) == (4, 160_000)
    assert isinstance(stopped, BudgetReached)
    assert "0.01 of it against a low estimate" in str(stopped)
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.21")
    assert manifest.totals.successful == 5
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.41")
    assert (manifest.totals.successful, stopped) == (10, None)


@pytest.mark.usefixtures("estimated")
def test_a_job_waits_for_a_margin_that_comes_back(tmp_path: Path) -> None:
    """0.05 and 0.05 do not fit 0.09; 0.04 and 0.05 do, once the first is there."""
    provider = FakeProvider()
    manifest, stopped = run(tmp_path, provider, jobs(2), cap="0.09")
    assert (manifest.totals.successful, stopped, provider.peak_in_flight) == (2, None, 1)


def test_a_cheap_job_behind_an_expensive_one_of_its_model_waits_and_is_not_forgotten(
    tmp_path: Path,
) -> None:
    """Job-file order per model while money may come back; then what fits goes; the reason says so.

    The expensive one waits for the first to end, and the cheap one with it, though it would fit.
    Another model's jobs go on meanwhile.
    """
    prices = {"a/x/text-to-image": Rate(per_image=Decimal("0.10"))}
    prices["b/x/text-to-image"] = Rate(per_image=Decimal("0.01"))

    def job(name: str, count: int, model: str = "a/x/text-to-image") -> Job:
        return Job(name=name, model=model, prompt="x", params={"num_images": count})

    batch = [job("first", 2), job("dear", 4), job("cheap", 1), job("b", 1, "b/x/text-to-image")]
    order: list[str] = []

    def look(event: object, record: JobRecord) -> None:
        if record.state is JobState.SUBMITTED:
            order.append(record.name)

    options: dict[str, Any] = {"prices": prices, "on_event": look}
    manifest, stopped = run(tmp_path, FakeProvider(), batch, cap="0.45", **options)
    assert list(dict.fromkeys(order)) == ["first", "b", "cheap"]
    assert isinstance(stopped, BudgetReached)
    assert "in job-file order per model" in str(stopped)
    assert {r.name for r in manifest if r.outcome is Outcome.SUCCEEDED} == {"first", "b", "cheap"}
    order.clear()
    manifest, stopped = run(tmp_path, FakeProvider(), batch, cap="0.71", **options)
    assert (order, stopped, manifest.totals.charged_micro) == (["dear"] * len(order), None, 710_000)


# -- overruns -----------------------------------------------------------------------------------


def test_an_overrun_is_booked_shown_and_stops_admission(tmp_path: Path) -> None:
    """Charged at the true amount; a remark says so; above the cap nothing more is submitted."""
    provider = FakeProvider(scripts={"杯 1": Script(charged=Decimal("0.15"))})
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.16", max_workers=2)
    assert provider.sold == ["杯 0", "杯 1"]
    assert isinstance(stopped, BudgetReached)
    assert "exceeded: 0.19 are charged" in str(stopped)
    totals = manifest.totals
    assert (totals.charged_micro, totals.overrun_micro, totals.overruns) == (190_000, 110_000, 1)
    assert (totals.reserved_micro, totals.pending) == (0, 8)
    head = document(tmp_path)
    assert (head["total_cost"], head["overrun"]) == (Decimal("0.19"), Decimal("0.11"))
    assert "0.11 USD more than was reserved" in head["remarks"][0]
    rows = {row["name"]: row["overrun"] for row in head["results"]}
    assert (rows["杯 0"], rows["杯 1"]) == (0, Decimal("0.11"))
    text = "\n".join(summary(totals, elapsed_s=1, manifest="m", simulated=False, stopped=stopped))
    assert "0.11 USD more" in text
    assert "1 cost more than was reserved" in "\n".join(status_lines(read_status(tmp_path)))
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.16")
    assert (len(provider.sold), "exceeded" in str(stopped)) == (2, True)
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.51")
    totals = manifest.totals
    assert (totals.successful, stopped, totals.charged_micro) == (10, None, 510_000)


def test_an_overrun_of_the_last_job_above_the_cap_is_no_quiet_success(tmp_path: Path) -> None:
    """Everything is there and too much was paid: the run says so and exits 3."""
    provider = FakeProvider(default=Script(charged=Decimal("0.15")))
    manifest, stopped = run(tmp_path, provider, jobs(1), cap="0.10")
    assert (manifest.totals.successful, isinstance(stopped, BudgetReached)) == (1, True)
    assert run(tmp_path, provider, jobs(1), cap="0.10")[1] is None


def test_a_prediction_may_cost_less_than_its_price(tmp_path: Path) -> None:
    """The provider's word goes before the price, downwards too; nonsense is no word."""
    scripts = {
        "杯 0": Script(charged=Decimal("0.01")),
        "杯 1": Script(charged=Decimal(0)),
        "杯 2": Script(charged=Decimal("nan")),
        "杯 3": Script(charged=Decimal(-1)),
    }
    manifest, _ = run(tmp_path, FakeProvider(scripts=scripts), jobs(4), cap="0.16")
    assert [int(r.cost * 10**6) for r in manifest] == [10_000, 0, 40_000, 40_000]
    assert manifest.totals.overruns == 0
    assert all(r.charged for r in manifest)


def test_a_cap_lowered_below_what_is_committed_admits_nothing(tmp_path: Path) -> None:
    """Not even a cheap job; and a folder with nothing left to do ends well."""
    provider = FakeProvider()
    run(tmp_path, provider, jobs(5), cap="0.40")
    manifest, stopped = run(tmp_path, provider, jobs(10), cap="0.10")
    assert (len(provider.sold), manifest.totals.pending) == (5, 5)
    assert "0.10 USD is exceeded: 0.20 are charged" in str(stopped)
    assert run(tmp_path, provider, jobs(5), cap="0.10")[1] is None


def _limiter() -> Limiter:
    gate = Gate(Pace(), clock=lambda: 0.0)
    return Limiter(gate, Random(1), lambda _: Window(4), workers=1)


def test_a_job_on_its_way_goes_back_when_its_money_is_gone(tmp_path: Path) -> None:
    """It was admitted, and before its intent another prediction cost more than it had reserved."""
    known, tickets = _limiter(), Tickets()
    totals = Totals()
    spending = SpendingLimits(max_cost=Decimal("0.1")).open(None, totals, tickets, tell=print)
    budget = spending.budget
    ticket = Ticket(JobRecord(id=1, key="k", name="杯", job=jobs(1)[0]))
    ticket.hold = budget.hold(price(ticket.job, [built_in()]))
    ticket.permit = known.to_submit(FLUX, ticket.hold)
    totals.charged_micro = 70_000
    nothing: Any = None  # no file is uploaded, no intent written, nothing sent

    async def main() -> None:
        submitter = Submitter(
            relay=nothing,
            ledger=nothing,
            recorder=nothing,
            uploads=nothing,
            limiter=known,
            spending=spending,
            stops=StopReasons(asyncio.Event()),
            owners=nothing,
            answers=nothing,
            retries=RetryPolicy(2),
            patience_s=None,
            rng=Random(1),
            waits=nothing,
        )
        assert ticket.permit is not None
        with ticket.permit:
            await submitter.submit(ticket)

    run_virtual(main())
    assert ticket.state is JobState.PENDING
    assert (budget.held, known.out, known.of(FLUX).window.in_flight) == (0, 0, 0)


class Watching(FakeProvider):
    """Reads the ledger at every submit: but for overruns, never more than the cap."""

    path: Path
    cap: int
    submitted_above: int = 0

    async def submit(self, job: Job) -> Prediction:
        with closing(sqlite3.connect(self.path)) as other:
            query = "SELECT total(charged)+total(reserved), total(overrun) FROM attempts"
            committed, overrun = map(int, other.execute(query).fetchone())
        assert committed - overrun <= self.cap, f"{committed} of {self.cap}"
        self.submitted_above += committed > self.cap
        return await super().submit(job)


def script(rng: Random) -> Script:
    refusals: list[ProviderError] = [RateLimited("429"), LOST, LOST, Rejected("400")]
    costs = [None, None, Decimal("0.02"), Decimal("0.09"), Decimal("0.30"), Decimal(0)]
    return Script(
        submits=rng.choices(refusals, k=rng.choice([0, 0, 0, 1, 2])),
        generation_s=rng.choice([0.0, 5.0, 60.0]),
        submit_s=rng.choice([0.0, 0.5]),
        end=rng.choice([COMPLETED, COMPLETED, FAILED]),
        error="gpu",
        released=rng.choice([True, True, False]),
        charged=rng.choice(costs),
        outputs=rng.choice([(PIXEL,), (PIXEL,), (PIXEL, PIXEL), ("data:image/png;base64,xx",)]),
    )


@pytest.mark.usefixtures("estimated")
@pytest.mark.parametrize("seed", range(6))
def test_every_account_of_a_folder_says_the_same_after_any_history(
    tmp_path: Path, seed: int
) -> None:
    """Margins, overruns, lost answers, decisions, several runs: manifest, summary, status, export
    and reconcile agree to the micro-dollar, and the cap holds but for overruns."""
    rng = Random(seed)
    models = [f"m/{n}/text-to-image" for n in range(3)]
    rates = ["0", "0.05", "0.11"]
    prices = {m: Rate(per_image=Decimal(c)) for m, c in zip(models, rates, strict=True)}
    batch = [Job(name=f"杯 {n}", model=rng.choice(models), prompt="x") for n in range(60)]
    provider = Watching(scripts={str(job.name): script(rng) for job in batch})
    provider.path = ledger_path(tmp_path)
    choices = [
        {"resubmit": True},
        {"resubmit": True, "lost_charged": False},
        {"lost_charged": True},
        {"lost_charged": False},
        {"resubmit": False},
    ]
    caps = ["0.60", "1.50", "0.90", "99", "99"]
    for cap, decision in zip(caps, rng.sample(choices, len(choices)), strict=True):
        provider.cap = to_micro(Decimal(cap))
        ambiguous = rng.choice([True, False])
        options: dict[str, Any] = {"prices": prices, "resubmit_unknown": ambiguous, "retries": 1}
        retry = rng.choice([True, False])
        named = [job for job in batch if rng.random() < 0.8]  # the job file changed
        manifest, _ = run(
            tmp_path, provider, named, cap=cap, max_workers=16, retry_failed=retry, **options
        )
        agree(tmp_path, manifest)
        decide(tmp_path, **decision)
        agree(tmp_path, read_manifest(tmp_path))
    seen = {result.outcome for result in read_manifest(tmp_path)}
    assert len(seen) >= 4
    assert provider.submitted_above <= 16  # whose intents were durable when another cost too much


def agree(folder: Path, manifest: Manifest) -> None:
    """Five accounts of one folder."""
    totals, status = manifest.totals, read_status(folder)
    shown = json.loads(_dumped(status_document(status)), parse_float=Decimal)
    export_file(folder, folder / "rows.jsonl", "jsonl")
    export_file(folder, folder / "attempts.jsonl", "jsonl", rows="attempts")
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_float=Decimal) for line in lines]
    lines = (folder / "attempts.jsonl").read_text(encoding="utf-8").splitlines()
    attempts = [json.loads(line, parse_float=Decimal) for line in lines]
    written, entries = document(folder), read_entries(folder).entries.values()
    listed = written["results"]
    charged, reserved = from_micro(totals.charged_micro), from_micro(totals.reserved_micro)
    assert written["total_cost"] == shown["money"]["charged"] == charged
    assert sum(row["cost"] for row in listed) == charged
    assert sum(row["charged_usd"] for row in rows) == charged
    assert sum(row["charged_usd"] for row in attempts) == charged
    assert sum(entry.charged for entry in entries) == totals.charged_micro
    assert written["reserved"] == shown["money"]["reserved"] == reserved
    assert sum(row["reserved"] for row in listed) == reserved
    assert sum(row["reserved_usd"] for row in rows) == reserved
    assert sum(row["reserved_usd"] for row in attempts) == reserved
    assert sum(entry.reserved for entry in entries) == totals.reserved_micro
    assert (
        written["estimated_cost"]
        == shown["money"]["estimated"]
        == from_micro(totals.estimated_micro)
    )
    told = (row["charged_usd"] for row in attempts if row["estimated"])
    assert sum(told) == totals.estimated
    overrun = from_micro(totals.overrun_micro)
    assert written["overrun"] == shown["money"]["overrun"] == overrun
    assert sum(row["overrun"] for row in listed) == overrun
    assert sum(row["overrun_usd"] for row in attempts) == overrun
    by_model = {m: shown["money_by_model"][m]["charged"] for m in written["cost_by_model"]}
    assert by_model == written["cost_by_model"]
    counts = {"unknown": totals.unknown, "failed": totals.failed, "success": totals.successful}
    for word, count in counts.items():
        assert sum(row["status"] == word for row in listed) == count
        assert sum(row["status"] == word for row in rows) == count
    assert written["unknown"] == status.counts["unknown"] == totals.unknown
    assert status.counts["failed, charged"] == sum(
        row["outcome"] == "failed, charged" for row in rows
    )
    assert sum(row["lost_answers"] for row in listed) == totals.lost_answers
    assert sum(row["attempts_charged"] for row in rows) == sum(
        row["money"] == "charged" for row in attempts
    )
    text = " ".join(" ".join(summary(totals, elapsed_s=1, manifest="m", simulated=False)).split())
    assert (totals.lost_answers > 0) == ("of jobs that were submitted anew" in text)
    assert (totals.overruns > 0) == ("more than was reserved" in text)


def _dumped(found: Mapping[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(found)


# -- lost answers -------------------------------------------------------------------------------


def resubmitted(folder: Path, end: Script) -> None:
    """One job whose first answer was lost, and that was submitted anew and ended."""
    provider = FakeProvider(scripts={"杯 0": Script(submits=[LOST])})
    run(folder, provider, jobs(1))
    decide(folder, resubmit=True)
    provider.scripts = {"杯 0": end}
    provider._refusals.clear()
    run(folder, provider, jobs(1))


@pytest.mark.parametrize(("charged", "cost"), [(True, "0.08"), (False, "0.04")])
def test_a_lost_answer_of_a_job_that_succeeded_can_be_settled(
    tmp_path: Path, charged: bool, cost: str
) -> None:
    """Until then its money stays reserved, and status and summary name the remedy."""
    resubmitted(tmp_path, Script())
    totals = read_manifest(tmp_path).totals
    assert (totals.reserved_micro, totals.held_micro, totals.lost_answers) == (40_000, 40_000, 1)
    (step,) = next_steps(read_status(tmp_path))
    text = "\n".join(summary(totals, elapsed_s=1, manifest="out/m", simulated=False))
    assert "--lost-charged" in step
    assert "asyncpipe resolve out --lost-charged" in " ".join(text.split())
    decide(tmp_path, lost_charged=charged)
    (result,) = read_manifest(tmp_path)
    assert (result.outcome, result.cost) == (Outcome.SUCCEEDED, Decimal(cost))
    assert (result.reserved, result.lost_answers) == (Decimal(0), 0)
    assert document(tmp_path)["total_cost"] == Decimal(cost)
    assert next_steps(read_status(tmp_path)) == ["Nothing is left to do."]
    with pytest.raises(UsageError, match="no job with a lost answer"):
        decide(tmp_path, "杯 0", lost_charged=True)


def test_a_job_that_failed_after_a_lost_answer_is_unknown_until_it_is_settled(
    tmp_path: Path,
) -> None:
    """Nobody can say that it cost nothing: not in the manifest, not in the export, not by exit 1;
    and it is not submitted a third time."""
    resubmitted(tmp_path, Script(end=FAILED, error="gpu"))
    manifest = read_manifest(tmp_path)
    (result,) = manifest
    assert (result.state, result.outcome) == (JobState.FAILED, Outcome.UNKNOWN)
    assert "gpu; an earlier submit lost its answer" in str(result.error)
    assert (manifest.totals.failed, manifest.totals.unknown) == (0, 1)
    provider = FakeProvider()
    run(tmp_path, provider, jobs(1), retry_failed=True)
    assert provider.submits == 0
    decide(tmp_path, "杯 0", lost_charged=False)
    (result,) = read_manifest(tmp_path)
    assert (result.outcome, result.cost) == (Outcome.FAILED_NOT_CHARGED, Decimal(0))
    run(tmp_path, provider, jobs(1), retry_failed=True)
    assert provider.submits == 1


def test_giving_up_settles_every_lost_answer_of_a_job(tmp_path: Path) -> None:
    """Two answers lost: both are charged, not the latest only; or neither, if the bill says so."""
    for name, lost_charged, cost in (("a", None, "0.08"), ("b", False, "0")):
        folder = tmp_path / name
        provider = FakeProvider(scripts={"杯 0": Script(submits=[LOST, LOST])})
        run(folder, provider, jobs(1))
        decide(folder, resubmit=True)
        run(folder, provider, jobs(1))
        assert read_manifest(folder).totals.reserved_micro == 80_000
        told = {} if lost_charged is None else {"lost_charged": lost_charged}
        decide(folder, resubmit=False, **told)
        (result,) = read_manifest(folder)
        assert (result.cost, result.reserved) == (Decimal(cost), Decimal(0))
        assert result.outcome.startswith("failed, charged" if cost != "0" else "failed, not")
        assert result.attempts_charged == (2 if cost != "0" else 0)
        assert "given up" in str(result.error)


@pytest.mark.parametrize("charged", [True, False])
def test_what_the_bill_says_decides_about_unknown_jobs(tmp_path: Path, charged: bool) -> None:
    """Bought: failed and charged, its media cannot be had. Not bought: submitted anew, unafraid."""
    provider = FakeProvider(scripts={"杯 0": Script(submits=[LOST])})
    run(tmp_path, provider, jobs(1))
    decide(tmp_path, lost_charged=charged)
    (result,) = read_manifest(tmp_path)
    expected = Outcome.FAILED_CHARGED if charged else Outcome.PENDING
    assert (result.outcome, result.reserved) == (expected, Decimal(0))
    assert result.cost == (Decimal("0.04") if charged else 0)
    run(tmp_path, provider, jobs(1), cap="0.04", retry_failed=True)
    assert len(provider.sold) == (0 if charged else 1)


def test_lost_answers_that_were_called_free_are_remembered(tmp_path: Path) -> None:
    """By either decision; what the bill has all the same may come from them."""
    provider = FakeProvider(scripts={f"杯 {n}": Script(submits=[LOST]) for n in range(3)})
    run(tmp_path, provider, jobs(3))
    decide(tmp_path, "杯 0", resubmit=False, lost_charged=False)
    decide(tmp_path, "杯 1", lost_charged=False)
    decide(tmp_path, "杯 2", resubmit=False)
    found = read_entries(tmp_path)
    assert found.settled_free == {FLUX: 2}
    (day,) = found.days
    bill = Bill(days={day: BilledDay(day=day, amounts={FLUX: Decimal("0.12")}, partial=False)})
    (check,) = compare(found, bill).models
    assert check.causes[0].kind is CauseKind.SETTLED_FREE


def test_submitting_anew_with_the_bill_at_hand_keeps_nothing_reserved(tmp_path: Path) -> None:
    """The bill has it not: its money is free for the next attempt, even under a cap."""
    provider = FakeProvider(scripts={"杯 0": Script(submits=[LOST])})
    run(tmp_path, provider, jobs(1), cap="0.04")
    decide(tmp_path, resubmit=True, lost_charged=False)
    manifest, stopped = run(tmp_path, provider, jobs(1), cap="0.04")
    assert (manifest.totals.successful, manifest.totals.charged_micro, stopped) == (1, 40_000, None)


# -- facts apart from amounts -------------------------------------------------------------------

FREE = {"free/x/text-to-image": Rate(per_image=Decimal(0))}


def test_a_price_of_nothing_is_still_a_charge(tmp_path: Path) -> None:
    """Delivered at price 0 is charged; failed and not returned is charged, and not tried again."""
    scripts = {"杯 1": Script(end=FAILED, released=False), "杯 2": Script(end=FAILED)}
    provider, batch = FakeProvider(scripts=scripts), jobs(3, "free/x/text-to-image")
    run(tmp_path, provider, batch, prices=FREE, cap="0")
    found = results(tmp_path)
    assert [found[f"杯 {n}"].outcome for n in range(3)] == [
        Outcome.SUCCEEDED, Outcome.FAILED_CHARGED, Outcome.FAILED_NOT_CHARGED
    ]  # fmt: skip
    assert [row["charged"] for row in document(tmp_path)["results"]] == [True, True, False]
    assert read_status(tmp_path).counts["failed, charged"] == 1
    run(tmp_path, provider, batch, prices=FREE, retry_failed=True)
    assert provider.sold[3:] == ["杯 2"]
    (entry,) = read_entries(tmp_path).entries.values()
    assert (entry.delivered, entry.failed_charged, entry.returned) == (1, 1, 2)


def test_one_prediction_for_two_jobs_is_charged_once_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second job's submit may have bought one under an id nobody was told: unknown, reserved,
    never the first one's media."""
    same = Script(prediction_id="same")
    provider = FakeProvider(scripts={"杯 0": same, "杯 1": same})
    manifest, _ = run(tmp_path, provider, jobs(3), max_workers=1)
    assert [r.outcome.value for r in manifest] == ["succeeded", "unknown", "succeeded"]
    assert (manifest.totals.charged_micro, manifest.totals.reserved_micro) == (80_000, 40_000)
    assert "prediction same, which is another job's" in caplog.text
    assert "another job's" in str(results(tmp_path)["杯 1"].error)


def test_the_same_job_may_be_answered_with_the_same_prediction(tmp_path: Path) -> None:
    """Submitted anew after a failure, as a provider may that knows the request."""
    again = Script(prediction_id="same", end=FAILED, error="gpu")
    manifest, _ = run(tmp_path, FakeProvider(default=again), jobs(1), retries=1)
    assert (manifest.totals.failed, manifest.totals.charged_micro) == (1, 0)


def test_only_so_many_predictions_are_remembered() -> None:
    """The latest; one that is claimed again is late."""
    known = PredictionOwners(kept=2)
    assert [known.claim(name, n) for n, name in enumerate("aba")] == [True, True, False]
    assert known.claim("c", 3)  # b is forgotten
    assert known.claim("b", 4)
    assert len(known._jobs) == 2


def test_an_attempt_that_fails_at_once_keeps_its_prediction_and_is_asked_for_again() -> None:
    """The bill may have it charged and returned; a poll has to agree before another is bought."""
    job = Job(name="杯", model=FLUX, prompt="x")
    record = JobRecord(id=1, key="k", name="杯", job=job, state=JobState.SUBMITTING)
    answer = Prediction(id="p7", status=FAILED, error="gpu")
    event = after_submit(record, answer, now(), retries=1)
    assert isinstance(event, Submitted)
    assert event.prediction_id == "p7"
    last = after_submit(record, answer, now(), retries=0)
    assert isinstance(last, Failed)
    assert last.prediction_id == "p7"


def test_lost_media_are_charged_and_say_so_everywhere(tmp_path: Path) -> None:
    """Grouped by cause in the summary, whatever their URLs; failed and charged elsewhere."""
    run(tmp_path, FakeProvider(), jobs(3))
    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection, connection:
        connection.execute("UPDATE jobs SET state='lost' WHERE id<3")
        connection.execute(
            "UPDATE attempts SET error='https://h/' || job_id || '.png answers 404' WHERE job_id<3"
        )
    totals = read_manifest(tmp_path).totals
    lines = summary(totals, elapsed_s=1, manifest="m", simulated=False)
    at = lines.index("  paid for, and the media are gone, because")
    assert lines[at + 1] == "    2 x its URL answers 404"
    assert (totals.failed, totals.charged_micro) == (2, 120_000)
    found = results(tmp_path)
    assert (found["杯 0"].outcome, found["杯 0"].cost) == (Outcome.FAILED_CHARGED, Decimal("0.04"))
    assert read_status(tmp_path).counts["failed, charged"] == 2


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("faster_waits")
def test_lost_answers_end_unknown_and_only_those(tmp_path: Path, one_clock: Clock) -> None:
    """Among all the other faults; their money stays reserved to the cent."""
    lost = {"dropped": 0.05, "server_error_submit": 0.05, "nameless": 0.03}
    faults = every_fault(Random(7), **lost, rate_limited=0.05, overloaded=0.05, no_history=1.0)
    settings = SimulatorSettings(
        speed=100, faults=faults, books=tmp_path / "books", body_bytes=20_000, hang_s=0.5
    )
    done, _ = run_simulated(tmp_path / "out", settings, all_sorts(120), one_clock)
    results, kept = list(done), Books(tmp_path / "books")
    states = Counter(result.state for result in results)
    assert set(states) == {JobState.SUCCEEDED, JobState.UNKNOWN}
    assert 3 < states[JobState.UNKNOWN] < 60
    told = {result.prediction_id for result in results if result.state is JobState.SUCCEEDED}
    unanswered = [p for p in kept.predictions() if p.id not in told and p.outcome == "completed"]
    assert len(unanswered) <= states[JobState.UNKNOWN]
    charged = sum(p.price for p in kept.predictions() if p.id in told)
    assert done.totals.charged_micro == charged
    assert done.totals.reserved_micro >= sum(p.price for p in unanswered)


def test_lost_answers_are_found_again_in_the_providers_list(
    tmp_path: Path, one_clock: Clock
) -> None:
    """Each that was bought is delivered, whatever else is lost, late or added in the list."""
    lost = {"dropped": 0.1, "server_error_submit": 0.05, "nameless": 0.05}
    listed = {"history_error": 0.3, "history_lag": 0.3, "history_defaults": 0.5}
    faults = every_fault(Random(7), **lost, **listed)
    settings = SimulatorSettings(
        speed=100, faults=faults, books=tmp_path / "books", body_bytes=20_000, hang_s=0.5
    )
    done, _ = run_simulated(tmp_path / "out", settings, all_sorts(120), one_clock)
    results, kept = list(done), Books(tmp_path / "books")
    told = {result.prediction_id for result in results}
    assert {p.id for p in kept.predictions() if p.outcome == "completed"} <= told
    assert {result.state for result in results} == {JobState.SUCCEEDED}
    assert done.totals.charged_micro == sum(p.price for p in kept.predictions() if p.id in told)


@pytest.mark.parametrize("wrong", ["foreign", "taken", "missing", "error", "defaults", "lag"])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_no_wrong_list_makes_anything_be_bought_twice(
    tmp_path: Path, one_clock: Clock, wrong: str, share: float
) -> None:
    """Bodies of others, ids of others, holes: what was lost stays unknown at worst."""
    faults = Faults(dropped=0.2, **{f"history_{wrong}": share})
    settings = SimulatorSettings(
        speed=100, faults=faults, books=tmp_path / "books", body_bytes=2000, history_lag_s=0.3
    )

    async def main() -> Manifest:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            async with Pipeline(
                provider,
                tmp_path / "out",
                max_workers=4,
                polling=Polling(initial_s=0.05, maximum_s=0.1),
                recovery={"ambiguous": "find-resubmit", "search_s": 0.5},
            ) as pipeline:
                return await pipeline.batch_generate(all_sorts(60))

    done, kept = one_clock.run(main()), Books(tmp_path / "books")
    assert max(bought(kept.predictions()).values()) == 1
    results = list(done)
    succeeded = {r.prediction_id for r in results if r.state is JobState.SUCCEEDED}
    prices = (each.price for each in kept.predictions() if each.id in succeeded)
    assert done.totals.charged_micro == sum(prices)
    assert len(succeeded) + done.totals.unknown == 60


def test_money_of_lost_answers_stays_in_sight(tmp_path: Path) -> None:
    """Resubmitted by the user's wish, then left out of the job file: listed, not 'removed'."""
    provider = FakeProvider(scripts={"x": Script(submits=[SubmitUnknown("reset")])})

    async def one(name: str) -> Manifest:
        async with opened(tmp_path, provider) as pipeline:
            return await pipeline.batch_generate([job(name)])

    run_virtual(one("x"))
    run_virtual(resolve(tmp_path, [], Decision(resubmit=True)))
    manifest = run_virtual(one("y"))
    listed = {result.name: result.reserved for result in manifest}
    assert manifest.totals.reserved_micro == 40_000 == int(listed["x"] * 1_000_000)
    assert (manifest.totals.removed, manifest.totals.pending) == (0, 1)


def test_a_first_pass_that_fails_is_counted(tmp_path: Path) -> None:
    """Jobs written before the mistake was met are pending, in the totals as in the ledger."""
    provider = FakeProvider(price_book=known_prices(simulated=True))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=64) as pipeline:
            batch = [job(f"{n}") for n in range(1000)]
            with pytest.raises(AsyncpipeError):
                await pipeline.batch_generate(
                    [*batch, Job(model="no/price/text-to-image", prompt="x")]
                )
            await counts_agree(pipeline)
            done = await pipeline.batch_generate(batch[:50])
            assert (done.totals.successful, done.totals.pending) == (50, 950)
            await counts_agree(pipeline)

    run_virtual(main())


@pytest.mark.parametrize("steps", [*range(12), 15, 20, 30])
def test_leaving_at_the_very_first_await_leaves_the_totals_right(
    tmp_path: Path, steps: int
) -> None:
    """Whatever the ledger had written by then is counted, and the job is withdrawn."""

    scripts = {"old": Script(submits=[BalanceExhausted("no money")])}
    provider = FakeProvider(scripts=scripts)

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            await pipeline.batch_generate([job("old")])
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            call = asyncio.ensure_future(pipeline.generate(job("a")))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await counts_agree(pipeline)
            done = await pipeline.generate(job("a"))
            assert done.status == "success"
            await counts_agree(pipeline)

    run_virtual(main())


def trouble(rng: Random) -> ProviderError:
    wish = rng.choice((None, 1.0, 30.0))
    return rng.choice(
        (
            RateLimited("429", status=429, retry_after_s=wish),
            NotAccepted("no connection"),
            NotAccepted("503", status=503),
            Rejected("400", status=400),
            SubmitUnknown("the answer was lost"),
        )
    )


def hard_life(rng: Random) -> Script:
    polls = (PollFailed("500", status=500), PollFailed("429", status=429), PredictionGone("404"))
    return Script(
        submits=[trouble(rng) for _ in range(rng.choice((0, 0, 0, 1, 2, 5)))],
        polls=[rng.choice(polls) for _ in range(rng.choice((0, 0, 0, 1, 3)))],
        generation_s=rng.choice((0.0, 5.0, 60.0, 1000.0)),
        submit_s=rng.choice((0.0, 1.0, 10.0, 400.0)),
        end=rng.choice((*[PredictionStatus.COMPLETED] * 3, PredictionStatus.FAILED)),
        error="gpu",
        released=rng.random() < 0.7,
        moderated=rng.random() < 0.1,
    )


async def let_go(rng: Random, work: Coroutine[Any, Any, object]) -> None:
    """Begin something, and leave it after a while."""
    begun = asyncio.ensure_future(work)
    await asyncio.sleep(rng.choice((0.0, 0.5, 50.0, 500.0)))
    begun.cancel()
    await asyncio.wait([begun])
    if not begun.cancelled():
        begun.exception()  # a refusal is an answer, too


async def churn(rng: Random, pipeline: Pipeline, jobs: list[Job]) -> None:
    """Callers who come and go beside the run."""

    async def some() -> None:
        async for _ in pipeline.stream(rng.sample(jobs, 8)):
            if rng.random() < 0.3:
                break

    for n in range(12):
        await asyncio.sleep(rng.choice((0.0, 0.5, 7.0, 100.0)))
        single = rng.choice(jobs) if rng.random() < 0.5 else job(f"single {n}")
        again = rng.random() < 0.5
        works: tuple[Callable[[], Coroutine[Any, Any, object]], ...] = (
            partial(pipeline.generate, single),
            partial(pipeline.batch_generate, rng.sample(jobs, 10), retry_failed=again),
            some,
        )
        await let_go(rng, rng.choice(works)())
        if rng.random() < 0.01:
            pipeline.stop()


def nothing_leaked(pipeline: Pipeline) -> None:
    """Every permit, place in a window and held amount was given back, and none twice."""
    engine = pipeline._parts()
    assert (engine.admission._carried, engine.tickets) == (0, {})
    assert engine.limiter.out == 0
    for known in engine.limiter.models.values():
        assert (known.window.in_flight, known.window._waiting, known.pause._out) == (0, 0, 0)
    assert engine.spending.budget.held == 0


@pytest.mark.parametrize("seed", range(8))
def test_after_any_history_nothing_is_held_and_all_counts_agree(tmp_path: Path, seed: int) -> None:
    """Jobs refused, lost, failed, put back, cancelled by callers who come and go beside a run."""
    rng = Random(seed)
    jobs = [Job(name=f"j{n}", model=rng.choice((FLUX, OTHER)), prompt="a mug") for n in range(30)]
    provider = FakeProvider(scripts={each.name or "": hard_life(rng) for each in jobs})
    workers, cap = rng.choice((1, 2, 5, 16)), rng.choice((None, Decimal("0.50")))
    options: dict[str, Any] = {
        "max_workers": workers,
        "max_cost": cap,
        "prices": {OTHER: Rate(per_image=Decimal("0.03"))},
        "resubmit_unknown": rng.random() < 0.3,
        "patience_s": rng.choice((None, 600.0)),
    }

    async def main() -> None:
        async with opened(tmp_path, provider, **options) as pipeline:
            beside = [asyncio.ensure_future(churn(rng, pipeline, jobs)) for _ in range(2)]
            await pipeline.batch_generate(jobs)
            await asyncio.gather(*beside)
            await pipeline.batch_generate(jobs)
            await asyncio.sleep(100_000)  # what callers left goes on without them
            nothing_leaked(pipeline)
            pipeline._parts().recorder.tell()
            counted, true = pipeline.totals, Totals.of(await pipeline._parts().ledger.sums())
            assert +counted.jobs == +true.jobs
            for name in ("charged", "reserved", "held", "lost_answers", "in_doubt", "removed"):
                assert getattr(counted, name) == getattr(true, name), name
            assert (
                pipeline._parts(ever=True).spending.budget.committed
                == true.charged_micro + true.reserved_micro
            )
            assert cap is None or true.charged + true.reserved <= cap

    run_virtual(asyncio.wait_for(main(), 1_000_000))
