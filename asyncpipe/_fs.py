"""Files that stand whole or not at all, names that are safe, and the lock of an output folder."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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


def open_unlinked(path: Path | str, flags: int, mode: int = 0o666) -> int:
    """An opener for ``open`` that follows no symbolic link; raises OSError for one.

    A folder that came from somebody else may hold links to files of the user.
    """
    if Path(path).is_symlink():  # also where the system cannot refuse by itself
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), mode)


def can_be_named(path: str) -> bool:
    """Whether this process can give a file that name: not any in a locale that is not UTF-8."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def link_trouble(*paths: Path) -> str | None:
    """Say which of some paths inside an output folder is a symbolic link; None: none is.

    The folder itself may be one: that is the user's own word.
    """
    for path in paths:
        # Junctions are what Windows has between folders.
        if path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path):
            return (
                f"{path} is a symbolic link, which is not followed inside an output folder: it may "
                "lead outside, to a file of yours. Put what it leads to in its place, or remove it "
                "if you did not make it"
            )
    return None


def leads_out(path: str) -> bool:
    """Whether a relative path (with ``/``) may lead out of the place that it is relative to."""
    parts = path.split("/")
    return not all(parts) or bool({".", ".."} & {*parts}) or any(c in path for c in "\\:\0")


class Root:
    """An output folder, and which relative paths (with ``/``) stay in it and follow no link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plain: set[str] = set()

    def trouble(self, path: str) -> str | None:
        """Say that a path leads out of the folder, or through a link in it; None: neither."""
        above, parts = path.rpartition("/")[0], path.split("/")
        if leads_out(path):
            return (
                f"the ledger names a file outside {self.folder}: {path!r}. Nothing was touched; do "
                "not use a folder whose ledger somebody else may have written"
            )
        if not can_be_named(path):
            return (
                f"{path!a} cannot be the name of a file in this process, whose locale is not "
                "UTF-8: set PYTHONUTF8=1 and run the same again"
            )
        if above not in self._plain:
            folders = (self.folder.joinpath(*parts[:n]) for n in range(1, len(parts)))
            if found := link_trouble(*folders):
                return found
            self._plain.add(above)
        return None


def forget_parts(path: Path) -> None:
    """Delete what ``whole_file`` left beside ``path`` when its process was killed."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` if the block ends well, and vanishes if it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.unlink(missing_ok=True)  # a link that somebody put there included
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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
