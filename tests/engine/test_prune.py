"""What is forgotten of old jobs, what never is, and that neither money nor identity changes."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import asyncpipe
from asyncpipe import Polling, commands
from asyncpipe.engine import Pruned
from asyncpipe.errors import FolderInUse, LedgerError, UsageError
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.report.status import read_status
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, assets, jobs, pipeline, run_batch
from tests.support.command_line import asyncpipe as command
from tests.support.postgres import shared_url

FAILED = PredictionStatus.FAILED
SECRET = "a mug for the launch of the submarine"
LONG = SECRET * 300  # several pages of a database, which are free when it is gone
NOW = timedelta(0)


def secret_jobs(count: int = 3) -> list[asyncpipe.Job]:
    return [
        asyncpipe.Job(name=f"杯子 {n}", model=FLUX, prompt=LONG, params={"seed": 4711})
        for n in range(count)
    ]


def forget(folder: Path, **options: Any) -> Pruned:
    return run_virtual(commands.prune(folder, options.pop("older_than", NOW), **options))


def sums(folder: Path) -> dict[str, Any]:
    told = read_status(folder).to_dict()
    return {name: told[name] for name in ("jobs", "money", "money_by_model", "lost_answers")}


def everywhere(folder: Path) -> bytes:
    state = folder / ".asyncpipe"
    return b"".join(path.read_bytes() for path in state.glob("ledger*"))


def test_prompts_go_and_money_and_identity_stay(tmp_path: Path) -> None:
    """Of what succeeded and what failed: no sum changes, and the same jobs buy nothing more."""
    scripts = {"杯子 1": Script(end=FAILED, error="no")}
    provider = FakeProvider(scripts=scripts, default=Script(generation_s=1.0))
    run_batch(tmp_path, provider, secret_jobs(), retries=0)
    before, sold = sums(tmp_path), len(provider.sold)
    size = ledger_path(tmp_path).stat().st_size
    assert SECRET.encode() in everywhere(tmp_path)
    looked = forget(tmp_path, dry_run=True)
    assert (looked.jobs, looked.charged, looked.left) == (3, Decimal("0.08"), {})
    assert SECRET.encode() in everywhere(tmp_path)
    done = forget(tmp_path)
    assert (done.jobs, done.charged, done.left) == (3, Decimal("0.08"), {})
    assert SECRET.encode() not in everywhere(tmp_path)
    assert b"4711" not in everywhere(tmp_path)
    assert sums(tmp_path) == before
    assert ledger_path(tmp_path).stat().st_size < size
    assert {row["prompt"] for row in run_virtual(commands.export(tmp_path))} == {"(pruned)"}
    assert forget(tmp_path).jobs == 0
    manifest, results, _ = run_batch(tmp_path, provider, secret_jobs())
    assert len(provider.sold) == sold
    assert manifest.totals.successful == 2
    assert [len(result.assets) for result in results] == [1, 0, 1]
    assert run_virtual(commands.verify(tmp_path)).checked == 2


def test_a_failed_job_that_was_pruned_is_not_retried_as_what_is_left_of_it(
    tmp_path: Path,
) -> None:
    """The same digest skips the pass over jobs: what would be sent is no prompt of anybody's."""
    provider = FakeProvider(default=Script(end=FAILED, error="no"))

    async def main(*, retry: bool) -> None:
        async with pipeline(tmp_path, provider, retries=0) as opened:
            await opened.batch_generate(secret_jobs(1), digest="same", retry_failed=retry)

    run_virtual(main(retry=False))
    forget(tmp_path)
    run_virtual(main(retry=True))
    assert {job.prompt for job in provider.submitted} == {LONG}
    provider.scripts = {"杯子 0": Script()}
    run_batch(tmp_path, provider, secret_jobs(1), retry_failed=True)
    assert provider.submitted[-1].prompt == LONG
    assert read_status(tmp_path).counts["succeeded"] == 1


def test_files_go_only_where_that_is_said(tmp_path: Path) -> None:
    """Then no run misses them, and nothing is fetched or bought again."""
    provider = FakeProvider()
    run_batch(tmp_path, provider, secret_jobs())
    looked = forget(tmp_path, files=True, dry_run=True)
    assert (looked.files, len(assets(tmp_path))) == (3, 3)
    done = forget(tmp_path, files=True)
    assert (done.files, done.bytes > 0, assets(tmp_path)) == (3, True, [])
    polls = provider.polls
    manifest, _, _ = run_batch(tmp_path, provider, secret_jobs())
    assert manifest.totals.successful == 3
    assert (len(provider.sold), provider.polls) == (3, polls)
    assert run_virtual(commands.verify(tmp_path)).bad_count == 0


