"""What went wrong and is made good: assets that vanish, models that refuse, disks, lost answers."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncpipe import Job, JobState, Manifest, Pipeline
from asyncpipe.errors import BalanceExhausted, DiskError, Overloaded, Rejected, SubmitUnknown
from asyncpipe.media.disk import GIB, DiskSpace
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, assets, collect, jobs, run_counted

IMAGEN = "google/imagen4-ultra/text-to-image"
LOST = SubmitUnknown("reset")


def test_collect_finishes_what_was_submitted_and_submits_nothing(tmp_path: Path) -> None:
    """No job file: submitted jobs end, pending ones stay, and are not called removed."""
    provider = FakeProvider(default=Script(generation_s=50.0))

    async def cut_short() -> None:
        async with Pipeline(provider, tmp_path, max_workers=3) as pipeline:
            pipeline._parts().tasks.start_soon(pipeline.batch_generate, jobs(9))
            await asyncio.sleep(20)

    run_virtual(cut_short())
    for made in provider._made.values():
        made.ready = 0.0  # the next loop's clock begins anew
    totals = collect(tmp_path, provider).totals
    assert len(provider.sold) == totals.successful == 3
    assert (totals.pending, totals.removed) == (6, 0)
    assert run_counted(tmp_path, provider, jobs(9))[0].totals.successful == 9
    assert len(provider.sold) == 9


def test_lost_answers_are_submitted_again_where_the_user_said_so(tmp_path: Path) -> None:
    """Held jobs of earlier runs too; what each lost answer may cost stays reserved."""
    provider = FakeProvider(scripts={"杯子 1": Script(submits=[LOST, LOST])})
    manifest, _ = run_counted(tmp_path, provider, jobs(3))
    assert manifest.totals.unknown == 1
    manifest, _ = run_counted(tmp_path, provider, jobs(3), resubmit_unknown=True)
    assert (manifest.totals.successful, manifest.totals.unknown) == (3, 0)
    assert manifest.totals.reserved_micro == 2 * 40_000
    assert provider.submits == 5


NAMELESS = Prediction(id="", status=PredictionStatus.FAILED, error="failed")


@pytest.mark.parametrize(
    ("polls", "sold", "failed"),
    [
        ([NAMELESS], 1, 0),  # a gateway's word; the prediction goes on
        ([NAMELESS] * 90, 1, 1),  # the last word on it, and still no reason to buy another
        ([Prediction(id="p", status=PredictionStatus.FAILED, error="failed")], 3, 1),
    ],
)
def test_only_a_failure_that_names_its_prediction_is_bought_again(
    tmp_path: Path, polls: list[Prediction], sold: int, failed: int
) -> None:
    """A poll that answers "failed" for whatever reason paid for one picture three times."""
    provider = FakeProvider(scripts={"杯子 0": Script(polls=polls)})
    manifest, _ = run_counted(tmp_path, provider, jobs(1))
    assert len(provider.sold) == sold
    assert (manifest.totals.failed, manifest.totals.successful) == (failed, 1 - failed)


def test_lost_answers_are_not_submitted_for_ever(tmp_path: Path) -> None:
    """At most ``retries`` times each: every one may be paid for."""
    provider = FakeProvider(default=Script(submits=[LOST] * 50))
    manifest, _ = run_counted(tmp_path, provider, jobs(2), resubmit_unknown=True, retries=3)
    assert manifest.totals.unknown == 2
    assert provider.submits == 2 * (1 + 3)


def test_a_model_that_refuses_everything_is_stopped_and_others_go_on(tmp_path: Path) -> None:
    """20 refusals for one reason, whatever ids are in it; the rest stays pending and is told."""
    provider = FakeProvider()
    refusals = itertools.count()

    class Picky(FakeProvider):
        async def submit(self, job: Job) -> Any:
            if job.model == FLUX:
                self.submits += 1
                raise Rejected(f"unknown model (404), trace 7f{next(refusals):04x}")
            return await super().submit(job)

    provider = Picky()
    batch = [*jobs(60), *jobs(30, IMAGEN, "碗")]
    manifest, stopped = run_counted(tmp_path, provider, batch, max_workers=1)
    assert isinstance(stopped, Rejected)
    assert FLUX in str(stopped)
    assert "unknown model" in str(stopped)
    assert provider.submits == 20 + 30
    totals = manifest.totals
    assert (totals.failed, totals.pending, totals.successful) == (20, 40, 30)


@pytest.mark.parametrize("good", [0, 19])
def test_one_accepted_submit_shows_that_it_is_not_the_model(tmp_path: Path, good: int) -> None:
    """Also when all others are refused: then it is the jobs."""
    scripts = {f"杯子 {n}": Script(submits=[Rejected("bad prompt")]) for n in range(40)}
    scripts[f"杯子 {good}"] = Script()
    provider = FakeProvider(scripts=scripts)
    manifest, stopped = run_counted(tmp_path, provider, jobs(40), max_workers=1)
    assert (manifest.totals.failed, manifest.totals.successful, stopped) == (39, 1, None)


def test_different_reasons_do_not_stop_a_model(tmp_path: Path) -> None:
    """Two kinds of mistakes in a job file are the job file's."""
    words = ["too long", "bad size"]
    scripts = {f"杯子 {n}": Script(submits=[Rejected(words[n % 2])]) for n in range(40)}
    manifest, stopped = run_counted(tmp_path, FakeProvider(scripts=scripts), jobs(40))
    assert (manifest.totals.failed, stopped) == (40, None)


