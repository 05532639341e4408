"""Content codings: which a response has, and how it is unpacked piece by piece."""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import Any, Protocol

from asyncpipe.errors import DownloadError

_ALIASES = {"x-gzip": "gzip"}

_KNOWN = frozenset({"gzip", "deflate", "br", "zstd", "compress", "x-compress"})
"""What codes a body; any other word (aws-chunked, utf-8, none …) leaves its bytes as they are."""

_MOST = 1024 * 1024
"""At most so many bytes are unpacked in one go: a piece may hold a thousand times its size."""

_GZIP = b"\x1f\x8b"


class Unpacker(Protocol):
    """Unpack a body that comes in pieces."""

    def feed(self, piece: bytes) -> None:
        """Take a piece of what came."""

    def take(self) -> bytes:
        """Return some of what can be unpacked by now; empty when more has to come."""

    def end(self) -> None:
        """Note that nothing more comes; raises ConnectionError when something is missing."""


def coding_of(value: str) -> str:
    """The coding that a Content-Encoding names, or "" when it codes nothing.

    Raises DownloadError for what cannot be unpacked.
    """
    words = [word.strip().lower() for word in value.split(",")]
    codings = [_ALIASES.get(word, word) for word in words if _ALIASES.get(word, word) in _KNOWN]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in ("gzip", "deflate", "br") or _of(codings[0]) is None:
        raise DownloadError(f"answers in {value!r}, though asked to leave it as it is")
    return codings[0]


def unpacker(coding: str) -> Unpacker | None:
    """What unpacks a coding; None where there is none."""
    return _Unpacker(coding) if coding else None


def _of(coding: str, start: bytes = b"") -> Any:
    if coding == "br":
        return _brotli()
    if coding == "gzip":
        return zlib.decompressobj(31)
    wrapped = len(start) > 1 and start[0] & 15 == 8 and int.from_bytes(start[:2]) % 31 == 0
    return zlib.decompressobj(15 if wrapped else -15)  # both are sent under that name


def _brotli() -> Any:
    """A decompressor for br, where a module for it happens to be installed; else None."""
    for name in ("brotli", "brotlicffi"):
        try:
            return import_module(name).Decompressor()
        except ImportError:
            continue
    return None


class _Unpacker:
    """What does not even begin as it is said to is handed on as it came: who says so is wrong."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inner: Any = None
        self._plain = False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        self._rest += piece

    def take(self) -> bytes:
        while self._rest:
            if self._plain:
                rest, self._rest = self._rest, b""
                return rest
            if out := self._unpack():
                return out
        return b""

    def _unpack(self) -> bytes:
        begins = self._inner is None
        if begins:
            self._inner = _of(self._coding, self._rest[:2])
        rest, self._rest = self._rest, b""
        try:
            if self._coding == "br":
                out: bytes = self._inner.process(rest[:4096])
                self._rest = rest[4096:]
                return out
            out = self._inner.decompress(rest, _MOST)
        except Exception as exc:  # zlib.error, and whatever a brotli module raises
            if begins:
                self._plain, self._rest = True, rest
                return b""
            raise DownloadError(f"it says {self._coding!r} and cannot be unpacked: {exc}") from exc
        self._rest = self._inner.unconsumed_tail
        if self._inner.eof:
            after = self._inner.unused_data
            # Of gzip several may follow one another; anything else behind the end is no part of it.
            self._rest = after if self._coding == "gzip" and after[:2] == _GZIP else b""
            if self._rest:
                self._inner = zlib.decompressobj(31)
        return out

    def end(self) -> None:
        if self._plain or self._inner is None:
            return
        done = self._inner.is_finished() if self._coding == "br" else self._inner.eof
        if not done:
            raise ConnectionError("it broke off: what is packed in it ends too early")
