"""Files that stand whole or not at all, names that are safe, and the lock of an output folder."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from asyncpipe.errors import FolderInUse, UsageError

STEM_BYTES = 200
"""Longest stem in UTF-8 bytes: with ``-`` + 6 hex, ``_`` + index and extension it stays below 255,
the limit of common file systems."""

_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³")}
)

_PLAIN = re.compile(rf"[a-z0-9_-]{{1,{STEM_BYTES}}}")


def safe_stem(name: str) -> str:
    """Turn a job's name into a file stem: lower case, spaces to ``_``, no surprises.

    Letters, marks and digits of any script and ``_ - .`` are kept. The result may be empty, never
    begins or ends with a dot, is NFC, no Windows device name, and at most STEM_BYTES long.
    """
    text = name.lower()
    if _PLAIN.fullmatch(text) and text not in _RESERVED:  # as most are: nothing to be done
        return text
    text = unicodedata.normalize("NFC", text)
    text = "_".join(text.split())
    kept = "".join(c for c in text if c in "_-." or unicodedata.category(c)[0] in "LMN")
    stem = _cut(kept.strip("."), STEM_BYTES).strip(".")
    first, dot, rest = stem.partition(".")
    # Windows takes ``com1.anything`` for the device, too.
    return f"{first}_{dot}{rest}" if first in _RESERVED else stem


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8", "ignore")[:size].decode("utf-8", "ignore")


def folded(stem: str) -> str:
    """Return what two stems share when some file system takes them for one file."""
    if stem.isascii():
        return stem.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold())


def make_folders(folder: Path, names: Iterable[str]) -> None:
    """Make folders inside ``folder``; raises UsageError when they cannot be made or written."""
    try:
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
            if not os.access(folder / name, os.W_OK):
                raise PermissionError(errno.EACCES, f"no right to write into {folder / name}")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise UsageError(
            f"the output folder {folder} cannot be used: {getattr(exc, 'strerror', None) or exc}; "
            "make it writable, or choose another with --output-dir"
        ) from exc


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable, where the system can (Windows does it by itself)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable(folder: Path, inner: str) -> None:
    """Make the folder ``inner`` inside ``folder`` unless it is there, so that it stays.

    Raises OSError.
    """
    made = folder / inner
    if not made.is_dir():
        made.mkdir(parents=True, exist_ok=True)
        sync_folder(made.parent)


def forget_parts(path: Path) -> None:
    """Delete what ``whole_file`` left beside ``path`` when its process was killed."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` if the block ends well, and vanishes if it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class FolderLock:
    """Hold an output folder for one run; the system lets go when the process ends, however it ends.

    The file is never deleted (a second owner could slip in between) and not inherited by child
    processes; the pid and host in it serve the message only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Take the lock; raises FolderInUse naming who holds it, UsageError where none can be."""
        try:
            file = self._path.open("a+b")
        except OSError as exc:
            raise UsageError(
                f"{self._path.parent.parent} cannot be written ({exc.strerror or exc}): "
                "make it writable, or choose another folder with --output-dir"
            ) from exc
        try:
            _lock_patiently(file)
        except OSError as exc:
            if exc.errno in _NO_LOCKS:
                file.close()
                raise UsageError(
                    f"{self._path.parent.parent} is on a file system without locks "
                    f"({exc.strerror}): choose a folder on a disk of this machine"
                ) from exc
            file.seek(0)
            owner = file.read(200).decode("utf-8", "replace").strip() or "another process"
            file.close()
            raise FolderInUse(
                f"{self._path.parent.parent} is in use by {owner}: wait for it to end "
                "(asyncpipe status shows how far it is), or run into another one with --output-dir"
            ) from exc
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        self._file = file
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds an output folder, in the lock's words, and since when (wall time in UTC)."""

    who: str
    since: datetime


def holder(path: Path) -> Holder | None:
    """Return who holds the lock at ``path``; None if nobody does, or nobody can tell.

    The text alone does not say so: it stays when its process is killed. So the lock is tried for
    an instant; ``FolderLock`` tries twice, lest a run that begins just then be turned away.
    """
    try:
        with path.open("rb") as file:
            try:
                _try_lock(file)
            except OSError as exc:
                if exc.errno not in _TAKEN:
                    return None
                since = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
                file.seek(0)
                text = file.read(200).decode("utf-8", "replace").strip()
                return Holder(who=text or "another process", since=since)
    except OSError:
        pass
    return None


_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})

_LOOK_S = 0.05


def _lock_patiently(file: BinaryIO) -> None:
    """Lock; once more after an instant, which is longer than ``holder`` looks."""
    try:
        _lock(file)
    except OSError as exc:
        if exc.errno not in _TAKEN:
            raise
        time.sleep(_LOOK_S)
        _lock(file)


if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30  # far behind the text, which others may then read

    def _lock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

    _try_lock = _lock
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def cache_folder() -> Path | None:
    """The user's cache folder; XDG_CACHE_HOME goes first everywhere, where it is absolute."""
    told = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if told.is_absolute():
        return told
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
