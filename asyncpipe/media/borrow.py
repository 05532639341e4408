"""Files that jobs take in from buckets: looked at, hashed, and lent as files of this machine.

All of this blocks: in a loop it belongs into a thread. Everything raises UsageError where an object
cannot be had, and DownloadError where its store cannot be reached.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncpipe.errors import DiskError, UsageError
from asyncpipe.jobs import BucketUrl, LocalFile
from asyncpipe.media.bucket import Bucket


class RemoteFile:
    """An object in a bucket that a job names by its URL; raises UsageError for what is none."""

    def __init__(self, text: str) -> None:
        scheme, _, rest = text.partition("://")
        bucket, _, self.key = rest.partition("/")
        self.text, self.place = text, BucketUrl.parse(f"{scheme}://{bucket}")
        if not self.key or self.key.endswith("/"):
            raise UsageError(f"{text!r} is no object: name one below the bucket")

    @property
    def name(self) -> str:
        """What a file of it would be called."""
        return self.key.rpartition("/")[2]

    def lies_in(self, place: BucketUrl) -> bool:
        """Whether it is one of the objects of ``place``."""
        same = (self.place.scheme, self.place.bucket) == (place.scheme, place.bucket)
        return same and self.key.startswith(f"{place.prefix}/" if place.prefix else "")

    def look(self) -> tuple[int, int]:
        """Its bytes, and when it was written, in ns."""
        with self._trouble():
            return self._bucket.look(self.key)

    def beginning(self, size: int) -> bytes:
        """Its first bytes."""
        with self._trouble():
            return self._bucket.beginning(self.key, size)

    def hashed(self) -> LocalFile:
        """Read it to its end; raises UsageError where it is written meanwhile."""
        before, digest, size = self.look(), hashlib.sha256(), 0
        with self._trouble():
            for block in self._bucket.blocks(self.key):
                digest.update(block)
                size += len(block)
        if before != self.look() or size != before[0]:
            raise UsageError(f"{self.text!r} is being written: wait until it is whole")
        return LocalFile(path=self.text, size=size, mtime_ns=before[1], sha256=digest.hexdigest())

    @contextmanager
    def lent(self) -> Iterator[tuple[Path, str]]:
        """A copy on this machine for as long as the block lasts, and its sha256."""
        with tempfile.TemporaryDirectory(prefix="asyncpipe-") as folder:
            path, digest = Path(folder) / _plain(self.name), hashlib.sha256()
            with self._trouble(), path.open("wb") as file:
                for block in self._bucket.blocks(self.key):
                    digest.update(block)
                    file.write(block)
            yield path, digest.hexdigest()

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.place)

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise UsageError(f"{self.text!r}: there is no such object: correct its URL") from None
        except DiskError as exc:
            raise UsageError(f"{self.text!r} cannot be read ({exc})") from exc


def _plain(name: str) -> str:
    """A name for a copy: of the object's own only the ending tells anything."""
    ending = Path(name.replace("\\", "/")).suffix
    return f"input{ending if ending[1:].isalnum() else ''}"
