"""The URL of a bucket is read strictly: a slip there is paid for."""

from __future__ import annotations

import pytest

from asyncpipe.errors import UsageError
from asyncpipe.jobs import BucketUrl
from asyncpipe.jobs.places import is_bucket_url


@pytest.mark.parametrize(
    ("text", "bucket", "prefix", "written"),
    [
        ("s3://media/shop/week-48", "media", "shop/week-48", "s3://media/shop/week-48"),
        ("S3://media/shop/", "media", "shop", "s3://media/shop"),
        ("gs://media", "media", "", "gs://media"),
        ("az://my-container/杯子", "my-container", "杯子", "az://my-container/杯子"),
    ],
)
def test_a_bucket_is_read(text: str, bucket: str, prefix: str, written: str) -> None:
    """And written as everybody writes it."""
    place = BucketUrl.parse(text)
    assert (place.bucket, place.prefix, str(place)) == (bucket, prefix, written)
    assert place.url_of("images/a.png") == f"{written}/images/a.png"
    assert is_bucket_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3:/media/x",
        "s3://",
        "s3://me",
        "s3://me dia/x",
        "s3:///x",
        "s3://media//x",
        "s3://media/../x",
        "s3://media/a b",
        "s3://media/x?versionId=1",
        "s3://media/x#y",
        "s3://media/50%",
        "ftp://media/x",
        "pipeline_output",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    """With the way to write it."""
    with pytest.raises(UsageError, match=r"write s3://BUCKET/PREFIX|behind the bucket"):
        BucketUrl.parse(text)


def test_no_key_belongs_into_it() -> None:
    """One that was put there all the same is not shown."""
    with pytest.raises(UsageError, match="in the environment") as caught:
        BucketUrl.parse("s3://AKIA:secret@media/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["out", "./s3:/x", "C:\\s3", "https://media/x", "memory://x/y"])
def test_folders_are_none(text: str) -> None:
    """What is no bucket stays what it was."""
    assert not is_bucket_url(text)