def test_callers_of_a_stopped_model_are_told(tmp_path: Path) -> None:
    """Nobody waits for a job that is not going to be submitted."""
    provider = FakeProvider(default=Script(submits=[Rejected("no such model")]))

    async def main() -> None:
        async with Pipeline(provider, tmp_path, max_workers=1) as pipeline:
            calls = [pipeline.generate(job) for job in jobs(30)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
        told = [end for end in ended if isinstance(end, Rejected)]
        assert len(told) == 10
        assert all("the first 20 submits" in str(end) for end in told)

    run_virtual(main())


def test_nothing_is_submitted_below_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, says why, and goes on when there is room; what is paid for is finished."""
    left = {"bytes": 2 * GIB}
    monkeypatch.setattr("asyncpipe.media.disk.shutil.disk_usage", lambda _: _usage(left["bytes"]))
    provider = FakeProvider()
    seen: list[tuple[int, str]] = []

    async def main() -> Manifest:
        async with Pipeline(provider, tmp_path, max_workers=2) as pipeline:

            async def room_later() -> None:
                await asyncio.sleep(3)
                left["bytes"] = GIB // 2
                await asyncio.sleep(300)
                seen.append((len(provider.sold), str(pipeline.waiting)))
                assert pipeline.totals.successful == len(provider.sold)
                left["bytes"] = 2 * GIB

            pipeline._parts().tasks.start_soon(room_later)
            return await pipeline.batch_generate(jobs(20))

    assert run_virtual(main()).totals.successful == 20
    ((sold, waiting),) = seen
    assert sold == 2
    assert "0.50 GiB are free" in waiting
    assert "--min-free" in waiting


def test_patience_ends_the_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as long as a refusing provider is waited for."""
    monkeypatch.setattr("asyncpipe.media.disk.shutil.disk_usage", lambda _: _usage(0))
    provider = FakeProvider()
    manifest, stopped = run_counted(tmp_path, provider, jobs(3), patience_s=600.0)
    assert isinstance(stopped, DiskError)
    assert (provider.submits, manifest.totals.pending) == (0, 3)


def test_a_floor_of_zero_asks_nobody(tmp_path: Path) -> None:
    """Then not even the file system is asked."""
    room = DiskSpace(tmp_path, 0, lambda: 0.0, free=lambda _: 1 // 0)
    assert room.enough()
    assert room.problem is None


def _usage(free: int) -> Any:
    return SimpleNamespace(free=free)


def test_a_disk_that_takes_nothing_stops_the_run_and_keeps_what_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that cannot be written: no more submits; the next run only downloads."""
    from asyncpipe.media.downloader import Downloader

    async def full(self: Downloader, url: str, target: object) -> Any:
        raise DiskError("no space left")

    provider = FakeProvider()
    with monkeypatch.context() as patch:
        patch.setattr(Downloader, "fetch", full)
        manifest, stopped = run_counted(tmp_path, provider, jobs(30), max_workers=2)
    assert isinstance(stopped, DiskError)
    sold = len(provider.sold)
    assert sold < 10
    assert manifest.totals.jobs[JobState.GENERATED] == sold
    assert run_counted(tmp_path, provider, jobs(30))[0].totals.successful == 30
    assert len(provider.sold) == 30


def test_a_moved_folder_goes_on_elsewhere(tmp_path: Path) -> None:
    """Nothing in it names where it was."""
    stop = Script(submits=[BalanceExhausted("402")])
    provider = FakeProvider(scripts={"杯子 4": stop})
    run_counted(tmp_path / "here", provider, jobs(8), max_workers=1)
    (tmp_path / "here").rename(tmp_path / "那里")
    manifest, _ = run_counted(tmp_path / "那里", provider, jobs(8))
    assert (manifest.totals.successful, len(provider.sold)) == (8, 8)
    assert len(assets(tmp_path / "那里")) == 8


def test_simulated_runs_move_with_their_books(tmp_path: Path) -> None:
    """Also over real sockets, with a simulator of another port."""
    from asyncpipe import AtlasCloud, Polling

    async def main(folder: Path) -> Manifest:
        folder.joinpath(".asyncpipe").mkdir(parents=True, exist_ok=True)
        settings = SimulatorSettings(
            speed=200, faults=Faults(cut=0.3), books=folder / ".asyncpipe" / "books"
        )
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            polling = Polling(initial_s=0.02, maximum_s=0.1)
            async with Pipeline(provider, folder, polling=polling) as pipeline:
                return await pipeline.batch_generate(jobs(4))

    asyncio.run(main(tmp_path / "a"))
    assets(tmp_path / "a")[0].unlink()
    (tmp_path / "a").rename(tmp_path / "b")
    assert asyncio.run(main(tmp_path / "b")).totals.successful == 4
    assert len(Books(tmp_path / "b" / ".asyncpipe" / "books").predictions()) == 4


def test_a_changed_prompt_is_a_new_job_beside_the_old_asset(tmp_path: Path) -> None:
    """The old picture stays and stays in the manifest; other retries make no new job."""
    provider = FakeProvider()
    run_counted(tmp_path, provider, jobs(2))
    old = {path: path.read_bytes() for path in assets(tmp_path)}
    changed = [jobs(2)[0], Job(name="杯子 1", model=FLUX, prompt="another mug")]
    manifest, _ = run_counted(tmp_path, provider, changed)
    assert (manifest.totals.successful, len(provider.sold)) == (3, 3)
    new = {path: path.read_bytes() for path in assets(tmp_path)}
    assert {path: new[path] for path in old} == old
    assert len(new) == 3
    cheaper = [Job(name=job.name, model=job.model, prompt=job.prompt, retries=9) for job in changed]
    assert run_counted(tmp_path, provider, cheaper)[0].totals.successful == 3
    assert len(provider.sold) == 3


@pytest.mark.parametrize("wish_s", [None, 30.0, 200.0, 3600.0])
def test_patience_ends_a_run_however_long_it_is_told_to_wait(
    tmp_path: Path, wish_s: float | None
) -> None:
    """Between two answers nothing was submitted, so nothing is forgotten either."""
    busy = Overloaded("503", status=503, retry_after_s=wish_s)
    provider = FakeProvider(default=Script(submits=[busy] * 9999))

    async def main() -> None:
        async with asyncio.timeout(4 * 3600):
            async with Pipeline(
                provider, tmp_path, seed=1, recovery={"patience_s": 600.0}
            ) as pipeline:
                manifest = await pipeline.batch_generate(jobs(3))
                assert manifest.totals.pending == 3
                assert "no submit was accepted for 600 s" in str(pipeline.stopped)

    run_virtual(main())
