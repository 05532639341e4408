"""Downloads over real sockets: whole and verified, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from asyncpipe.downloader import SMALL, Downloader, StoredFile, Target
from asyncpipe.errors import DownloadError, MediaGone
from asyncpipe.media import extension, is_page, read_data_uri, sniff
from asyncpipe.reach import PublicResolver, is_public
from asyncpipe.testing import PIXEL

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
LARGE = b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * (3 * SMALL // 256)
TARGET = Target(stem="images/杯子", part="1_0.part", default_extension="png")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fetch(folder: Path, answer: Answer, seen: list[web.Request] | None = None) -> StoredFile:
    async def serve(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(request)
        return await answer(request)

    async def main() -> StoredFile:
        app = web.Application()
        app.router.add_get("/{name:.*}", serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with Downloader(folder, stalled_s=1.0) as downloader:
                return await downloader.fetch(f"http://127.0.0.1:{port}/x/out?sig=secret", TARGET)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def left(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and "parts" not in p.parts]


@pytest.mark.parametrize("body", [PNG, LARGE, LARGE[:SMALL], LARGE[: SMALL - 1]])
def test_a_file_stands_whole_with_its_hash(tmp_path: Path, body: bytes) -> None:
    """Small ones in one hop, large ones streamed: same bytes, right extension."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/octet-stream")

    stored = fetch(tmp_path, answer)
    assert (tmp_path / stored.path).read_bytes() == body
    assert stored.path == ("images/杯子.png" if body is PNG else "images/杯子.mp4")
    assert (stored.size, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert not list((tmp_path / ".asyncpipe" / "parts").iterdir())


def test_media_requests_carry_no_credentials(tmp_path: Path) -> None:
    """No Authorization, no cookies, our own User-Agent."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=PNG)

    fetch(tmp_path, answer, seen)
    headers = seen[0].headers
    assert "Authorization" not in headers
    assert "Cookie" not in headers
    assert headers["User-Agent"].startswith("asyncpipe/")


@pytest.mark.parametrize("body", [PNG, LARGE])
def test_a_body_that_breaks_off_is_never_a_file(tmp_path: Path, body: bytes) -> None:
    """Cut before Content-Length: an error, and nothing under the final name."""

    async def answer(request: web.Request) -> web.StreamResponse:
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

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="image/png")

    with pytest.raises(DownloadError):
        fetch(tmp_path, answer)
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_gone_media_says_so_without_the_signature(tmp_path: Path, status: int) -> None:
    """An expired URL is a case of its own; its signature stays out of messages."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    with pytest.raises(MediaGone, match=str(status)) as caught:
        fetch(tmp_path, answer)
    assert "secret" not in str(caught.value)


def test_a_stalled_download_ends(tmp_path: Path) -> None:
    """A server that stops sending does not hold the job for ever."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(PNG)
        await asyncio.Event().wait()
        return response

    with pytest.raises(DownloadError):
        fetch(tmp_path, answer)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "javascript:1", "/etc/passwd"])
def test_other_schemes_are_refused(tmp_path: Path, url: str) -> None:
    """Only http, https and data."""

    async def main() -> None:
        async with Downloader(tmp_path) as downloader:
            await downloader.fetch(url, TARGET)

    with pytest.raises(DownloadError, match="neither http"):
        asyncio.run(main())


def test_data_uris_need_no_network(tmp_path: Path) -> None:
    """base64 outputs become files like any other."""

    async def main() -> StoredFile:
        async with Downloader(tmp_path) as downloader:
            return await downloader.fetch(PIXEL, TARGET)

    stored = asyncio.run(main())
    assert (tmp_path / stored.path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("url", ["data:", "data:image/png;base64", "data:image/png;base64,@@@a"])
def test_broken_data_uris_are_an_error_of_ours(url: str) -> None:
    """Never another exception."""
    with pytest.raises(DownloadError):
        read_data_uri(url)


@pytest.mark.parametrize(
    ("head", "content_type", "url", "told"),
    [
        (PNG, "video/mp4", "https://x/a.jpg", "png"),
        (b"????", "image/webp; q=1", "https://x/a.jpg", "webp"),
        (b"????", "application/octet-stream", "https://x/a.glb?x=.exe", "glb"),
        (b"????", None, "https://x/noname", "png"),
        (b"????", None, "https://x/a.sh%00", "png"),
        (b"\x00\x00\x00\x14ftypqt  ", None, "", "mov"),
    ],
)
def test_extensions_come_from_bytes_then_type_then_url(
    head: bytes, content_type: str | None, url: str, told: str
) -> None:
    """Magic bytes win over what a server says."""
    assert extension(head, content_type, url, "png") == told


def test_pages_are_told_from_media() -> None:
    """HTML, XML and JSON are pages; media and unknown binary are not."""
    assert is_page(b"\n  <html lang='zh'>")
    assert is_page(b'{"error": 1}')
    assert is_page(b"[]")
    assert not is_page(PNG)
    assert not is_page(b"glTF\x02")
    assert sniff(b"RIFF\x00\x00\x00\x00WEBPVP8 ") == "webp"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("198.18.0.7", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_public_addresses_are_told_from_the_users_own_network(address: str, public: bool) -> None:
    """Including what a local proxy's DNS answers, which is no target."""
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"])
def test_outputs_inside_the_users_network_are_refused(tmp_path: Path, host: str) -> None:
    """Unless the API itself is on loopback; by address and by name, before anything is asked."""

    async def main() -> None:
        async with Downloader(tmp_path, public_only=True) as downloader:
            await downloader.fetch(f"http://{host}:9/a.png", TARGET)

    with pytest.raises(DownloadError, match="not a public address"):
        asyncio.run(main())


def test_a_name_that_resolves_inside_is_refused() -> None:
    """The address counts, not the name."""

    async def main() -> None:
        resolver = PublicResolver()
        try:
            await resolver.resolve("localhost", 80)
        finally:
            await resolver.close()

    with pytest.raises(DownloadError, match="not a public address"):
        asyncio.run(main())


def test_redirects_are_followed_and_checked(tmp_path: Path) -> None:
    """A moved file is fetched; a redirect to another scheme or without an end is not."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/x/out":
            return web.Response(status=302, headers={"Location": "/moved"})
        return web.Response(body=PNG)

    assert fetch(tmp_path, answer, seen).size == len(PNG)
    assert [request.path for request in seen] == ["/x/out", "/moved"]

    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    async def around(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.path})

    for endless in (away, around):
        with pytest.raises(DownloadError, match="redirected"):
            fetch(tmp_path, endless)
