"""Find, check and hash the files that jobs take in, before anything is spent."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from asyncpipe.errors import DownloadError, UsageError
from asyncpipe.jobs import (
    BucketUrl,
    Job,
    LocalFile,
    OutputPlace,
    is_bucket_url,
    is_local,
    may_take_media,
    media,
    wrong_with,
)
from asyncpipe.media.borrow import RemoteFile
from asyncpipe.media.formats import HEAD_BYTES, media_type, sniff

MOST_BYTES = 50 * 1024 * 1024 - 4096
"""The API answers 413 to requests over 50 MB, and the file is not the whole of one."""

MOST_AUDIO_BYTES = 512 * 1024 * 1024 - 4096
"""Sound may be so large."""

_NOT_MEDIA = ("pdf",)

_MOST_KNOWN = 50_000


class BadInputs(UsageError):
    """Files of one job cannot be used; each of ``faults`` names field, file and remedy."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(faults))


class LocalFiles:
    """Looks at files below ``base`` (None: the working directory); hashes each of them once.

    ``within``: only files below these folders, links resolved, and objects of these buckets (None:
    any); of others nothing is told, not even whether they are there. A file is looked at again when
    its size or time of change is another one. Blocks while it reads: in a loop it belongs into a
    thread.
    """

    def __init__(
        self, base: Path | None = None, *, within: Sequence[OutputPlace] | None = None
    ) -> None:
        self._base = base
        self._within: list[Path] | None = None
        self._buckets: list[BucketUrl] | None = None
        if within is not None:
            self._within = [each.resolve() for each in within if isinstance(each, Path)]
            self._buckets = [each for each in within if isinstance(each, BucketUrl)]
        self._known: dict[str, LocalFile] = {}

    def attach(self, job: Job) -> Job:
        """Return ``job`` with its ``inputs`` filled in; raises BadInputs with every fault.

        A job that has them already, or names no file of this machine, is returned as it is. What
        is neither a file nor a URL is a fault, too.
        """
        if not may_take_media(job.params):
            return job
        lacking = [(f, text) for f, text in media(job.params) if text not in job.inputs]
        inputs, faults = dict(job.inputs), []
        for field, text in lacking:
            if why := wrong_with(text):
                faults.append(f"{field}: {why}")
            if why or not is_local(text):
                continue
            try:
                inputs[text] = self._file(text)
            except (UsageError, DownloadError) as exc:
                faults.append(f"{field}: {exc}")
        if faults:
            raise BadInputs(faults)
        return replace(job, inputs=inputs) if len(inputs) > len(job.inputs) else job

    def _file(self, text: str) -> LocalFile:
        if text.lower().startswith("file:"):
            raise UsageError(f"{text!r}: write the path alone, without file:")
        if is_bucket_url(text):
            return self._object(RemoteFile(text))
        base = self._base if self._base is not None else Path()
        path = (base / text).absolute()
        if self._within is not None:
            path = self._allowed(text, path)
        known = self._known.get(str(path))
        try:
            now = path.stat()
            if known and (known.size, known.mtime_ns) == (now.st_size, now.st_mtime_ns):
                return known
            _check_kind(text, now.st_mode, now.st_size)
            if now.st_size > MOST_BYTES:
                with path.open("rb") as opened:
                    _check_size(text, opened.read(HEAD_BYTES), path.name, now.st_size)
            file = hashed(path)
        except FileNotFoundError as exc:
            raise UsageError(_missing(text, path)) from exc
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            why = getattr(exc, "strerror", None) or exc
            raise UsageError(f"{text!r} cannot be read ({why}): {path}") from exc
        self._remember(str(path), file)
        return file

    def _object(self, remote: RemoteFile) -> LocalFile:
        if self._buckets is not None and not any(map(remote.lies_in, self._buckets)):
            raise UsageError(
                f"{remote.text[:200]!r} would be read with the keys of this machine, and jobs may "
                "not do that: give a URL with its https://, or allow its bucket (the pipeline's "
                "local_files)"
            )
        known, now = self._known.get(remote.text), remote.look()
        if known and (known.size, known.mtime_ns) == now:
            return known
        _check_kind(remote.text, stat.S_IFREG, now[0])
        head = remote.beginning(HEAD_BYTES)
        _check_size(remote.text, head, remote.name, now[0])
        _check_medium(remote.text, head)
        file = remote.hashed()
        self._remember(remote.text, file)
        return file

    def _remember(self, name: str, file: LocalFile) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[name] = file

    def _allowed(self, text: str, path: Path) -> Path:
        """Where a path leads; raises UsageError, always the same, for one that is not allowed."""
        with suppress(OSError, ValueError, RuntimeError):  # a NUL, a loop of links
            found = path.resolve()
            if any(found.is_relative_to(folder) for folder in self._within or ()):
                return found
        raise UsageError(
            f"{text[:200]!r} would be a file of this machine, and jobs may not read it: give a URL "
            "with its https://, or allow its folder (the pipeline's local_files)"
        )


