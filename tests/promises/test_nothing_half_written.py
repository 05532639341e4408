"""Nothing half-written: a file stands whole and verified, or not at all."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from asyncpipe.errors import DownloadError
from asyncpipe.media.downloader import SMALL
from asyncpipe.media.parts import Part
from tests.support.media import LARGE, PNG, fetch, left

CLIP = b"\x00\x00\x00\x18ftypisom" + Random(1).randbytes(3 * SMALL)


@pytest.mark.parametrize("body", [PNG, LARGE])
def test_a_body_that_breaks_off_is_never_a_file(tmp_path: Path, body: bytes) -> None:
    """Cut before Content-Length: an error, and nothing under the final name."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(DownloadError):
        fetch(tmp_path, answer)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"<!DOCTYPE html><p>gone", b'{"code":403}', b"<?xml version='1.0'?><Error/>"],
    ids=["empty", "html", "json", "xml"],
)
def test_what_is_not_media_is_never_a_file(tmp_path: Path, body: bytes) -> None:
    """Status 200 alone makes no asset."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, content_type="image/png")

    with pytest.raises(DownloadError):
        fetch(tmp_path, answer)
    assert left(tmp_path) == []


@pytest.mark.parametrize("size", [1000, 3 * SMALL])
def test_a_chunked_body_that_breaks_off_is_never_a_file(tmp_path: Path, size: int) -> None:
    """Without a length the last chunk tells the end; here there is none."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(LARGE[:size])
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(DownloadError):
        fetch(tmp_path, answer)
    assert left(tmp_path) == []


NOISE = b"\x07\x01\x02\x03" * 400


@pytest.mark.parametrize("size", [len(NOISE), 2 * SMALL])
def test_noise_called_a_picture_is_never_a_file(tmp_path: Path, size: int) -> None:
    """A decrypted wrong, a torn object: not what was paid for. Without a claim it is stored."""
    kind = "image/png"

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=NOISE * (size // len(NOISE)), content_type=kind)

    with pytest.raises(DownloadError, match="is no png"):
        fetch(tmp_path, answer)
    assert left(tmp_path) == []
    assert not list((tmp_path / ".asyncpipe" / "parts").iterdir())
    kind = "application/octet-stream"
    assert fetch(tmp_path, answer).path == "images/杯子.png"


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_a_part_that_is_not_what_was_written_is_never_a_file(tmp_path: Path, damage: str) -> None:
    """Removed or cut under our hands: said so, and nothing put in place of a file that stands."""
    path, final = tmp_path / "a", tmp_path / "a.mp4"
    final.write_bytes(b"another")
    with closing(Part(path, None)) as part:
        part.write(CLIP)
        if damage == "gone":
            path.unlink()
        else:
            os.truncate(path, 1000)
        with pytest.raises(OSError, match=r"No such file|shorter"):
            part.commit(final)
    assert final.read_bytes() == b"another"
