"""Files on their way to Atlas Cloud: one form of the length that was said, no name, no redirect."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import AtlasCloud
from asyncpipe.errors import NotAccepted, Rejected
from asyncpipe.http.multipart import FilePart
from asyncpipe.media.formats import media_type
from asyncpipe.media.local import LocalFiles
from asyncpipe.simulator.server import Simulator
from asyncpipe.testing import run_virtual
from tests.support.photos import PNG, job, photo, simulated
from tests.support.servers import serving

KEY = "apikey-a-secret-that-must-not-travel"


def test_a_quote_names_no_file(tmp_path: Path) -> None:
    """A price needs no upload, and where a file lies is not told."""
    photo(tmp_path, "geheim.png")
    bodies: list[Any] = []

    async def calculate(request: web.BaseRequest) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"code": 200, "data": {"price": 0.04, "currency": "usd"}})

    async def main() -> None:
        async with serving(calculate) as url, AtlasCloud(KEY, base_url=url) as provider:
            await provider.quote(LocalFiles(tmp_path).attach(job("x", ["geheim.png"])))

    run_virtual(main())
    assert "geheim" not in json.dumps(bodies)
    assert bodies[0]["image"][0].startswith("https://")


def test_the_form_is_one_file_with_its_length_and_without_its_name(tmp_path: Path) -> None:
    """Names may be private, and in any script; what is sent is exactly as long as was said."""
    path = photo(tmp_path, "geheim-客户.png", mark="x")

    async def main() -> tuple[int, bytes]:
        async with AsyncExitStack() as stack:
            size, pieces = await FilePart(path, tell=media_type).open(stack)
            return size, b"".join([piece async for piece in pieces])

    size, body = asyncio.run(main())
    assert len(body) == size
    assert path.read_bytes() in body
    assert b"geheim" not in body
    assert b'name="file"; filename="input.png"\r\nContent-Type: image/png\r\n' in body


WAV, MP4, OGG = b"RIFF\x04\0\0\0WAVE", b"\0\0\0\x18ftypisom", b"OggS\0"


@pytest.mark.parametrize(
    ("name", "head", "ending", "told"),
    [
        ("a.png", PNG, "png", "image/png"),
        ("A.JPEG", b"\xff\xd8\xff\xe0", "jpeg", "image/jpeg"),
        ("照片.jpg", b"\xff\xd8\xff\xe0", "jpg", "image/jpeg"),
        ("a.jpg", PNG, "png", "image/png"),
        ("a", PNG, "png", "image/png"),
        ("a.png.exe", PNG, "png", "image/png"),
        ("voice.wav", WAV, "wav", "audio/wav"),
        ("voice.opus", OGG, "opus", "audio/ogg"),
        ("voice.m4a", MP4, "m4a", "audio/mp4"),
        ("film.m4v", MP4, "m4v", "video/mp4"),
        ("film.mp4", MP4, "mp4", "video/mp4"),
        ("song.mpga", b"ID3\x04", "mpga", "audio/mpeg"),
        ("scan.tif", b"II*\0", "tif", "image/tiff"),
        ("a.mkv", b"\x1aE\xdf\xa3....matroska", "mkv", "video/x-matroska"),
        ("a.heic", b"\0\0\0\x18ftypheic", "heic", "image/heic"),
        ("a.aif", b"FORM\0\0\0\0AIFF", "aif", "audio/aiff"),
        ("a.bin", b"what is this", "bin", "application/octet-stream"),
    ],
)
def test_a_file_keeps_the_ending_of_its_name_and_has_a_type(
    name: str, head: bytes, ending: str, told: str
) -> None:
    """Where the bytes are of such a file: a picture is what it is, whatever it is called."""
    assert media_type(head, name) == (ending, told)


@pytest.mark.parametrize(("taking_s", "taken"), [(290.0, True), (310.0, False)])
def test_an_upload_may_take_five_minutes(tmp_path: Path, *, taking_s: float, taken: bool) -> None:
    """One minute was cutting real uploads off; one that hangs is given up."""
    path = photo(tmp_path, "a.png")

    async def slow(request: web.BaseRequest) -> web.Response:
        await request.read()
        await asyncio.sleep(taking_s)
        return web.json_response({"code": 200, "data": {"download_url": "https://x/a.png"}})

    async def main() -> str | None:
        async with serving(slow) as url, AtlasCloud(KEY, base_url=url) as provider:
            try:
                return await provider.upload(path)
            except NotAccepted:
                return None

    assert run_virtual(main()) == ("https://x/a.png" if taken else None)


def test_the_key_follows_no_redirect_of_an_upload(tmp_path: Path) -> None:
    """Neither the key nor the file goes to where an answer points."""
    path, seen = photo(tmp_path, "a.png"), []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"url": "https://x/a.png"})

    async def redirect(request: web.BaseRequest) -> web.Response:
        await request.read()
        raise web.HTTPTemporaryRedirect(f"http://localhost:{others[0]}/elsewhere")

    others: list[str] = []

    async def main() -> None:
        async with (
            serving(elsewhere) as other,
            serving(redirect) as url,
            AtlasCloud(KEY, base_url=url) as provider,
        ):
            others.append(other.rpartition(":")[2])
            with pytest.raises(Rejected, match="redirects to localhost") as caught:
                await provider.upload(path)
        assert KEY not in repr(caught.value)

    asyncio.run(main())
    assert seen == []


def test_a_file_that_shrinks_while_it_is_sent_is_no_upload(tmp_path: Path) -> None:
    """The request breaks off; what was said to be its length is never filled with something."""
    path = photo(tmp_path, "a.png")
    path.write_bytes(PNG + bytes(2_000_000))

    async def steps(simulator: Simulator) -> None:
        read = FilePart.open

        async def shrinking(self: FilePart, stack: Any) -> Any:
            opened = await read(self, stack)
            os.truncate(path, 1000)
            return opened

        FilePart.open = shrinking  # type: ignore[method-assign]
        try:
            async with AtlasCloud(KEY, base_url=simulator.base_url) as provider:
                with pytest.raises(NotAccepted):
                    await provider.upload(path)
        finally:
            FilePart.open = read  # type: ignore[method-assign]
        assert simulator.books.uploads() == {}

    simulated(tmp_path, steps)
