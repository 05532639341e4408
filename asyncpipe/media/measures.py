"""How large a picture is and how long a clip lasts, by what its file says of itself.

Never a guess: what is not said, or is said in a way not read here, is None.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import SEEK_CUR
from pathlib import Path
from typing import BinaryIO

from asyncpipe.media.formats import HEAD_BYTES, sniff

MOST_PARTS = 10_000
"""So many boxes or segments of a file are gone through."""

MOST_INDEX = 64 * 1024
"""What a box that is read whole may have, in bytes."""

_MOST_PIXELS = 10**6
"""A side beyond this is nonsense."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """Pixels as they are shown, and seconds; None where the file does not say."""

    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


NOTHING = Measures()


def measure(path: Path) -> Measures:
    """Read what a file says of itself; nothing where it cannot be read. Blocks for a moment."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            read = _READERS.get(sniff(head) or "")
            if read is None:
                return NOTHING
            file.seek(0)
            return _sane(read(file))
    except (OSError, ValueError, struct.error, IndexError, OverflowError):
        return NOTHING


def _sane(told: Measures) -> Measures:
    sides = (told.width, told.height)
    if not all(side is not None and 0 < side <= _MOST_PIXELS for side in sides):
        sides = (None, None)
    lasts = told.duration_s
    if lasts is not None and not 0 < lasts < 10**7:
        lasts = None
    return Measures(width=sides[0], height=sides[1], duration_s=lasts)


def _exactly(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise ValueError("the file ends too soon")
    return found


def _png(file: BinaryIO) -> Measures:
    head = _exactly(file, 24)
    if head[12:16] != b"IHDR":
        return NOTHING
    width, height = struct.unpack(">II", head[16:24])
    return Measures(width=width, height=height)


def _gif(file: BinaryIO) -> Measures:
    width, height = struct.unpack("<HH", _exactly(file, 10)[6:])
    return Measures(width=width, height=height)


def _bmp(file: BinaryIO) -> Measures:
    head = _exactly(file, 26)
    if struct.unpack("<I", head[14:18])[0] < 40:
        return NOTHING
    width, height = struct.unpack("<ii", head[18:26])
    return Measures(width=width, height=abs(height))


_TURNED = frozenset({5, 6, 7, 8})
"""Orientations of EXIF by which a picture is shown on its side."""


def _jpeg(file: BinaryIO) -> Measures:
    file.seek(2)
    turned = False
    for _ in range(MOST_PARTS):
        while (mark := _exactly(file, 1)[0]) != 0xFF:
            if mark:
                return NOTHING
        while (kind := _exactly(file, 1)[0]) == 0xFF:
            continue
        if kind in (0xD9, 0xDA):
            return NOTHING
        if 0xD0 <= kind <= 0xD7 or kind == 0x01:
            continue
        (length,) = struct.unpack(">H", _exactly(file, 2))
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", _exactly(file, 5)[1:])
            width, height = (height, width) if turned else (width, height)
            return Measures(width=width, height=height)
        if kind == 0xE1:
            turned = turned or _orientation(_exactly(file, length - 2)) in _TURNED
        else:
            file.seek(length - 2, SEEK_CUR)
    return NOTHING


def _orientation(segment: bytes) -> int:
    """How EXIF says that a picture is turned; 1 where it does not say."""
    if segment[:6] != b"Exif\0\0":
        return 1
    tiff = segment[6:]
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for n in range(min(count, 1000)):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * n)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 1
    return 1


def _webp(file: BinaryIO) -> Measures:
    head = _exactly(file, 30)
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        return Measures(width=width, height=int.from_bytes(body[7:10], "little") + 1)
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return Measures(width=(bits & 0x3FFF) + 1, height=(bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return Measures(width=width & 0x3FFF, height=height & 0x3FFF)
    return NOTHING


def _wav(file: BinaryIO) -> Measures:
    file.seek(12)
    rate = 0
    for _ in range(MOST_PARTS):
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"fmt ":
            fmt = _exactly(file, size)
            rate = struct.unpack_from("<I", fmt, 8)[0]
        elif name == b"data":
            there = os.fstat(file.fileno()).st_size - file.tell()
            whole = 0 < size <= there  # a stream writes 0, or the most there is
            return Measures(duration_s=size / rate) if rate and whole else NOTHING
        else:
            file.seek(size + size % 2, SEEK_CUR)
    return NOTHING


def _flac(file: BinaryIO) -> Measures:
    head = _exactly(file, 42)
    if head[4] & 0x7F:
        return NOTHING
    packed = int.from_bytes(head[18:26], "big")
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return Measures(duration_s=samples / rate) if rate and samples else NOTHING


def _boxes(file: BinaryIO, until: int) -> Iterator[tuple[bytes, int]]:
    """The boxes up to a place, each with where it ends; the file stands at its content."""
    for _ in range(MOST_PARTS):
        began = file.tell()
        if began + 8 > until:
            return
        size, name = struct.unpack(">I4s", _exactly(file, 8))
        if size == 1:
            (size,) = struct.unpack(">Q", _exactly(file, 8))
        end = until if size == 0 else began + size
        if end <= began or end > until:
            return
        yield name, end
        file.seek(end)


def _mp4(file: BinaryIO) -> Measures:
    """What the index says: the longest of it, and the first track that is seen."""
    length = os.fstat(file.fileno()).st_size
    for name, end in _boxes(file, length):
        if name == b"moov":
            return _moov(file, end)
    return NOTHING


def _moov(file: BinaryIO, end: int) -> Measures:
    lasts: float | None = None
    sides: tuple[int, int] | None = None
    for name, stop in _boxes(file, end):
        if name == b"mvhd":
            lasts = _mvhd(_exactly(file, min(stop - file.tell(), MOST_INDEX)))
        elif name == b"trak" and sides is None:
            sides = _trak(file, stop)
    width, height = sides or (None, None)
    return Measures(width=width, height=height, duration_s=lasts)


def _mvhd(body: bytes) -> float | None:
    form, unknown = (">IQ", 2**64 - 1) if body[0] == 1 else (">II", 2**32 - 1)
    scale, duration = struct.unpack_from(form, body, 20 if body[0] == 1 else 12)
    return duration / scale if scale and duration not in (0, unknown) else None


def _trak(file: BinaryIO, end: int) -> tuple[int, int] | None:
    """The sides of a track as they are shown; None for one that is only heard."""
    for name, stop in _boxes(file, end):
        if name != b"tkhd":
            continue
        body = _exactly(file, min(stop - file.tell(), MOST_INDEX))
        at = 52 if body[0] == 1 else 40
        a, b, _, c, d = struct.unpack_from(">iiiii", body, at)
        width, height = struct.unpack_from(">II", body, at + 36)
        if not (width and height):
            return None
        sides = (round(width / 65536), round(height / 65536))
        return (sides[1], sides[0]) if a == d == 0 and b and c else sides
    return None


_READERS: dict[str, Callable[[BinaryIO], Measures]] = {
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "jpg": _jpeg,
    "webp": _webp,
    "wav": _wav,
    "flac": _flac,
    "mp4": _mp4,
    "mov": _mp4,
    "m4a": _mp4,
}
