"""The same command resumes: what is done is left, what is bought is fetched, nothing is resent."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, JobState, Manifest, Pipeline, read_manifest
from asyncpipe.errors import BalanceExhausted, DiskError, Rejected
from asyncpipe.jobs.settings import Limits
from asyncpipe.report.totals import Totals
from asyncpipe.simulator.books import Books
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import assets, jobs, run_batch, run_counted
from tests.support.command_line import (
    asyncpipe,
    command,
    environment,
    job_lines,
    sold_by,
    start_simulator,
    submitted,
    write_jobs,
)
from tests.support.crashes import (
    Runner,
    against_simulator,
    judge,
    killing,
    patient,
    submitting,
    two_jobs,
)
from tests.support.mugs import MUGS, counts, mugs
from tests.support.pipelines import clock_restarts, job, opened
from tests.support.tables import tables


@killing
@patient
def test_killed_around_a_skipped_pass_nothing_is_lost_or_removed(tmp_path: Path) -> None:
    """The same file again, killed at every step until it has submitted, and once more."""

    def passes(folder: Path) -> tuple[int, int]:
        with tables(folder) as connection:
            whole = connection.execute("SELECT count(*) FROM runs WHERE seen=id").fetchone()
            skipped = connection.execute("SELECT count(*) FROM runs WHERE seen<id").fetchone()
            return int(whole[0]), int(skipped[0])

    def kill_everywhere(runs: Runner, books: Books) -> int:
        skips = 0
        for stop_at in range(10, 46, 3):
            folder = tmp_path / f"{stop_at}"
            jobs = two_jobs(f"same {stop_at}")
            assert runs.run(folder, jobs, stop_at=45, what="same")  # its pass has ended
            unknown = submitting(folder)
            assert runs.run(folder, jobs, stop_at=stop_at, what="same")
            unknown += submitting(folder)
            assert not runs.run(folder, jobs, stop_at=None, what="same")
            judge(folder, jobs, books, unknown)
            whole, skipped = passes(folder)
            assert whole == 1, "a pass was made again"
            skips += skipped
        return skips

    skips = against_simulator(tmp_path, kill_everywhere)
    assert skips > 15, "no run was killed after it skipped its pass"


def test_a_batch_in_the_same_pipeline_resumes_what_expired(tmp_path: Path) -> None:
    """No new process is needed; ``collect`` does it, too."""
    provider = FakeProvider(default=Script(generation_s=1e6))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            batch = [job("a", deadline_s=20.0)]
            assert (await pipeline.batch_generate(batch)).totals.jobs[JobState.EXPIRED] == 1
            polls = provider.polls
            assert (await pipeline.collect()).totals.jobs[JobState.EXPIRED] == 1
            assert provider.polls > polls
            clock_restarts(provider)
            assert (await pipeline.batch_generate(batch)).totals.successful == 1

    run_virtual(main())


def test_jobs_are_not_removed_by_a_program_that_came_between(tmp_path: Path) -> None:
    """What it bought is its own; what the file still has to do is pending, and in the manifest."""
    provider = FakeProvider()
    mugs(tmp_path, provider, "0.04")

    async def between() -> None:
        async with opened(tmp_path, provider) as pipeline:
            await pipeline.generate(job("own"))

    run_virtual(between())
    assert counts(mugs(tmp_path, provider, "0.12").totals) == (4, 3, 1, 0)
    assert counts(mugs(tmp_path, provider).totals) == (4, 4, 0, 0)


def test_a_session_that_named_nothing_removes_nothing(tmp_path: Path) -> None:
    """As one leaves it that was killed before it came to its jobs."""
    provider = FakeProvider()
    mugs(tmp_path, provider, "0.04")

    async def killed() -> None:
        async with opened(tmp_path, provider) as pipeline:
            await pipeline._parts().intake._begin()

    run_virtual(killed())
    assert counts(mugs(tmp_path, provider, "0.08").totals) == (3, 2, 1, 0)


def test_a_job_of_the_file_that_a_program_withdrew_is_made(tmp_path: Path) -> None:
    """The run must not end as if all were well, with the job neither made nor told of."""
    provider = FakeProvider(scripts={"blocker": Script(submit_s=50)})
    mugs(tmp_path, provider, "0.04")

    async def between() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            blocker = asyncio.ensure_future(pipeline.generate(job("blocker")))
            await asyncio.sleep(1)
            withdrawn = asyncio.ensure_future(pipeline.generate(job("mug 2")))
            await asyncio.sleep(1)
            withdrawn.cancel()
            await asyncio.wait([blocker, withdrawn])

    run_virtual(between())
    assert mugs(tmp_path, provider).totals.successful == 4
    assert {*MUGS} <= {*provider.sold}


def test_a_job_of_the_file_that_a_program_made_is_looked_at_like_the_others(tmp_path: Path) -> None:
    """Its file is fetched again when it is deleted; so it is when it failed and is wanted again."""
    provider = FakeProvider(scripts={"mug 1": Script(submits=[Rejected("no")])})
    mugs(tmp_path, provider, "0")

    async def between() -> None:
        async with opened(tmp_path, provider) as pipeline:
            for name in MUGS:
                await pipeline.generate(job(name))

    async def again() -> Totals:
        async with opened(tmp_path, provider) as pipeline:
            jobs = [job(name) for name in MUGS]
            manifest = await pipeline.batch_generate(jobs, digest="d1", retry_failed=True)
            return manifest.totals

    run_virtual(between())
    (deleted,) = (tmp_path / "images").glob("*2.png")
    deleted.unlink()
    assert run_virtual(again()).successful == 3
    assert deleted.exists()
    assert Counter(provider.sold) == Counter(MUGS)


def test_a_disk_that_fills_up_while_jobs_are_written_down_stops_the_run(tmp_path: Path) -> None:
    """The reason came before the first submit, and no new job makes anybody forget it."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:

            def jobs() -> Iterator[Job]:
                for n in range(5):
                    if n == 3:  # what the ledger does when it finds the disk full
                        ledger: Any = pipeline._parts(ever=True).ledger
                        ledger._ballast.release()
                    yield job(f"{n}")

            manifest = await pipeline.batch_generate(jobs())
            assert isinstance(pipeline.stopped, DiskError)
            assert manifest.totals.pending == 5
            for name in ("single", "another"):
                with pytest.raises(DiskError):
                    await pipeline.generate(job(name))
        assert provider.submits == 0

    run_virtual(main())


