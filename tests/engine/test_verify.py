"""Earlier runs' assets are looked at beside a run: nobody waits for it, and it is in time."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path

import pytest

from asyncpipe import Job, Manifest, Pipeline, read_manifest
from asyncpipe.engine.verify import Comparison, Verified, compare, verify
from asyncpipe.errors import DiskError, LedgerError
from asyncpipe.jobs.record import JobRecord, StoredAsset
from asyncpipe.providers.base import Prediction
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.batches import assets, collect, jobs, run_counted


def run(folder: Path, provider: FakeProvider, count: int) -> tuple[Manifest, Exception | None]:
    async def main() -> tuple[Manifest, Exception | None]:
        async with Pipeline(provider, folder, seed=1) as pipeline:
            return await pipeline.batch_generate(jobs(count)), pipeline.stopped

    return run_virtual(main())


class Telling(FakeProvider):
    """Says when the first job is begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    async def submit(self, job: Job) -> Prediction:
        self.begun.set()
        return await super().submit(job)


def test_the_first_submit_waits_for_no_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a million assets that would take a while; and the run ends with all of them whole."""
    provider, step = Telling(), Comparison.step
    run(tmp_path, provider, 3)
    provider.begun.clear()
    (tmp_path / "images" / "杯子_1.png").unlink()

    async def after_the_submit(self: Comparison) -> list[JobRecord] | None:
        await asyncio.wait_for(provider.begun.wait(), 1e6)
        await asyncio.sleep(3600)  # longer than all the rest of the run
        return await step(self)

    monkeypatch.setattr(Comparison, "step", after_the_submit)
    manifest, stopped = run(tmp_path, provider, 4)
    assert stopped is None
    assert (manifest.totals.successful, provider.sold) == (4, [f"杯子 {n}" for n in range(4)])
    assert (tmp_path / "images" / "杯子_1.png").is_file()


def test_whoever_leaves_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain ends it after the page it is at."""
    run(tmp_path, FakeProvider(), 3)
    monkeypatch.setattr(import_module("asyncpipe.engine.verify"), "PAGE", 1)
    steps: list[Comparison] = []
    step = Comparison.step

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path) as pipeline:

            async def then_drain(self: Comparison) -> list[JobRecord] | None:
                steps.append(self)
                pipeline.stop()
                return await step(self)

            monkeypatch.setattr(Comparison, "step", then_drain)
            await pipeline.batch_generate(jobs(3))

    run_virtual(main())
    assert len(steps) == 1


def test_an_asset_that_cannot_be_read_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That says nothing of what is in it: nothing is fetched anew, and people hear of it."""
    run(tmp_path, FakeProvider(), 2)

    async def refuse(self: Comparison) -> None:
        raise DiskError("cannot be checked")

    monkeypatch.setattr(Comparison, "step", refuse)
    manifest, stopped = run(tmp_path, FakeProvider(), 2)
    assert isinstance(stopped, DiskError)
    assert manifest.totals.successful == 2


def test_verify_finds_what_is_damaged_and_keeps_what_people_changed(tmp_path: Path) -> None:
    """By size and by sha256; the changed file stays beside, the bought one comes back."""
    provider = FakeProvider()
    run_counted(tmp_path, provider, jobs(4))
    first, second, third, _ = assets(tmp_path)
    bought = first.read_bytes()
    first.write_bytes(bytes([bought[0] ^ 1]) + bought[1:])  # the same size
    second.write_bytes(b"cut")
    third.unlink()
    found = asyncio.run(verify(tmp_path))
    assert isinstance(found, Verified)
    assert (found.checked, found.bad_count) == (4, 3)
    problems = {Path(bad.asset.path).name: bad.problem for bad in found.bad}
    assert problems[third.name] == "is missing"
    assert f"kept as {second.name}.changed" in problems[second.name]
    assert read_manifest(tmp_path).totals.successful == 1
    manifest = collect(tmp_path, provider)
    assert (manifest.totals.successful, len(provider.sold)) == (4, 4)
    assert all(path.read_bytes() == bought for path in (first, second, third))
    assert second.with_name(f"{second.name}.changed").read_bytes() == b"cut"
    assert asyncio.run(verify(tmp_path)).bad_count == 0


def test_one_of_several_assets_is_fetched_alone(tmp_path: Path) -> None:
    """The others stay as they are."""
    provider = FakeProvider(default=Script(outputs=(PIXEL, PIXEL, PIXEL)))
    run_counted(tmp_path, provider, jobs(1))
    files = assets(tmp_path)
    files[1].unlink()
    before = files[0].stat().st_mtime_ns
    manifest, _ = run_counted(tmp_path, provider, jobs(1))
    assert assets(tmp_path) == files
    assert (files[0].stat().st_mtime_ns, manifest.totals.assets) == (before, 3)


def test_verify_of_nothing_says_so(tmp_path: Path) -> None:
    """A folder without a ledger is not verified silently."""
    with pytest.raises(LedgerError, match="no ledger"):
        asyncio.run(verify(tmp_path))


@pytest.mark.parametrize("path", ["../x.png", "images/../../x.png", "C:/x.png", "a\\..\\x", "/x"])
def test_a_path_of_the_ledger_that_leads_outside_is_refused(tmp_path: Path, path: str) -> None:
    """Nothing there is renamed or read."""
    folder, mine = tmp_path / "out", tmp_path / "x.png"
    folder.mkdir()
    mine.write_bytes(b"mine")
    asset = StoredAsset(1, 0, path, 9, "0" * 64)
    with pytest.raises(LedgerError, match="outside"):
        compare(folder, [asset], hashing=True)
    assert mine.read_bytes() == b"mine"


def test_a_linked_folder_leads_nowhere(tmp_path: Path) -> None:
    """Also where the path itself looks like ours."""
    folder, mine = tmp_path / "out", tmp_path / "mine"
    folder.mkdir()
    mine.mkdir()
    (mine / "a.png").write_bytes(b"mine")
    (folder / "images").symlink_to(mine)
    with pytest.raises(LedgerError, match="outside"):
        compare(folder, [StoredAsset(1, 0, "images/a.png", 9, "0" * 64)], hashing=False)
    assert (mine / "a.png").read_bytes() == b"mine"
