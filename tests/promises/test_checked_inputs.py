"""No job is bought with other input files than were checked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncpipe.media.local import LocalFiles, trouble_with
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.photos import PNG, batch, errors, job, photo, pipeline


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
