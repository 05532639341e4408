"""Jobs that take in objects of a bucket: looked at, hashed, and sent like files of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job
from asyncpipe.errors import UsageError
from asyncpipe.jobs import BucketUrl
from asyncpipe.media.bucket import Bucket
from asyncpipe.media.local import BadInputs, LocalFiles, trouble_with
from asyncpipe.testing import FakeProvider
from tests.support.buckets import S3, a_bucket
from tests.support.job_files import load, problems
from tests.support.photos import PNG, errors, job, pipeline

PHOTO = PNG + b"photo" + bytes(2000)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with a_bucket(monkeypatch) as found:
        yield found


def photo(s3: S3, key: str, body: bytes = PHOTO) -> str:
    s3.client.put_object(Bucket=s3.bucket, Key=key, Body=body)
    return f"s3://{s3.bucket}/{key}"


class Keeping(FakeProvider):
    """A provider that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    async def upload(self, path: Path) -> str:
        self.bodies.append(path.read_bytes())
        return await super().upload(path)


def run(provider: FakeProvider, tmp_path: Path, jobs: list[Job]) -> list[str]:
    async def main() -> list[str]:
        async with pipeline(provider, tmp_path) as running:
            return [each.outcome.value for each in await running.batch_generate(jobs)]

    return asyncio.run(main())


def test_an_object_is_sent_once_and_noted_by_its_bytes(s3: S3, tmp_path: Path) -> None:
    """The key of a job is that of the bytes, wherever they lie."""
    here = tmp_path / "a.png"
    here.write_bytes(PHOTO)
    url, files = photo(s3, "refs/my photo.png"), LocalFiles(tmp_path)
    first, second = (files.attach(job(name, url)) for name in ("one", "two"))
    assert first.inputs[url].sha256 == files.attach(job("one", "a.png")).inputs["a.png"].sha256
    assert first.inputs[url].size == len(PHOTO)
    provider = Keeping()
    assert run(provider, tmp_path, [first, second]) == ["succeeded"] * 2
    assert provider.bodies == [PHOTO]
    assert all(sent.params["image"].startswith("https://") for sent in provider.submitted)
    assert not provider.uploads[0].exists()  # the copy is gone


def test_an_object_that_changed_is_not_bought_with(s3: S3, tmp_path: Path) -> None:
    """Other bytes are another job; what comes back is taken."""
    url = photo(s3, "a.png")
    given = LocalFiles().attach(job("one", url))
    photo(s3, "a.png", PNG + b"other" + bytes(2000))
    provider = Keeping()
    assert run(provider, tmp_path, [given]) == ["failed, not charged"]
    assert "has changed since it was checked" in errors(tmp_path)[0]
    assert not provider.bodies
    assert not provider.sold


def test_an_object_is_read_again_when_it_was_written_again(s3: S3) -> None:
    """The same bytes are the same input."""
    url, files = photo(s3, "a.png"), LocalFiles()
    first = files.attach(job("one", url)).inputs[url]
    assert trouble_with(first, read=False) is None
    photo(s3, "a.png", PNG + b"more" + bytes(3000))
    assert "has changed" in (trouble_with(first, read=False) or "")
    assert files.attach(job("two", url)).inputs[url].sha256 != first.sha256


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("nothing.png", "there is no such object"),
        ("text.txt", "no picture, video or sound"),
        ("empty.png", "is empty"),
        ("", "name one below the bucket"),
        ("folder/", "name one below the bucket"),
    ],
)
def test_what_cannot_be_taken_in(s3: S3, tmp_path: Path, key: str, why: str) -> None:
    """Found as the job file is read, with its line, before anything is bought."""
    photo(s3, "text.txt", b"hello" * 10)
    photo(s3, "empty.png", b"")
    text = f"jobs:\n- {{name: a, model: m/x, prompt: p, type: image, image: 's3://{s3.bucket}/{key}'}}\n"
    (problem,) = problems(tmp_path, text)
    assert why in problem
    assert ":2" in problem


def test_a_job_file_names_objects(s3: S3, tmp_path: Path) -> None:
    """As it names files."""
    url = photo(s3, "refs/a.png")
    text = f"jobs:\n- {{name: a, model: m/x, prompt: p, type: image, image: '{url}'}}\n"
    (given,) = load(tmp_path, text).jobs
    assert given.inputs[url].path == url


def test_a_library_reads_with_our_keys_only_what_it_is_allowed_to(s3: S3) -> None:
    """A job of a stranger's must not lead out what only we can read."""
    url, place = photo(s3, "refs/a.png"), BucketUrl(scheme="s3", bucket=s3.bucket, prefix="refs")
    for within in ([], [Path("/")], [BucketUrl(scheme="s3", bucket=s3.bucket, prefix="ref")]):
        with pytest.raises(BadInputs, match="with the keys of this machine"):
            LocalFiles(within=within).attach(job("one", url))
    assert LocalFiles(within=[place]).attach(job("one", url)).inputs


def test_a_store_that_is_away_is_said(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the object then."""
    url = photo(s3, "a.png")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BadInputs, match="cannot be reached"):
        LocalFiles().attach(job("one", url))


def test_a_store_that_is_away_for_a_while_holds_its_jobs_up(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not failed for it."""
    given = LocalFiles().attach(job("one", photo(s3, "a.png")))
    blocks, away = Bucket.blocks, ["once", "twice"]

    def failing(self: Bucket, path: str) -> Any:
        if away:
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            away.pop()
            return blocks(Bucket(self.url), path)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        return blocks(Bucket(self.url), path)

    monkeypatch.setattr(Bucket, "blocks", failing)
    monkeypatch.setattr("asyncpipe.engine.upload.RETRIES", _quick())
    assert run(Keeping(), tmp_path, [given]) == ["succeeded"]
    assert not away


def _quick() -> Any:
    from asyncpipe._tasks import Retries

    return Retries(attempts=4, initial_s=0.01)


def test_no_key_in_its_url() -> None:
    """As with an output place."""
    with pytest.raises(UsageError, match="in the environment"):
        LocalFiles()._file("s3://AKIA:secret@media/a.png")
