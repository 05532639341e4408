"""Where assets go, as people write it: a folder of this machine, or the URL of a bucket: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from asyncpipe.errors import UsageError

_URL = re.compile(r"(s3|gs|az)://", re.IGNORECASE)

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")

_UNSAFE = re.compile(r'[\x00-\x20\x7f\\{}^%`\[\]"<>~#|*?]')
"""What stores, or those who make URLs of names, write in other words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketUrl:
    """A place in an object store: s3 (Amazon and whoever speaks like it), gs (Google), az (Azure).

    ``bucket`` is Azure's container; ``prefix`` is what all names in it begin with, without the
    ``/`` behind it, and may be empty.
    """

    scheme: str
    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``s3://bucket/prefix``; raises UsageError for what is none."""
        scheme, _, rest = text.partition("://")
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket:
            raise UsageError(
                f"{scheme.lower()}://…: no key belongs into the URL of a bucket: set it in the "
                "environment, and write SCHEME://BUCKET/PREFIX"
            )
        if not is_bucket_url(text) or not _BUCKET.fullmatch(bucket):
            raise UsageError(
                f"{text[:200]!r} is no URL of a bucket: write s3://BUCKET/PREFIX, "
                "gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            )
        if "{" in prefix:
            raise UsageError(
                f"{text[:200]!r} has a placeholder that nobody fills in here: `asyncpipe run` "
                "does, in a program write the prefix out, as s3://BUCKET/week-48"
            )
        parts = prefix.removesuffix("/").split("/") if prefix else []
        if _UNSAFE.search(prefix) or not all(parts) or {".", ".."} & {*parts}:
            raise UsageError(
                f"{text[:200]!r}: behind the bucket belong names with / between them, of letters, "
                "digits and signs such as _ - . only"
            )
        return cls(scheme=scheme.lower(), bucket=bucket, prefix="/".join(parts))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def url_of(self, path: str) -> str:
        """The URL of what lies at ``path`` in this place."""
        return f"{self}/{path}"


def is_bucket_url(text: str) -> bool:
    """Whether a text means a place in an object store."""
    return _URL.match(text) is not None


OutputPlace: TypeAlias = Path | BucketUrl
"""Where results go: a folder, or a bucket."""


def place_of(text: str | OutputPlace) -> OutputPlace:
    """Read where results go; raises UsageError for what begins like the URL of a bucket only."""
    if isinstance(text, BucketUrl):
        return text
    told: object = text
    if not isinstance(told, str | Path) or told == "":
        raise UsageError(f"{told!r:.80} is no folder: give a path, or the URL of a bucket")
    return BucketUrl.parse(text) if isinstance(text, str) and is_bucket_url(text) else Path(text)
