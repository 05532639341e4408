"""A run over the same job file does not read it again; anything else does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Manifest, Pipeline
from asyncpipe.errors import Rejected, UsageError
from asyncpipe.report.totals import Totals
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import a_pipeline
from tests.support.tables import tables

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


class Counted:
    """Jobs that know how often they were read; reading breaks off before ``breaks``."""

    def __init__(self, count: int, *, word: str = "a mug", breaks: int | None = None) -> None:
        self.count, self.word, self.breaks, self.read = count, word, breaks, 0

    def __iter__(self) -> Iterator[Job]:
        self.read += 1
        for n in range(self.count):
            if n == self.breaks:
                raise UsageError("line 5: not a job")
            yield Job(name=f"{self.word} {n}", model=FLUX, prompt=self.word)


def run(folder: Path, jobs: Iterable[Job], digest: str | None, **options: Any) -> Manifest:
    provider = options.pop("provider", None) or FakeProvider()
    batch = {name: options.pop(name) for name in ("retry_failed",) if name in options}

    async def main() -> Manifest:
        async with a_pipeline(provider, folder, seed=1, **options) as pipeline:
            return await pipeline.batch_generate(jobs, digest=digest, **batch)

    return run_virtual(main())


def counts(totals: Totals) -> tuple[int, int, int, int]:
    return totals.total, totals.successful, totals.pending, totals.removed


def test_the_same_digest_is_not_read_again_and_goes_on(tmp_path: Path) -> None:
    """What was left pending is submitted without a look at the file; so is the third time."""
    jobs, provider = Counted(5), FakeProvider()
    first = run(tmp_path, jobs, "d1", provider=provider, max_cost=_usd("0.12"))
    assert counts(first.totals) == (5, 3, 2, 0)
    second = run(tmp_path, jobs, "d1", provider=provider, max_cost=_usd("0.16"))
    assert counts(second.totals) == (5, 4, 1, 0)
    third = run(tmp_path, jobs, "d1", provider=provider)
    assert counts(third.totals) == (5, 5, 0, 0)
    assert jobs.read == 1
    assert len(provider.sold) == 5
    assert len(list(third)) == 5


def test_another_digest_or_none_reads(tmp_path: Path) -> None:
    """A changed file, and jobs of a program, are always read."""
    jobs = Counted(2)
    for digest in ("d1", "d2", None, None, "", "", "d2"):
        run(tmp_path, jobs, digest)
    assert jobs.read == 7


def test_another_file_in_between_is_noticed(tmp_path: Path) -> None:
    """Its jobs took the folder's last run: the first file's have to be named again."""
    mugs, cups = Counted(3), Counted(3, word="a cup")
    run(tmp_path, mugs, "d1", max_cost=_usd("0.04"))
    between = run(tmp_path, cups, "d2", max_cost=_usd("0.04"))
    assert between.totals.removed == 2  # the mugs that were not bought
    last = run(tmp_path, mugs, "d1")
    assert mugs.read == 2
    assert last.totals.successful == 3
    assert last.totals.removed == 3
    with tables(tmp_path) as connection:
        left = connection.execute("SELECT name FROM jobs WHERE state='pending'").fetchall()
    assert {name for (name,) in left} == {"a cup 0", "a cup 1", "a cup 2"}


def test_a_pass_that_broke_off_is_made_again(tmp_path: Path) -> None:
    """Rows before the break were marked; they are not the whole file, and nothing is drawn."""
    jobs, provider = Counted(2500), FakeProvider()
    run(tmp_path, jobs, "d1", provider=provider, max_cost=_usd("0.04"))
    broken = Counted(2500, breaks=2000)
    with pytest.raises(UsageError, match="line 5"):
        run(tmp_path, broken, "d2", provider=provider)
    assert len(provider.sold) == 1
    run(tmp_path, jobs, "d1", provider=provider, max_cost=_usd("0.04"))
    assert jobs.read == 2


def test_a_pass_killed_in_its_middle_is_no_pass(tmp_path: Path) -> None:
    """The same file again, as after a crash: read again whole, every job made once."""
    killed, provider = Counted(1500, breaks=1200), FakeProvider()
    with pytest.raises(UsageError):
        run(tmp_path, killed, "d1", provider=provider)
    assert provider.sold == []
    with tables(tmp_path) as connection:  # as a killed process leaves it: 1000 rows, no digest
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1000,)
        assert connection.execute("SELECT max(digest) FROM runs").fetchone() == ("",)
    whole = Counted(1500)
    last = run(tmp_path, whole, "d1", provider=provider, max_cost=_usd("0.40"), max_workers=10)
    assert (whole.read, last.totals.total, last.totals.successful) == (1, 1500, 10)


def test_failed_jobs_are_tried_again_without_reading(tmp_path: Path) -> None:
    """--retry-failed finds the jobs of the earlier run by what their rows bear."""
    jobs = Counted(3)
    refusing = FakeProvider(default=Script(submits=[Rejected("no")]))
    first = run(tmp_path, jobs, "d1", provider=refusing)
    assert first.totals.failed == 3
    second = run(tmp_path, jobs, "d1", retry_failed=True)
    assert second.totals.successful == 3
    assert jobs.read == 1


def test_a_service_may_repeat_a_batch_and_ask_for_single_jobs(tmp_path: Path) -> None:
    """The batch is read once in each session; a job of the program's own stays its own."""
    jobs, provider = Counted(3), FakeProvider()

    async def main() -> Totals:
        async with Pipeline(provider, tmp_path, seed=1) as pipeline:
            await pipeline.batch_generate(jobs, digest="d1")
        async with Pipeline(provider, tmp_path, seed=1) as pipeline:
            await pipeline.generate(Job(name="own", model=FLUX, prompt="own"))
            await pipeline.batch_generate(jobs, digest="d1")
            await pipeline.generate(Job(name="a mug 0", model=FLUX, prompt="a mug"))
            manifest = await pipeline.batch_generate(jobs, digest="d1")
            return manifest.totals

    assert counts(run_virtual(main())) == (4, 4, 0, 0)
    assert jobs.read == 2
    assert len(provider.sold) == 4


def _usd(amount: str) -> Any:
    from decimal import Decimal

    return Decimal(amount)


def test_finished_jobs_that_changed_are_told_before_they_are_bought_anew(tmp_path: Path) -> None:
    """A word edited in a template makes every job another one: right, and dear to find out late."""

    def reworded(word: str) -> list[Job]:
        return [Job(name=f"mug {n}", model=FLUX, prompt=f"{word} {n}") for n in range(4)]

    told: list[str] = []
    run(tmp_path, reworded("a mug"), "d1", on_remark=told.append)
    run(tmp_path, reworded("a mug"), "d2", on_remark=told.append)
    assert told == []
    run(tmp_path, reworded("a cup")[:3], "d3", on_remark=told.append)
    (remark,) = told
    assert remark.startswith("3 jobs are finished here under the same name, and have changed")
