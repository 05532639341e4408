"""Media of many megabytes inside an answer hold nobody else up."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from asyncpipe.errors import DownloadError
from asyncpipe.media import Downloader, Target, downloader
from asyncpipe.media.formats import read_data_uri
from asyncpipe.providers.atlas import AtlasCloud, client
from tests.support.media import PNG_WHOLE
from tests.support.servers import serving

LARGE = PNG_WHOLE[:-12] + Random(1).randbytes(20_000_000) + PNG_WHOLE[-12:]
TEXT = base64.b64encode(LARGE).decode()


def in_threads(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[bool]:
    """Whether each call of a function was outside the main thread."""
    real, seen = getattr(owner, name), []

    def noted(*args: Any, **named: Any) -> Any:
        seen.append(threading.current_thread() is not threading.main_thread())
        return real(*args, **named)

    monkeypatch.setattr(owner, name, noted)
    return seen


@pytest.mark.parametrize(("body", "apart"), [(LARGE, True), (PNG_WHOLE, False)])
def test_a_large_answer_is_decoded_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, *, apart: bool
) -> None:
    """A small one is not worth it."""
    decoded = in_threads(monkeypatch, downloader, "read_data_uri")
    url = f"data:image/png;base64,{base64.b64encode(body).decode()}"

    async def main() -> None:
        async with Downloader(tmp_path) as opened:
            stored = await opened.fetch(url, Target(stem="images/杯", part="1"))
            assert (tmp_path / stored.path).read_bytes() == body

    asyncio.run(main())
    assert decoded == [apart]


def test_a_large_answer_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the provider sends it: bare base64 in a poll's JSON."""
    read = in_threads(monkeypatch, client, "read_poll")
    document = {"code": 200, "data": {"id": "p", "status": "completed", "outputs": [TEXT]}}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(document)

    async def main() -> None:
        async with serving(answer) as origin, AtlasCloud("apikey-test", base_url=origin) as atlas:
            (output,) = (await atlas.poll("p")).outputs
            assert output == f"data:application/octet-stream;base64,{TEXT}"

    asyncio.run(main())
    assert all(read)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (base64.b64encode(LARGE[:1000]).decode(), LARGE[:1000]),
        ("QUJD\nREVG", b"ABCDEF"),
        ("QU JD-_.REVG", b"ABCDEF"),
        ("QQ==", b"A"),
        ("%51%51==", b"A"),
    ],
)
def test_base64_is_read_as_before(text: str, body: bytes) -> None:
    """What is no part of it is passed over."""
    assert read_data_uri(f"data:image/png;base64,{text}") == ("image/png", body)
    with pytest.raises(DownloadError, match="not base64"):
        read_data_uri("data:image/png;base64,QUJDR")
