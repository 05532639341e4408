"""Parts of outputs on disk: written with an account of their own, taken up after any crash.

Beside a part ``x`` lies ``x.log``: a line of JSON that says what it is a part of, then a line per
write, the size and the sha256 up to its end. Only what agrees with a line is believed: after a
power cut a file may be longer than what reached the disk. Every body gets a file of its own, under
a name that is never used again, and nothing shortens one while it may grow. So a write that a
cancelled run left in its thread goes to a file nobody reads any more, or puts the bytes at their
own place that we would put there, too.

All of this blocks: it runs in disk threads. OSError means the disk, whatever its number.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from asyncpipe._fs import link_trouble, open_unlinked, sync_folder
from asyncpipe.errors import DiskError
from asyncpipe.http import Entity
from asyncpipe.media.formats import HEAD_BYTES

KEPT_S = 14 * 86_400.0
"""How long a part is kept that nobody asks for: by then the provider has dropped the media."""

_BLOCK = 256 * 1024

_VOUCHED = re.compile(rb"(\d{1,18}) ([0-9a-f]{64})")

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room (a quota is used up)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f, or the file system's)",
    errno.EIO: "check the disk",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """A part that an earlier try or run left: where, and how many bytes (of how many)."""

    path: Path
    size: int
    total: int | None = None


class Part(io.FileIO):
    """A part that is open and grows at its end.

    ``size``, ``sha256`` and ``head`` (the first HEAD_BYTES) tell of what was written. Without an
    ``entity`` nobody could go on with it, and no log is kept.
    """

    def __init__(self, path: Path, entity: Entity | None, *, new: bool = True) -> None:
        # A write that was cancelled goes on in its thread: it must not find the file closed halfway
        # and its number given to another file.
        self._lock = threading.RLock()
        self._log: io.FileIO | None = None
        super().__init__(path, "xb+" if new else "rb+", opener=open_unlinked)
        self.path, self.entity = path, entity
        self.size, self.sha256, self.head = 0, hashlib.sha256(), b""
        if entity is None:
            return
        try:
            self._log = io.FileIO(_log_of(path), "xb" if new else "ab", opener=open_unlinked)
            if new:
                _write_all(self._log, orjson.dumps(asdict(entity)) + b"\n")
        except BaseException:
            self.close()
            raise

    def writelines(self, pieces: Iterable[Any], /) -> None:
        """Append all of ``pieces`` (bytes), one by one and never joined.

        The log vouches for them first: so no moment is left in which what is written is not
        believed.
        """
        pieces = list(pieces)
        with self._lock:
            digest, size = self.sha256.copy(), self.size
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
            if self._log is not None:
                _write_all(self._log, b"%d %s\n" % (size, digest.hexdigest().encode()))
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[super().write(rest) :]
            self.sha256, self.size = digest, size
            if len(self.head) < HEAD_BYTES:
                self.head = head_of([self.head, *pieces])

    def write(self, block: Any, /) -> int:
        """Append all of ``block``, as ``writelines`` does."""
        self.writelines([block])
        return len(block)

    def close(self) -> None:
        """Close the part and its log; they stay where they are."""
        with self._lock:
            super().close()
            if self._log is not None:
                self._log.close()

    def __del__(self) -> None:
        # Opened in a thread for a coroutine that was cancelled meanwhile: nobody else closes it.
        self.close()

    def take_up(self) -> None:
        """Read on to the last place that the log vouches for, and stand there."""
        digest, at = hashlib.sha256(), 0
        for size, sha256 in sorted(_vouched(self.path)):
            at += _hash(self, size - at, digest)
            if (at, digest.hexdigest()) == (size, sha256):
                self.size, self.sha256 = size, digest.copy()
        self.seek(0)
        self.head = self.read(min(HEAD_BYTES, self.size))
        self.seek(self.size)

    def peek(self, at: int, size: int) -> bytes:
        """Read so many bytes from there on; what is written next goes to the end all the same."""
        with self._lock:
            self.seek(at)
            try:
                return self.read(min(size, max(0, self.size - at)))
            finally:
                self.seek(self.size)

    def commit(self, final: Path) -> Path:
        """Make a complete part durable under its final name, and close it.

        Where another file has that name it gets the next one; returns which it has.
        """
        with self._lock:
            status = os.fstat(self.fileno())
            if status.st_size < self.size:
                raise OSError(errno.EIO, "a part is shorter than what was written to it")
            self.truncate(self.size)  # behind it may be what an earlier run was not sure of
            try:
                os.fsync(self.fileno())
            except OSError:
                # After a failed fsync the cache may look whole while the disk is not.
                self.discard()
                raise
            self.close()
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            placed = put_in_place(str(self.path), str(final), same=partial(self._is, status))
        except FileNotFoundError:
            # A cancelled run's thread may have been faster: with this very file, which is whole.
            if not os.path.samestat(final.stat(), status):
                raise
            placed = str(final)
        forget(self.path)
        sync_folder(final.parent)
        return Path(placed)

    def _is(self, status: os.stat_result, path: str) -> bool:
        """Whether another name leads to this very file, or to one with the same bytes."""
        there = os.stat(path, follow_symlinks=False)
        return os.path.samestat(there, status) or stands(
            Path(path), self.size, self.sha256.hexdigest()
        )

    def discard(self) -> None:
        """Close and remove."""
        self.close()
        forget(self.path)


def stands(path: Path, size: int, sha256: str | None) -> bool:
    """Whether a file is there as it was stored; without ``sha256``, of the same size.

    Raises OSError for one that cannot be read.
    """
    try:
        if path.stat().st_size != size or not path.is_file():
            return False
    except FileNotFoundError:
        return False
    if sha256 is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def head_of(pieces: Iterable[bytes]) -> bytes:
    """The first HEAD_BYTES of a body."""
    head = b""
    for piece in pieces:
        head += piece[: HEAD_BYTES - len(head)]
        if len(head) == HEAD_BYTES:
            break
    return head


def begun(path: Path, entity: Entity | None, pieces: Sequence[bytes]) -> Part:
    """A new part that begins with ``pieces``, open."""
    part = Part(path, entity)
    try:
        part.writelines(pieces)
    except BaseException:
        if entity is None:
            part.discard()
        part.close()
        raise
    return part


def keep(path: Path, entity: Entity, pieces: Sequence[bytes]) -> int:
    """Make a part of what came of a body that broke off; returns its bytes."""
    part = begun(path, entity, pieces)
    part.close()
    return part.size


def take_up(path: Path, source: str) -> Part | None:
    """Open what is left of ``source``; removes it and returns None when it cannot be gone on with.

    What came of another place is of use where it can be known again there. What cannot be read is
    no trouble: it is fetched anew.
    """
    with suppress(OSError, ValueError, TypeError):
        entity = Entity(**orjson.loads(_lines(path)[0]))
        if entity.source == source or entity.portable:
            part = Part(path, entity, new=False)
            try:
                part.take_up()
            except OSError:
                part.discard()
                raise
            if part.size:
                return part
            part.close()
    forget(path)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallFile:
    """A whole body and where it goes: first to ``path``, then by one rename to ``final``."""

    path: str
    final: str
    body: bytes


_NO_HARD_LINKS = frozenset(
    getattr(errno, name, errno.EPERM)
    for name in ("EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "EXDEV")
)


def put_in_place(part: str, final: str, *, same: Callable[[str], bool]) -> str:
    """Give a whole file its final name, or the next one that is free; never that of another file.

    Where ``same`` says of the file with that name that it is this very one, it is left, and the
    part removed. Returns the name. Raises OSError.
    """
    stem, ending = os.path.splitext(final)
    for n in itertools.count(2):
        try:
            _rename_to_new(part, final)
        except FileExistsError:
            if same(final):
                os.unlink(part)
                return final
            final = f"{stem}-{n}{ending}"
        else:
            return final
    raise AssertionError


def _rename_to_new(part: str, final: str) -> None:
    """Rename a file unless there is one of the new name: then FileExistsError."""
    if sys.platform == "win32":
        os.rename(part, final)
        return
    try:
        os.link(part, final, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, "is there", final) from exc
        os.replace(part, final)
    else:
        os.unlink(part)


Written = tuple[str, str] | OSError
"""The path and sha256 of a file that stands, or what kept it from standing."""


def write_small(batch: Sequence[SmallFile]) -> list[Written]:
    """Write bodies durably under their final names, each folder synced once for all its files."""
    written = [_write_one(small) for small in batch]
    places = [os.path.dirname(small.final) for small in batch]
    for folder in set(places):
        try:
            sync_folder(Path(folder))
        except OSError as exc:  # where there is none, the files have failed already
            for n, place in enumerate(places):
                if place == folder and isinstance(written[n], tuple):
                    written[n] = exc
    return written


def _write_one(small: SmallFile) -> Written:
    digest = hashlib.sha256(small.body).hexdigest()

    def same(path: str) -> bool:
        return stands(Path(path), len(small.body), digest)

    try:
        descriptor = os.open(small.path, _NEW_FILE, 0o666)
        try:
            rest = memoryview(small.body)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            return put_in_place(small.path, small.final, same=same), digest
        except FileNotFoundError:
            os.makedirs(os.path.dirname(small.final), exist_ok=True)
            return put_in_place(small.path, small.final, same=same), digest
    except OSError as exc:
        # Also after a failed fsync: the cache may look whole while the disk is not.
        with suppress(OSError):
            os.unlink(small.path)
        return exc


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def partials_in(folder: Path) -> dict[str, Partial]:
    """Find what earlier runs left, by Target.part, the longest of each.

    Removes what is of no use: without a log, shorter than another, or too old (see KEPT_S).
    """
    found: dict[str, Partial] = {}
    for path in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):  # a thread of a cancelled run may still put it in place
            _sort_in(path, found)
    return found


def _sort_in(path: Path, found: dict[str, Partial]) -> None:
    if link_trouble(path, _log_of(path)):  # not ours: it goes, and nothing that it leads to
        forget(path)
        return
    if path.suffix == ".log":
        if not path.with_suffix("").exists():
            forget(path.with_suffix(""))
        return
    status, output = path.stat(), path.stem
    old = time.time() - status.st_mtime > KEPT_S
    rival = found.get(output)
    if old or not _log_of(path).exists() or (rival and rival.size >= status.st_size):
        forget(path)
        return
    if rival:
        forget(rival.path)
    found[output] = Partial(path=path, size=status.st_size)


def forget_old(folder: Path) -> None:
    """Remove what is too old, and nothing else: other processes may be at work in the folder."""
    for path in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime > KEPT_S:
                forget(path.with_suffix("") if path.suffix == ".log" else path)


def forget(path: Path) -> None:
    """Remove a part and its log; what another thread still holds open on Windows stays behind."""
    for name in (path, _log_of(path)):
        with suppress(OSError):
            name.unlink(missing_ok=True)


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Turn the OSError of a disk, whichever it is, into a DiskError about ``folder``."""
    try:
        yield
    except OSError as exc:
        raise disk_error(folder, exc) from exc


def disk_error(folder: Path, exc: OSError) -> DiskError:
    """What people are told when the disk that ``folder`` is on refuses."""
    remedy = _REMEDIES.get(exc.errno or 0, "look after the disk")
    return DiskError(
        f"nothing more can be stored in {folder}: {exc.strerror or exc}; {remedy}, "
        "then run the same command again"
    )


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.log")


def _lines(path: Path) -> list[bytes]:
    return _log_of(path).read_bytes().split(b"\n")


def _vouched(path: Path) -> Iterator[tuple[int, str]]:
    for line in _lines(path)[1:]:
        if found := _VOUCHED.fullmatch(line):
            yield int(found[1]), found[2].decode()


def _hash(file: io.FileIO, size: int, digest: Any) -> int:
    """Add the next ``size`` bytes to a digest, or what there is of them; returns how many."""
    missing = size
    while missing > 0 and (block := file.read(min(_BLOCK, missing))):
        digest.update(block)
        missing -= len(block)
    return size - missing


def _write_all(file: io.FileIO, text: bytes) -> None:
    if file.write(text) != len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
