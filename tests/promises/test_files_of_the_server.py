"""Who sends a job to a service reads none of its files, but those that it means to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Reason
from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile import load_jobs
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.photos import FLUX, photo, pipeline

SECRET = b"root:$6$secret:19000:0:99999:7:::"


def refused(folder: Path, image: Any, local_files: Path | None = None) -> str:
    """What a caller is told whose job names a file; nothing is uploaded and nothing bought."""
    provider = FakeProvider()
    params = image if isinstance(image, dict) else {"image": image}
    row = {"name": "杯", "model": FLUX, "prompt": "p", "params": params}
    job = Job(name="杯", model=FLUX, prompt="p", params=params)
    told = []

    async def main() -> None:
        async with pipeline(provider, folder, local_files=local_files) as running:
            with pytest.raises(JobFileError) as caught:
                await running.generate(row)
            told.append(str(caught.value))
            with pytest.raises(JobFileError):
                await running.generate(job)
            streamed = [each async for each in running.stream([row, job])]
            assert [each.reason for each in streamed] == [Reason.REFUSED] * 2
            assert [each.error for each in streamed] == told * 2
            with pytest.raises(JobFileError):
                await running.batch_generate([row])

    run_virtual(main())
    assert not provider.uploads
    assert not provider.sold
    return told[0]


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A server's folders: ``open`` may be read; ``tenant`` and ``shadow`` may not."""
    photo(tmp_path, "open/a.png")
    photo(tmp_path, "tenant/图.png")
    (tmp_path / "shadow").write_bytes(SECRET)
    (tmp_path / "open" / "link.png").symlink_to(tmp_path / "tenant" / "图.png")
    (tmp_path / "open" / "folder").symlink_to(tmp_path / "tenant")
    (tmp_path / "open" / "shadow.png").symlink_to(tmp_path / "shadow")
    return tmp_path


OUTSIDE = [
    "shadow",
    "tenant/图.png",
    "tenant/none.png",
    "tenant",
    "open/../tenant/图.png",
    "open/link.png",
    "open/folder/图.png",
    "open/shadow.png",
    "open-not/a.png",
    "../../../../etc/passwd",
    "/etc/shadow",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("allowed", [True, False])
def test_no_file_outside_is_read_or_known_to_be_there(
    served: Path, name: str, *, allowed: bool
) -> None:
    """The words are those for a file that is not there, for a folder, and for a secret."""
    text = name if name.startswith(("/", "..")) else str(served / name)
    told = refused(served, text, served / "open" if allowed else None)
    nothing = refused(served, "/nowhere/x.png", served / "open" if allowed else None)
    assert told.replace(repr(text[:200]), "IT") == nothing.replace("'/nowhere/x.png'", "IT")
    assert "secret" not in told
    assert "local_files" in told


def test_a_file_is_refused_wherever_a_field_holds_it(served: Path) -> None:
    """In lists, and in mappings inside them."""
    mine = str(served / "open" / "a.png")
    for image in ([mine], ["https://cdn.example/a.png", mine]):
        assert "may not read" in refused(served, image)
    assert "may not read" in refused(served, {"references": [{"image_url": mine}]})


@pytest.mark.parametrize("given", ["file:///etc/shadow", "\x00", "open/a.png\x00"])
def test_odd_spellings_read_nothing_either(served: Path, given: str) -> None:
    """A URL of a file, and names no file can have."""
    assert "secret" not in refused(served, given, served / "open")


def test_inputs_cannot_be_given_from_outside(served: Path) -> None:
    """What was hashed before is the program's own word, never a sender's."""
    inputs = {"x.png": {"path": str(served / "shadow"), "size": 3, "mtime_ns": 1, "sha256": "0"}}
    row = {"name": "杯", "model": FLUX, "prompt": "p", "image": "x.png", "inputs": inputs}

    async def main() -> None:
        async with pipeline(FakeProvider(), served) as running:
            with pytest.raises(UsageError):
                await running.generate(row)

    run_virtual(main())


def test_what_lies_below_the_folder_is_taken(served: Path) -> None:
    """Also by another name of it, and however the folder itself is linked."""
    provider = FakeProvider()
    photo(served, "open/deep/er/b.png")
    (served / "alias").symlink_to(served / "open")

    async def main() -> None:
        async with pipeline(provider, served, local_files=served / "alias") as running:
            for n, name in enumerate(["open/a.png", "alias/a.png", "open/deep/er/b.png"]):
                row = {"name": f"{n}", "model": FLUX, "prompt": "p", "image": str(served / name)}
                assert (await running.generate(row)).status == "success"

    run_virtual(main())
    assert len(provider.uploads) == 2


def test_a_job_file_of_ones_own_may_name_any(served: Path) -> None:
    """Who reads it from the disk has said which files it means."""
    path = served / "jobs.yaml"
    path.write_text(f"jobs: [{{name: 杯, model: {FLUX}, prompt: p, image: tenant/图.png}}]")
    provider = FakeProvider()

    async def main() -> None:
        async with pipeline(provider, served) as running:
            await running.batch_generate(load_jobs(path).jobs)

    run_virtual(main())
    assert (provider.sold, len(provider.uploads)) == (["杯"], 1)
