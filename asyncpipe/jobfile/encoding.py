"""One pass over a file's bytes: its sha256, and how its text is written."""

from __future__ import annotations

import codecs
import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.source import Unreadable

_BLOCK = 1 << 20

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_THREE_BYTES = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}")

_PAIR = re.compile(rb"[\x81-\xfe][\x40-\xfe]")

NAMES = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "gb18030": "GB18030 (GBK)"}
"""Python's names of the encodings that are read, and people's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """A file of text, looked through once; ``size`` in bytes."""

    path: Path
    sha256: str
    size: int
    mtime_ns: int
    encoding: str

    @property
    def changed(self) -> bool:
        """Whether it is another file now than the one that was looked through."""
        try:
            now = self.path.stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns)


def check_ordinary(path: Path) -> None:
    """Raise UsageError for what never ends, or cannot be read twice."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # said by whoever opens it
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError(f"{path} is a pipe or a device: write what comes of it into a file first")


def examine(path: Path, *, only_utf8: bool = False) -> TextFile:
    """Hash a file and tell its encoding: UTF-8, UTF-16 with its mark, else GB18030.

    Raises UsageError for a file that cannot be read, Unreadable for text in another encoding.
    """
    check_ordinary(path)
    try:
        mtime_ns = path.stat().st_mtime_ns
        digest, size, wrong_at, head = _pass(path)
    except (OSError, ValueError) as exc:
        raise UsageError(_why_not(path, exc)) from exc
    encoding = "utf-8-sig"
    if head[:2] in _UTF16 and not only_utf8:
        encoding = "utf-16"
    elif wrong_at is not None:
        encoding = _other(path, wrong_at, only_utf8=only_utf8)
    return TextFile(path=path, sha256=digest, size=size, mtime_ns=mtime_ns, encoding=encoding)


def _why_not(path: Path, exc: Exception) -> str:
    if path.is_dir():
        return f"{path} is a folder: name the file in it"
    if isinstance(exc, FileNotFoundError):
        return f"there is no file {path}: check the path"
    return f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}"


def _pass(path: Path) -> tuple[str, int, int | None, bytes]:
    """Digest, size, offset of the first byte that is not UTF-8, first bytes."""
    digest, size, head = hashlib.sha256(), 0, b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    wrong_at: int | None = None
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            head = head or block[:4]
            digest.update(block)
            if wrong_at is None:
                waiting = len(decoder.getstate()[0])
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as exc:
                    wrong_at = size - waiting + exc.start
            size += len(block)
            if not block:
                return digest.hexdigest(), size, wrong_at, head


def _other(path: Path, wrong_at: int, *, only_utf8: bool) -> str:
    """What a file is that is not UTF-8; never a guess where UTF-8 was merely damaged."""
    if only_utf8:
        raise Unreadable("not UTF-8: save it as UTF-8", _line_at(path, wrong_at))
    with path.open("rb") as file:
        file.seek(max(0, wrong_at - (1 << 16)))
        before = file.read(min(wrong_at, 1 << 16))
    if len(_THREE_BYTES.findall(before)) >= 4:
        why = "UTF-8 up to here, and then not: a character is damaged; save the file again as UTF-8"
        raise Unreadable(why, _line_at(path, wrong_at))
    odd_at = _not_chinese(path)
    if odd_at is not None:
        why = 'neither UTF-8 nor GB18030: save it as UTF-8 (in Excel: "CSV UTF-8")'
        raise Unreadable(why, _line_at(path, odd_at))
    return "gb18030"


def _not_chinese(path: Path) -> int | None:
    """Where a file stops to be GB18030, or begins to look like another encoding; else None.

    Western text often decodes as GB18030, too: into rare characters, whose second byte is a Latin
    letter. Those of real Chinese are few.
    """
    decoder = codecs.getincrementaldecoder("gb18030")()
    at, pairs, latin, first = 0, 0, 0, None
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as exc:
                return at - waiting + exc.start
            for pair in _PAIR.finditer(block):
                first = at + pair.start() if first is None else first
                pairs += 1
                latin += pair[0][1] < 0x80
            at += len(block)
            if not block:
                return first if latin * 3 > pairs else None


def _line_at(path: Path, offset: int) -> int:
    line = 1
    with path.open("rb") as file:
        while offset > 0 and (block := file.read(min(_BLOCK, offset))):
            line += block.count(b"\n")
            offset -= len(block)
    return line