def test_what_is_unknown_or_not_here_is_kept_whole(tmp_path: Path) -> None:
    """And said; so is what is not old enough."""
    provider = FakeProvider(scripts={"杯子 0": Script(lost=1)})
    run_batch(tmp_path, provider, secret_jobs(), ambiguous="hold")
    assets(tmp_path)[0].unlink()
    assert forget(tmp_path, older_than=timedelta(days=1)) == Pruned()
    done = forget(tmp_path, files=True)
    assert (done.jobs, done.files) == (1, 1)
    assert sorted(done.left.items()) == [
        ("paid, and their files are not here", 1),
        ("unknown: they may have been bought", 1),
    ]
    assert SECRET.encode() in everywhere(tmp_path)
    assert read_status(tmp_path).reserved == Decimal("0.04")


def test_what_may_still_cost_something_or_is_not_fetched_is_kept_whole(tmp_path: Path) -> None:
    """A failed job with an earlier lost answer; paid media that do not come."""
    scripts = {
        "杯子 0": Script(lost=1, end=FAILED, error="no"),
        "杯子 1": Script(outputs=("data:text/html,%3Chtml%3E",)),
    }
    provider = FakeProvider(scripts=scripts)
    run_batch(tmp_path, provider, secret_jobs(), ambiguous="resubmit", retries=1)
    done = forget(tmp_path)
    assert done.jobs == 1
    assert sorted(done.left) == [
        "failed, and what they cost may still change",
        "not ended",
    ]


def test_nobody_may_be_at_work_there(tmp_path: Path) -> None:
    """Nor a folder without a ledger, nor a time to come."""

    async def main() -> None:
        async with pipeline(tmp_path, FakeProvider()) as opened:
            await opened.batch_generate(jobs(1))
            with pytest.raises(FolderInUse):
                await commands.prune(tmp_path, NOW)

    run_virtual(main())
    with pytest.raises(UsageError, match="older_than"):
        forget(tmp_path, older_than=timedelta(days=-1))
    with pytest.raises(LedgerError):
        forget(tmp_path / "nothing")


def test_the_command_says_what_goes_and_asks_first(tmp_path: Path) -> None:
    """Without a terminal there is nobody to ask."""
    run_batch(tmp_path, FakeProvider(), secret_jobs())
    words = ("prune", str(tmp_path), "--older-than")
    assert command(*words, "30d", "--yes", cwd=tmp_path).stdout.startswith("0 jobs would be pruned")
    asked = command(*words, "0h", cwd=tmp_path)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    looked = json.loads(command(*words, "0h", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert (looked["jobs"], looked["charged"], looked["dry_run"]) == (3, 0.12, True)
    assert SECRET.encode() in ledger_path(tmp_path).read_bytes()
    done = command(*words, "0h", "--yes", cwd=tmp_path)
    assert done.returncode == 0
    assert "3 jobs pruned, 0.12 USD of them in all sums as before" in done.stdout
    assert "gone: prompts" in done.stdout
    assert command(*words, "1y", cwd=tmp_path).returncode == 2


def test_a_place_in_a_shared_ledger_is_pruned_when_nobody_works_there(tmp_path: Path) -> None:
    """A worker that holds a lease keeps it whole; the files lie in this folder."""
    provider = FakeProvider(default=Script(generation_s=0.0))
    url, soon = shared_url(), Polling(initial_s=0.01, factor=1.0, maximum_s=0.01)

    async def main() -> Pruned:
        async with pipeline(tmp_path / "out", provider, ledger=url, polling=soon) as opened:
            await opened.batch_generate(secret_jobs(2))
            with pytest.raises(FolderInUse, match="is worked in by"):
                await commands.prune(tmp_path / "out", NOW, ledger=url)
        return await commands.prune(tmp_path / "out", NOW, files=True, ledger=url)

    done = asyncio.run(main())
    assert (done.jobs, done.files, done.charged) == (2, 2, Decimal("0.08"))
    told = asyncio.run(commands.status(tmp_path / "out", ledger=url))
    assert (told.charged, told.counts["succeeded"]) == (Decimal("0.08"), 2)
    rows = asyncio.run(commands.export(tmp_path / "out", ledger=url))
    assert {row["prompt"] for row in rows} == {"(pruned)"}
