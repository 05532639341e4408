"""One pass over a file's bytes: its sha256, and how its text is written."""

from __future__ import annotations

import codecs
import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.chinese import looks_chinese
from asyncpipe.jobfile.source import Unreadable

_BLOCK = 1 << 20

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_THREE_BYTES = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}")

_PAIR = re.compile(rb"[\x81-\xfe][\x40-\xfe]")

_CONTROL = re.compile(rb"\x1b[$(][@-J]|(?:[\t-~]\x00){2}|(?:\x00[\t-~]){2}")
"""Shifts of ISO-2022-JP and the like, and Latin letters of UTF-16: both pass for UTF-8."""

_SAMPLE = 1 << 16
"""Bytes of lines that are looked at to tell an encoding."""

_EXCERPT = 24
"""Characters of a table that are shown, where its encoding was only judged."""

NAMES = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "gb18030": "GB18030 (GBK)"}
"""Python's names of the encodings that are read, and people's."""

_REMEDY = 'save it as UTF-8 (in Excel: "CSV UTF-8"), or name it: encoding: gbk, beside rows:'

_MEANT = {"utf_8": "utf-8-sig", "gbk": "gb18030", "gb2312": "gb18030"}
"""Encodings that are read as a larger one, which has their text as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """A file of text, looked through once; ``size`` in bytes.

    ``excerpt`` is some of its text where nobody said the encoding, and it was only judged.
    """

    path: Path
    sha256: str
    size: int
    mtime_ns: int
    encoding: str
    excerpt: str | None = None

    @property
    def told_encoding(self) -> str:
        """Its encoding in words, to be looked over where it was only judged."""
        name = NAMES.get(self.encoding, self.encoding)
        return f"read as {name}: {self.excerpt!r}" if self.excerpt else name

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


def examine(path: Path, *, only_utf8: bool = False, encoding: str | None = None) -> TextFile:
    """Hash a file and tell its encoding: UTF-8, UTF-16 with its mark, or what is surely Chinese.

    ``encoding`` is what its owner says it is, as ``known_encoding`` names it. Raises UsageError
    for a file that cannot be read, Unreadable for text in another encoding.
    """
    check_ordinary(path)
    try:
        mtime_ns = path.stat().st_mtime_ns
        passed = _pass(path, encoding or "utf-8")
    except (OSError, ValueError) as exc:
        raise UsageError(_why_not(path, exc)) from exc
    excerpt = None
    if encoding is not None:
        if passed.wrong_at is not None:
            why = f"not {NAMES.get(encoding, encoding)}, as encoding: says: correct that"
            raise Unreadable(why, _line_at(path, passed.wrong_at))
    elif passed.head[:2] in _UTF16 and passed.head != codecs.BOM_UTF32_LE and not only_utf8:
        encoding = "utf-16"
    elif passed.control_at is not None:
        raise Unreadable(f"not UTF-8, nor any text: {_REMEDY}", _line_at(path, passed.control_at))
    elif passed.wrong_at is not None:
        encoding, excerpt = _other(path, passed.wrong_at, only_utf8=only_utf8)
    return TextFile(
        path=path,
        sha256=passed.sha256,
        size=passed.size,
        mtime_ns=mtime_ns,
        encoding=encoding or "utf-8-sig",
        excerpt=excerpt,
    )


def known_encoding(said: str) -> str | None:
    """Python's name of the encoding that somebody means; None where there is no such one."""
    try:
        codec = codecs.lookup(said.strip())
        "a".encode(codec.name)
        codecs.getincrementaldecoder(codec.name)
    except (LookupError, ValueError, TypeError):
        return None
    return _MEANT.get(codec.name.replace("-", "_"), codec.name)


def _why_not(path: Path, exc: Exception) -> str:
    if path.is_dir():
        return f"{path} is a folder: name the file in it"
    if isinstance(exc, FileNotFoundError):
        if not str(path).isprintable():
            return f"there is no file {str(path)!r}: in double quotes \\n is a line break; use /"
        return f"there is no file {path}: check the path"
    return f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}"


@dataclass(slots=True)
class _Passed:
    """What one pass over a file found: ``head`` is its first bytes, offsets are from its start.

    ``wrong_at`` is the first byte that its encoding does not have, ``control_at`` where it looks
    like an encoding whose bytes are ASCII.
    """

    sha256: str = ""
    size: int = 0
    wrong_at: int | None = None
    control_at: int | None = None
    head: bytes = b""


def _pass(path: Path, encoding: str) -> _Passed:
    digest, passed = hashlib.sha256(), _Passed()
    decoder = codecs.getincrementaldecoder(encoding)()
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            passed.head = passed.head or block[:4]
            digest.update(block)
            if passed.control_at is None and (odd := _CONTROL.search(block)):
                passed.control_at = passed.size + odd.start()
            if passed.wrong_at is None:
                waiting = decoder.getstate()[0]
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as exc:
                    passed.wrong_at = max(0, passed.size - len(waiting) + exc.start)
            passed.size += len(block)
            if not block:
                passed.sha256 = digest.hexdigest()
                return passed


def _other(path: Path, wrong_at: int, *, only_utf8: bool) -> tuple[str, str]:
    """What a file is that is not UTF-8, and some of its text.

    Never a guess where UTF-8 was merely damaged, nor where it may as well be something else.
    """
    if only_utf8:
        raise Unreadable("not UTF-8: save it as UTF-8", _line_at(path, wrong_at))
    with path.open("rb") as file:
        file.seek(max(0, wrong_at - (1 << 16)))
        before = file.read(min(wrong_at, 1 << 16))
    if len(_THREE_BYTES.findall(before)) >= 4:
        why = "UTF-8 up to here, and then not: a character is damaged; save the file again as UTF-8"
        raise Unreadable(why, _line_at(path, wrong_at))
    odd_at, sample = _not_chinese(path), _sample(path)
    if odd_at is not None:
        why = f"neither UTF-8 nor GB18030: {_REMEDY}"
        raise Unreadable(why, _line_at(path, odd_at))
    if not looks_chinese(sample):
        read = _excerpt(sample)
        why = f"not UTF-8, and as GBK it would be {read!r}, which may be wrong: {_REMEDY}"
        raise Unreadable(why, _line_at(path, wrong_at))
    return "gb18030", _excerpt(sample)


def _sample(path: Path) -> bytes:
    """The first lines with something in them that is not ASCII."""
    found: list[bytes] = []
    with path.open("rb") as file:
        while len(found) < 1000 and (line := file.readline(_SAMPLE)):
            if not line.isascii() and len(line) < _SAMPLE:
                found.append(line)
    return b"".join(found)


def _excerpt(sample: bytes) -> str:
    line = next(iter(sample.splitlines()), b"").decode("gb18030", "replace").strip()
    first = next((n for n, char in enumerate(line) if char > "\x7f"), 0)
    return line[max(0, first - 6) :][:_EXCERPT]


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
