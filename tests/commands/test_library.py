"""The commands as functions: data comes back, nothing is printed, and what is wrong is raised."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import asyncpipe
from asyncpipe import commands
from asyncpipe.errors import FolderInUse, JobFileError, LedgerError, UsageError
from asyncpipe.jobs import JobState
from asyncpipe.testing import FakeAccount, FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, assets, jobs, pipeline, run_batch

UNKNOWN_MODEL = "m/text-to-image"


def fake() -> FakeAccount:
    return FakeAccount(prices={FLUX: Decimal("0.05")}, money=Decimal(7))


def test_an_estimate_asks_a_provider_and_reads_tables_without() -> None:
    """Of jobs in hand as of a file; buys nothing."""
    provider = fake()
    asked = run_virtual(commands.estimate(jobs(3), provider))
    assert (asked.jobs, asked.total, asked.balance) == (3, Decimal("0.15"), Decimal(7))
    assert asked.cost_by_model == {FLUX: Decimal("0.15")}
    told = run_virtual(commands.estimate(jobs(3), max_workers=2))
    assert (told.total, told.balance, told.asked) == (Decimal("0.12"), None, 0)
    assert told.duration_s[0] < told.duration_s[1]
    assert json.loads(json.dumps(told.to_dict()))["total_cost"] == 0.12
    assert not provider.sold


def test_a_quote_is_one_jobs_price() -> None:
    job: dict[str, Any] = {"model": FLUX, "prompt": "a mug"}
    assert run_virtual(commands.quote(job, fake())).amount == Decimal("0.05")
    assert run_virtual(commands.quote(job)).amount == Decimal("0.04")
    with pytest.raises(JobFileError, match=UNKNOWN_MODEL):
        run_virtual(commands.quote({**job, "model": UNKNOWN_MODEL}))


def test_what_is_valid_is_counted_and_what_is_not_is_named(tmp_path: Path) -> None:
    """With the line of a file; a model without a price is none of these mistakes."""
    found = run_virtual(commands.validate([*jobs(2), {"model": UNKNOWN_MODEL, "prompt": "x"}]))
    assert (found.jobs, found.cost, found.unpriced_models) == (3, None, (UNKNOWN_MODEL,))
    file = tmp_path / "jobs.yaml"
    file.write_text(f"jobs:\n- {{model: {FLUX}, prompt: a mug}}\n- {{model: {FLUX}, promt: b}}\n")
    with pytest.raises(JobFileError) as caught:
        run_virtual(commands.validate(file))
    assert {problem.line for problem in caught.value.problems} == {3}


def test_a_folder_is_read_beside_its_run(tmp_path: Path) -> None:
    """Status and rows, as data; JSON takes what to_dict gives."""
    run_batch(tmp_path / "out", FakeProvider(), jobs(2))
    told = run_virtual(commands.status(tmp_path / "out"))
    assert (told.jobs[JobState.SUCCEEDED], told.charged) == (2, Decimal("0.08"))
    assert told.reserved == 0
    assert json.loads(json.dumps(told.to_dict()))["jobs"]["succeeded"] == 2
    rows = run_virtual(commands.export(tmp_path / "out"))
    assert [row["charged_usd"] for row in rows] == [Decimal("0.04")] * 2
    assert len(run_virtual(commands.export(tmp_path / "out", rows="attempts"))) == 2
    for name in ("rows.csv", "rows.jsonl"):
        assert run_virtual(commands.export(str(tmp_path / "out"), tmp_path / name)) == 2
        assert (tmp_path / name).stat().st_size
    with pytest.raises(UsageError, match=r"\.csv"):
        run_virtual(commands.export(tmp_path / "out", tmp_path / "rows.xlsx"))
    with pytest.raises(LedgerError):
        run_virtual(commands.status(tmp_path / "nothing"))


def test_what_is_damaged_is_found_and_collected(tmp_path: Path) -> None:
    """Unpaid; a simulated folder's provider is for its user to say."""
    provider = FakeProvider()
    run_batch(tmp_path, provider, jobs(2))
    assets(tmp_path)[0].unlink()
    found = run_virtual(commands.verify(tmp_path))
    assert (found.checked, found.bad_count) == (2, 1)
    with pytest.raises(UsageError, match="simulated"):
        run_virtual(commands.collect(tmp_path))
    manifest = run_virtual(commands.collect(tmp_path, provider))
    assert manifest.totals.successful == len(assets(tmp_path)) == len(provider.sold) == 2


def lost(folder: Path, **options: Any) -> FakeProvider:
    provider = FakeProvider(scripts={"杯子 0": Script(lost=1)}, **options)
    run_batch(folder, provider, jobs(2), ambiguous="hold")
    return provider


def test_lost_answers_are_decided_or_found(tmp_path: Path) -> None:
    """By the bill, by a prediction's id, or by the provider's list."""
    lost(tmp_path / "1")
    with pytest.raises(UsageError, match="lost_charged"):
        run_virtual(commands.resolve(tmp_path / "1"))
    (one,) = run_virtual(commands.resolve(tmp_path / "1", "杯子 0", lost_charged=True))
    assert (one.charged, one.released) == (Decimal("0.04"), Decimal(0))
    provider = lost(tmp_path / "2")
    one = run_virtual(commands.take_prediction(tmp_path / "2", "杯子 0", "p1"))
    assert one.after.state is JobState.SUBMITTED
    assert run_virtual(commands.collect(tmp_path / "2", provider)).totals.successful == 2
    provider = lost(tmp_path / "3")
    provider.shows_history = True
    (found,) = run_virtual(commands.find_lost(tmp_path / "3", provider))
    assert found.after.attempt.prediction_id == "p1"


def test_nothing_bought_agrees_with_any_bill(tmp_path: Path) -> None:
    """And nobody is asked for it."""
    run_batch(tmp_path, FakeProvider(), [])
    assert run_virtual(commands.reconcile(tmp_path)).agrees


def test_a_bill_that_differs_is_told(tmp_path: Path) -> None:
    """By a provider that has one: the others are an error."""
    provider = FakeProvider()
    run_batch(tmp_path, provider, jobs(1))
    with pytest.raises(asyncpipe.ProviderError, match="tells no bill"):
        run_virtual(commands.reconcile(tmp_path, provider))
    with pytest.raises(UsageError, match="the bill would be that of elsewhere"):
        run_virtual(commands.reconcile(tmp_path, FakeProvider(origin="elsewhere")))


def test_a_folder_that_a_run_holds_is_left_alone(tmp_path: Path) -> None:
    """Reading goes on beside it; what would write is refused."""

    async def main() -> None:
        async with pipeline(tmp_path, FakeProvider()) as opened:
            await opened.batch_generate(jobs(1))
            assert (await commands.status(tmp_path)).holder is not None
            with pytest.raises(FolderInUse):
                await commands.verify(tmp_path)
            with pytest.raises(FolderInUse):
                await commands.resolve(tmp_path, lost_charged=True)

    run_virtual(main())
