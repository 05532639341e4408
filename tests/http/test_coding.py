"""Content codings: what codes nothing is left as it is, what does is unpacked within limits."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest

from asyncpipe.errors import DownloadError
from asyncpipe.http.coding import coding_of, unpacker

TEXT = os.urandom(5000) + bytes(3_000_000)


def unpacked(coding: str, body: bytes, size: int = 1000) -> bytes:
    packed = unpacker(coding)
    assert packed is not None
    out = b""
    for at in range(0, len(body), size):
        packed.feed(body[at : at + size])
        while piece := packed.take():
            assert len(piece) <= 1024 * 1024
            out += piece
    packed.end()
    return out


@pytest.mark.parametrize(
    "value",
    ["", " ", "identity", "aws-chunked", "utf-8", "UTF8", "none", "null", "binary", "7bit",
     "aws-chunked, identity", "image/png", "base64,", ","],
)  # fmt: skip
def test_what_codes_nothing_is_identity(value: str) -> None:
    assert coding_of(value) == ""
    assert unpacker(coding_of(value)) is None


@pytest.mark.parametrize(
    ("value", "coding"),
    [("gzip", "gzip"), ("X-GZip", "gzip"), ("aws-chunked,gzip", "gzip"), (" deflate ", "deflate")],
)
def test_what_codes_is_told(value: str, coding: str) -> None:
    assert coding_of(value) == coding


@pytest.mark.parametrize("value", ["zstd", "compress", "gzip, deflate", "gzip,zstd"])
def test_what_cannot_be_unpacked_is_said(value: str) -> None:
    with pytest.raises(DownloadError, match=value):
        coding_of(value)


@pytest.mark.parametrize("size", [1, 7, 1000, 10**7])
def test_gzip_and_both_kinds_of_deflate_are_unpacked(size: int) -> None:
    """In whatever pieces they come, and also what was packed in several members."""
    text = TEXT[:20_000] if size < 1000 else TEXT
    assert unpacked("gzip", gzip.compress(text), size) == text
    assert unpacked("gzip", gzip.compress(text[:9]) + gzip.compress(text[9:]), 999) == text
    raw = zlib.compressobj(wbits=-15)
    assert unpacked("deflate", zlib.compress(text), size + 1) == text
    assert unpacked("deflate", raw.compress(text) + raw.flush(), size + 1) == text


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_not_packed_at_all_comes_as_it_is(coding: str) -> None:
    """A label that lies keeps no picture from its owner."""
    picture = b"\x89PNG\r\n\x1a\n" + os.urandom(5000)
    assert unpacked(coding, picture) == picture


def test_what_ends_too_early_or_breaks_is_no_body() -> None:
    body = gzip.compress(TEXT)
    with pytest.raises(ConnectionError):
        unpacked("gzip", body[:-20])
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        unpacked("gzip", body[:-8] + bytes(8))