def test_the_same_command_submits_nothing_more(tmp_path: Path) -> None:
    """A second run finds everything done."""
    provider = FakeProvider()
    run_batch(tmp_path, provider, jobs(5))
    manifest, _, _ = run_batch(tmp_path, provider, jobs(5))
    assert (provider.submits, manifest.totals.successful) == (5, 5)


def test_new_jobs_join_and_removed_ones_stay_unsubmitted(tmp_path: Path) -> None:
    """A changed job file: what is new is run, what is gone is reported, nothing is lost."""
    provider = FakeProvider(
        scripts={"杯子 1": Script(submits=[BalanceExhausted("empty", status=402)])}
    )
    manifest, _, stopped = run_batch(tmp_path, provider, jobs(3), max_workers=1)
    assert isinstance(stopped, BalanceExhausted)
    assert (manifest.totals.successful, manifest.totals.pending) == (1, 2)
    manifest, _, _ = run_batch(tmp_path, provider, [jobs(3)[2], *jobs(5)[4:]])
    assert provider.sold == ["杯子 0", "杯子 2", "杯子 4"]
    assert (manifest.totals.successful, manifest.totals.removed, manifest.totals.total) == (3, 1, 3)


def fill(folder: Path, leave: int) -> Path:
    """Leave only ``leave`` bytes of a file system."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        while (free := shutil.disk_usage(folder).free) > leave:
            file.write(b"x" * min(1 << 16, free - leave))
            file.flush()
    return filler


@pytest.mark.parametrize("leave", [200_000, 30_000, 0])
def test_a_disk_that_fills_up_loses_nothing(small_disk: Path, leave: int) -> None:
    """In the middle of downloads and ledger writes: a message, exit 3, and a run that completes.

    The simulator's books are on the same disk as little as the ledger: they are kept elsewhere.
    """
    home = small_disk.parent
    write_jobs(home / "jobs.yaml", job_lines(24, size=512))
    server, url = start_simulator(home)
    try:
        run = ("run", "jobs.yaml", "--base-url", url, "-o", "disk/out", "--min-free", 0)
        key = {"ATLASCLOUD_API_KEY": "apikey-" + "1" * 32}
        process = subprocess.Popen(
            command(*run, "--no-progress"),
            cwd=home,
            env=environment(**key),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        out = small_disk / "out"
        for _ in range(4000):
            if (out / ".asyncpipe/ledger.sqlite3").exists() and submitted(out) >= 3:
                break
            time.sleep(0.005)
        filler = fill(small_disk, leave)
        printed, errors = process.communicate(timeout=250)
        assert process.returncode == 3, (printed, errors)
        assert "Traceback" not in printed + errors
        assert "make room" in " ".join((printed + errors).split())
        images = list((out / "images").iterdir())
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in images)
        filler.unlink()
        done = asyncpipe(*run, cwd=home, **key)
        totals = read_manifest(out).totals
        sold = sold_by(url)
        assert totals.successful + totals.unknown == 24, (errors, done.stdout, done.stderr)
        assert sold <= 24, "paid twice"
        assert totals.unknown == 0, (leave, errors, done.stdout)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_answers_that_are_out_when_the_disk_fills_are_recorded(small_disk: Path) -> None:
    """The ballast makes room for them; the run stops, nothing is unknown or bought again."""
    from asyncpipe import Job, Pipeline, Polling, Prediction
    from asyncpipe.errors import DiskError
    from asyncpipe.testing import FakeProvider, Script

    class Filling(FakeProvider):
        full: asyncio.Event

        async def submit(self, job: Job) -> Prediction:
            answer = await super().submit(job)
            if len(self.sold) == 8:
                fill(small_disk, 0)
                self.full.set()
            await self.full.wait()
            return answer

    provider = Filling(default=Script(generation_s=0.01))
    model = "black-forest-labs/flux-2-pro/text-to-image"
    jobs = [Job(name=f"杯 {n}", model=model, prompt="x" * 3000) for n in range(64)]
    polling = Polling(initial_s=0.01, maximum_s=0.1)

    async def main() -> tuple[Manifest | None, Exception | None]:
        provider.full = asyncio.Event()
        if provider.sold:
            provider.full.set()
        async with Pipeline(
            provider,
            small_disk / "out",
            max_workers=8,
            polling=polling,
            limits=Limits(window="fixed"),
            storage={"min_free_bytes": 0},
        ) as pipeline:
            try:
                return await pipeline.batch_generate(jobs), pipeline.stopped
            except DiskError as exc:  # no room for the manifest either
                return None, exc

    _, stopped = asyncio.run(main())
    assert isinstance(stopped, DiskError)
    totals = read_manifest(small_disk / "out").totals
    assert (totals.unknown, totals.jobs[JobState.SUBMITTING]) == (0, 0)
    (small_disk / "filler").unlink()
    manifest, stopped = asyncio.run(main())
    assert manifest is not None
    assert (manifest.totals.successful, stopped) == (64, None)
    assert len(provider.sold) == len(set(provider.sold)) == 64


def test_an_asset_deleted_by_hand_is_fetched_again_unpaid(tmp_path: Path) -> None:
    """The same command downloads it from its prediction; nothing is submitted."""
    provider = FakeProvider()
    run_counted(tmp_path, provider, jobs(5))
    whole = {path: path.read_bytes() for path in assets(tmp_path)}
    for path in list(whole)[1:3]:
        path.unlink()
    manifest, _ = run_counted(tmp_path, provider, jobs(5))
    assert {path: path.read_bytes() for path in assets(tmp_path)} == whole
    assert (manifest.totals.successful, len(provider.sold)) == (5, 5)
    assert manifest.totals.assets == 5


def test_a_named_job_of_a_service_is_fetched_again_too(tmp_path: Path) -> None:
    """``generate`` of a job whose file is gone brings it back instead of naming nothing."""
    provider = FakeProvider()

    async def main() -> None:
        async with Pipeline(provider, tmp_path) as pipeline:
            (first,) = (await pipeline.generate(jobs(1)[0])).assets
            (tmp_path / first.path).unlink()
            (second,) = (await pipeline.generate(jobs(1)[0])).assets
            assert (tmp_path / second.path).is_file()
            assert (first, len(provider.sold)) == (second, 1)

    run_virtual(main())
