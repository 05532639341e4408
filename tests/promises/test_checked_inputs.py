"""No job is bought with other input files than were checked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncpipe import Manifest
from asyncpipe.errors import LedgerError
from asyncpipe.media.local import LocalFiles, trouble_with
from asyncpipe.simulator.books import Books
from asyncpipe.testing import PIXEL, FakeProvider, run_virtual
from tests.support.crashes import (
    FLUX,
    Runner,
    against_simulator,
    judge,
    killing,
    patient,
    submitting,
)
from tests.support.photos import PNG, batch, errors, job, photo, pipeline
from tests.support.pipelines import job as plain_job
from tests.support.pipelines import opened
from tests.support.tables import tables


def test_a_photo_that_changes_under_an_unchanged_job_file_is_another_job(tmp_path: Path) -> None:
    """The pass over the jobs is not skipped for them, whatever the digest of the job file."""
    path = photo(tmp_path, "a.png")

    async def main(provider: FakeProvider) -> None:
        async with pipeline(provider, tmp_path) as running:
            attached = LocalFiles(tmp_path).attach(job("one", "a.png"))
            await running.batch_generate([attached], digest="same")

    first, second, third = FakeProvider(), FakeProvider(), FakeProvider()
    run_virtual(main(first))
    run_virtual(main(second))
    _rewrite(path)
    run_virtual(main(third))
    assert [len(each.sold) for each in (first, second, third)] == [1, 0, 1]


class Changing(FakeProvider):
    """Something happens to the file while it is on its way."""

    change: Callable[[Path], object]

    async def upload(self, path: Path) -> str:
        self.change(path)
        return await super().upload(path)


def _rewrite(path: Path) -> None:
    path.write_bytes(PNG + b"other bytes of another size")


def _same_size(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body[:-1] + b"!")
    os.utime(path, ns=(5, 5))


@pytest.mark.parametrize("change", [_rewrite, _same_size, Path.unlink])
@pytest.mark.parametrize("when", ["before", "while"])
def test_no_job_is_bought_with_other_bytes_than_its_key_says(
    tmp_path: Path, change: Callable[[Path], object], when: str
) -> None:
    """Changed or gone between the first pass and the submit: failed, uncharged, said clearly."""
    path = photo(tmp_path, "a.png")
    provider = Changing()
    provider.change = change if when == "while" else lambda _: None
    attached = LocalFiles(tmp_path).attach(job("one", "a.png"))
    if when == "before":
        change(path)

    async def main() -> Counter[str]:
        async with pipeline(provider, tmp_path) as running:
            return Counter(r.outcome.value for r in await running.batch_generate([attached]))

    assert run_virtual(main()) == {"failed, not charged": 1}
    assert provider.submits == 0
    assert len(provider.uploads) == (when == "while")
    assert all("a.png" in error and "nothing was bought" in error for error in errors(tmp_path))


def test_a_file_touched_but_not_changed_is_the_same(tmp_path: Path) -> None:
    """A copy or a restore changes times, not bytes."""
    path = photo(tmp_path, "a.png")
    file = LocalFiles(tmp_path).attach(job("one", "a.png")).inputs["a.png"]
    os.utime(path, ns=(1, 1))
    assert trouble_with(file, read=False) is None


def test_a_file_that_is_gone_is_not_needed_while_its_url_is_young(tmp_path: Path) -> None:
    """The bytes are at the provider already, under their digest."""
    path = photo(tmp_path, "a.png")
    attached = LocalFiles(tmp_path).attach(job("two", "a.png"))
    batch(FakeProvider(), tmp_path, [job("one", "a.png")])
    path.unlink()
    provider = FakeProvider()
    ends = batch(provider, tmp_path, [attached])
    assert ends["succeeded"] == 2
    assert (len(provider.uploads), provider.sold) == (0, ["two"])


def known_uploads(folder: Path) -> int:
    """Files whose URL the ledger holds."""
    try:
        with tables(folder) as connection:
            return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])
    except LedgerError:
        return 0


@killing
@patient
def test_killed_around_an_upload_nothing_is_lost_or_sent_again(tmp_path: Path) -> None:
    """From the start to the submit's answer: a URL the ledger holds is used by the next run.

    Before the intent nothing is unknown, however far the upload came.
    """

    def kill_everywhere(runs: Runner, books: Books) -> Counter[str]:
        stop_at, seen = 35, Counter[str]()  # what comes before is the same in every run
        while not seen["bought"]:
            stop_at += 1
            folder, photo = tmp_path / f"{stop_at}", tmp_path / f"照片 {stop_at}.png"
            photo.write_bytes(b"\x89PNG\r\n\x1a\n" + folder.name.encode() + bytes(700_000))
            digest = hashlib.sha256(photo.read_bytes()).hexdigest()
            params = {"image": str(photo), "num_images": 1}
            jobs = [{"name": "杯", "model": FLUX, "prompt": f"up {stop_at}", "params": params}]
            assert runs.run(folder, jobs, stop_at=stop_at)
            sent, held, unknown = books.uploads(), known_uploads(folder), submitting(folder)
            bought = any(p.body["prompt"] == f"up {stop_at}" for p in books.predictions())
            assert not runs.run(folder, jobs, stop_at=None)
            judge(folder, jobs, books, unknown)
            again = books.uploads().get(digest, 0) - sent.get(digest, 0)
            assert again == (0 if held else 1)
            assert sent.get(digest, 0) >= held
            assert unknown <= held
            seen.update(sent=sent.get(digest, 0) and not held, held=held, bought=bought)
        return seen

    seen = against_simulator(tmp_path, kill_everywhere)
    assert seen["sent"] > 1, "no run was killed between an upload and its record"
    assert seen["held"] > 1, "no run was killed between an upload and its submit"


def test_other_bytes_of_the_same_size_and_time_are_not_bought(tmp_path: Path) -> None:
    """As a copy that keeps times leaves them, or a file system that knows seconds only."""
    photo, provider = tmp_path / "a.png", FakeProvider()

    def taken(end: bytes) -> None:
        photo.write_bytes(base64.b64decode(PIXEL.partition(",")[2]) + end)
        os.utime(photo, ns=(10**18, 10**18))

    async def main() -> Manifest:
        async with opened(
            tmp_path / "out", provider, max_workers=1, local_files=tmp_path
        ) as pipeline:
            blocker = asyncio.ensure_future(pipeline.generate(plain_job("blocker")))
            await asyncio.sleep(1)
            jobs = [plain_job("a", params={"image": str(photo)})]
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
            await asyncio.sleep(1)
            taken(b"2")
            await blocker
            return await batch

    taken(b"1")
    manifest = run_virtual(main())
    assert provider.sold == ["blocker"]
    (result,) = [result for result in manifest if result.name == "a"]
    assert "has changed since it was checked" in (result.error or "")
