"""Whether a file of media has an end: what is cut off has none, and nobody may have told its size.

``read`` gives bytes of the file: an offset and how many.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

Read = Callable[[int, int], bytes]

_TAIL = 1024

_SMALLEST = {"png": 45, "jpg": 20, "gif": 14, "bmp": 26}
"""Fewer bytes than these hold no picture, only its first bytes."""

_END_MARKS = {
    "png": b"IEND\xaeB`\x82",
    "jpg": b"\xff\xd9",
    "pdf": b"%%EOF",
    "zip": b"PK\x05\x06",
    "usdz": b"PK\x05\x06",
    "svg": b"svg>",
    "gltf": b"}",
}

_INDEX = {"mp4": b"moov", "mov": b"moov", "m4a": b"moov", "avif": b"meta", "heic": b"meta"}
"""The box without which nothing can be played or shown."""

_MOST_BOXES = 10_000

_UNTOLD = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes that a sound has which was written while it was made."""


def broken(extension: str, size: int, read: Read, *, told: bool) -> str | None:
    """Say what shows that a file is not whole, or None.

    ``told``: its server said how long it is, and it is; then only what cannot be a medium at all
    counts.
    """
    if size < _SMALLEST.get(extension, 12 if extension != "txt" else 1):
        return f"has {size} bytes, which hold no {extension}"
    if extension in _INDEX:
        return _broken_boxes(extension, size, read, told=told)
    return None if told else _cut_off(extension, size, read)


def _cut_off(extension: str, size: int, read: Read) -> str | None:
    """Say what is missing at the end of a file of a kind that has one."""
    tail = read(max(0, size - _TAIL), _TAIL)
    if (mark := _END_MARKS.get(extension)) is not None and mark not in tail:
        return f"is cut off: the end of a {extension} is missing"
    if extension == "gif" and not tail.rstrip(b"\0").endswith(b";"):
        return "is cut off: the end of a gif is missing"
    whole = _own_size(extension, read(0, 16))
    if whole is not None and whole > size:
        return f"is cut off: {size} of {whole} bytes"
    return None


def _own_size(extension: str, head: bytes) -> int | None:
    """How many bytes a file says it has, or None."""
    if extension in ("webp", "wav", "avi"):
        inside = int.from_bytes(head[4:8], "little")
        return None if inside in _UNTOLD else inside + 8
    if extension == "aiff":
        return int.from_bytes(head[4:8], "big") + 8
    if extension == "glb":
        return int.from_bytes(head[8:12], "little")
    return int.from_bytes(head[2:6], "little") if extension == "bmp" else None


def _broken_boxes(extension: str, size: int, read: Read, *, told: bool) -> str | None:
    found, whole = set(), 0
    for kind, end in _boxes(size, read):
        whole = end
        if not kind.isalnum() and not told:
            return f"is cut off or damaged: no {extension} has such parts"
        if not kind.isalnum():
            return None  # somebody else's format inside; nothing is known of it
        found.add(kind)
    if whole > size and not told:
        return f"is cut off: {size} of {whole} bytes"
    if _INDEX[extension] not in found:
        return f"is cut off: a {extension} without its index ({_INDEX[extension].decode()})"
    return None


def _boxes(size: int, read: Read) -> Iterator[tuple[bytes, int]]:
    """The boxes of a file and where each ends, which may be behind its end."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at + 8 > size:
            break
        head = read(at, _BOX_HEAD)
        length, kind = _length(head), head[4:8]
        if length == 0:  # up to the end
            length = size - at
        at += max(length, 8)
        yield kind.strip(b" ") or kind, at


_BOX_HEAD = 16


def _length(head: bytes) -> int:
    """How long a box is, by its first bytes; 0: up to the end of the file."""
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length


class Passing:
    """What ``broken`` reads of a file that only passes by: kept as its bytes come, and no more.

    That is its first and last bytes, and where each of its boxes begins.
    """

    def __init__(self) -> None:
        self.size = 0
        self._tail = b""
        self._heads: dict[int, bytes] = {}
        self._next = 0

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes."""
        window = self._tail[1 - _BOX_HEAD :] + piece
        origin = self.size + len(piece) - len(window)
        self.size += len(piece)
        self._tail = (self._tail + piece[-_TAIL:])[-_TAIL:]
        while self._next + _BOX_HEAD <= self.size and len(self._heads) < _MOST_BOXES:
            at = self._next - origin
            head = self._heads[self._next] = window[at : at + _BOX_HEAD]
            length = _length(head)
            self._next = self._next + max(length, 8) if length else sys.maxsize

    def read(self, at: int, size: int) -> bytes:
        """Those bytes, as far as they were kept."""
        if (head := self._heads.get(at)) is not None and size <= _BOX_HEAD:
            return head[:size]
        at -= self.size - len(self._tail)
        return self._tail[at : at + size] if at >= 0 else b""