def _missing(text: str, path: Path) -> str:
    remedy = "correct the path, or write a URL with its https://"
    if text.startswith("~"):
        remedy = "~ is not expanded here, write the whole path"
    return f"{text!r}: there is no file {path}: {remedy}"


def _check_kind(text: str, mode: int, size: int) -> None:
    if stat.S_ISDIR(mode):
        raise UsageError(f"{text!r} is a folder: name the file in it")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{text!r} is not an ordinary file")
    if size == 0:
        raise UsageError(f"{text!r} is empty")


def _check_size(text: str, head: bytes, name: str, size: int) -> None:
    _, told = media_type(head, name)
    sound = told.startswith("audio/")
    if size > (MOST_AUDIO_BYTES if sound else MOST_BYTES):
        most = "512 MB of sound" if sound else "50 MB"
        raise UsageError(
            f"{text!r} has {size} bytes, the API takes {most}: make it smaller, or give its URL"
        )


def _check_medium(name: str, head: bytes) -> None:
    kind = sniff(head)
    if kind is None or kind in _NOT_MEDIA:
        raise UsageError(f"{name!r} is no picture, video or sound: name another file")


def hashed(path: Path) -> LocalFile:
    """Read a file to its end; raises OSError, and UsageError if it is no medium, or changes."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        _check_medium(path.name, file.read(HEAD_BYTES))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size, after = file.tell(), os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns, size) != (size, after.st_mtime_ns, after.st_size):
        raise UsageError(f"{path.name!r} is being written: wait until it is whole")
    return LocalFile(path=str(path), size=size, mtime_ns=after.st_mtime_ns, sha256=digest)


def trouble_with(file: LocalFile, *, read: bool) -> str | None:
    """Say why a file is not the one that was checked any more; None: it is.

    A file of another time is read again: the same bytes are the same input. With ``read`` any is:
    what keeps times, or has coarse ones, may have put other bytes there.
    """
    if is_bucket_url(file.path):
        return _trouble_with_object(file, read=read)
    path = Path(file.path)
    try:
        now = path.stat()
        if not read and (now.st_size, now.st_mtime_ns) == (file.size, file.mtime_ns):
            return None
        if now.st_size == file.size and hashed(path).sha256 == file.sha256:
            return None
    except (OSError, UsageError) as exc:
        return f"{file.path} cannot be read any more ({getattr(exc, 'strerror', None) or exc})"
    return f"{file.path} has changed since it was checked"


def _trouble_with_object(file: LocalFile, *, read: bool) -> str | None:
    remote = RemoteFile(file.path)
    try:
        if not read and remote.look() == (file.size, file.mtime_ns):
            return None
        if remote.hashed().sha256 == file.sha256:
            return None
    except (UsageError, DownloadError) as exc:
        return str(exc)
    return f"{file.path} has changed since it was checked"
