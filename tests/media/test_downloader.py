"""Downloads over real sockets: whole and verified, or not at all."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import hashlib
import os
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from aiohttp import web

from asyncpipe.errors import DiskError, DownloadError, MediaGone, TooLarge
from asyncpipe.http.body import Body
from asyncpipe.http.hosts import PublicResolver
from asyncpipe.media.downloader import SMALL, Downloader
from asyncpipe.media.source import StoredFile
from asyncpipe.testing import PIXEL, run_virtual
from tests.support.media import LARGE, PNG, PNG_WHOLE, TARGET, Answer, fetch, left, offering
from tests.support.servers import listening


@pytest.mark.parametrize("body", [PNG, LARGE, LARGE[:SMALL], LARGE[: SMALL - 1]])
def test_a_file_stands_whole_with_its_hash(tmp_path: Path, body: bytes) -> None:
    """Small ones in one hop, large ones streamed: same bytes, right extension."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, content_type="application/octet-stream")

    stored = fetch(tmp_path, answer)
    assert (tmp_path / stored.path).read_bytes() == body
    assert stored.path == ("images/杯子.png" if body is PNG else "images/杯子.mp4")
    assert (stored.size, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert not list((tmp_path / ".asyncpipe" / "parts").iterdir())


@pytest.mark.parametrize("status", [403, 404, 410])
def test_gone_media_says_so_without_the_signature(tmp_path: Path, status: int) -> None:
    """An expired URL is a case of its own; its signature stays out of messages."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    with pytest.raises(MediaGone, match=str(status)) as caught:
        fetch(tmp_path, answer)
    assert "secret" not in str(caught.value)


def test_a_stalled_download_ends(tmp_path: Path) -> None:
    """A server that stops sending does not hold the job for ever."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
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


INLINE = base64.b64encode(b"Service temporarily unavailable, retry" * 900).decode()


@pytest.mark.parametrize("medium", [INLINE[:52], INLINE])
def test_no_message_holds_the_media_of_an_answer(tmp_path: Path, medium: str) -> None:
    """What a data URI is counts, its bytes say nothing to anybody."""

    async def main() -> None:
        async with Downloader(tmp_path) as downloader:
            await downloader.fetch(f"data:image/png;base64,{medium}", TARGET)

    with pytest.raises(DownloadError, match=r"^data:image/png;base64,… is ") as caught:
        asyncio.run(main())
    assert medium[:12] not in str(caught.value)


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
    seen: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/x/out":
            return web.Response(status=302, headers={"Location": "/moved"})
        return web.Response(body=PNG)

    assert fetch(tmp_path, answer, seen).size == len(PNG)
    assert [request.path for request in seen] == ["/x/out", "/moved"]

    async def away(request: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    async def around(request: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": request.path})

    for endless in (away, around):
        with pytest.raises(DownloadError, match="redirected"):
            fetch(tmp_path, endless)


async def trickle(
    request: web.BaseRequest, *, size: int, every_s: float, first: int = 0
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(LARGE)), "ETag": '"v"'})
    await response.prepare(request)
    await response.write(LARGE[:first])
    for start in range(first, len(LARGE), size):
        await response.write(LARGE[start : start + size])
        await asyncio.sleep(every_s)
    return response


def timed_fetch(folder: Path, answer: Answer, **options: Any) -> tuple[StoredFile | str, float]:
    """Fetch in virtual time; returns the file or what was wrong, and how long it took."""

    async def main() -> tuple[StoredFile | str, float]:
        clock = asyncio.get_running_loop().time
        async with offering(answer) as url, Downloader(folder, **options) as downloader:
            began = clock()
            try:
                return await downloader.fetch(url, TARGET), clock() - began
            except DownloadError as exc:
                return f"{exc} (kept: {exc.have > 0})", clock() - began

    return run_virtual(main())


@pytest.mark.parametrize("first", [0, 2 * SMALL])
def test_a_trickle_is_given_up_and_kept(tmp_path: Path, first: int) -> None:
    """Never silent for long, and never done: 100 bytes a second, whatever came before."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await trickle(request, size=100, every_s=1.0, first=first)

    said, took_s = timed_fetch(tmp_path, answer)
    assert "slower than the 1024 bytes/s" in str(said)
    assert "(kept: True)" in str(said)
    assert 30.0 <= took_s <= (62.0 if first else 32.0)
    assert left(tmp_path) == []


def test_slow_is_no_reason_to_give_up(tmp_path: Path) -> None:
    """At 2 KiB/s a film takes long, and arrives: there is no limit on the whole time."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await trickle(request, size=20 * 1024, every_s=10.0)

    stored, took_s = timed_fetch(tmp_path, answer)
    assert isinstance(stored, StoredFile), stored
    assert took_s > 1500
    assert (tmp_path / stored.path).read_bytes() == LARGE


def test_trickling_headers_are_given_up(tmp_path: Path) -> None:
    """Before there is a body, too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000):
            writer.write(b"X-%d: 1\r\n" % number)
            await writer.drain()
            await asyncio.sleep(9.0)

    async def main() -> float:
        clock = asyncio.get_running_loop().time
        async with listening(serve) as port, Downloader(tmp_path) as downloader:
            began = clock()
            with pytest.raises(DownloadError):
                await downloader.fetch(f"http://127.0.0.1:{port}/a.png", TARGET)
            return clock() - began

    assert run_virtual(main()) <= 46.0


def test_a_slow_disk_is_not_the_servers_fault(tmp_path: Path) -> None:
    """Only what is spent waiting for the network counts."""

    class Stream:
        def is_eof(self) -> bool:
            return False

        async def readany(self) -> bytes:
            return b"x" * 100

    async def main() -> int:
        response = cast(Any, SimpleNamespace(content=Stream(), content_length=None, headers={}))
        body = Body(response, have=0, largest=None, slowest=1024.0, window_s=30.0)
        for _ in range(10):
            await body.read(100)
            await asyncio.sleep(60.0)
        return body.have

    assert run_virtual(main()) == 1000


def test_an_end_that_comes_late_is_an_end(tmp_path: Path) -> None:
    """All bytes are there then: that the server took its time to say so is nothing."""

    class Stream:
        pieces: ClassVar = [b"x" * 100, b""]

        def is_eof(self) -> bool:
            return False

        async def readany(self) -> bytes:
            await asyncio.sleep(29.0)
            return self.pieces.pop(0)

    async def main() -> bytes:
        response = cast(Any, SimpleNamespace(content=Stream(), content_length=None, headers={}))
        body = Body(response, have=0, largest=None, slowest=1024.0, window_s=30.0)
        return b"".join(await body.read(SMALL))

    assert run_virtual(main()) == b"x" * 100


def test_an_endless_body_ends(tmp_path: Path) -> None:
    """At the limit, whatever its length is said to be; nothing of it stays on disk."""
    sent = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"ETag": '"v"'})
        await response.prepare(request)
        await response.write(LARGE)
        with suppress(ConnectionError):
            while True:
                await response.write(bytes(SMALL))
                sent += SMALL
        return response

    with pytest.raises(TooLarge, match="larger than the 9000000 bytes"):
        fetch(tmp_path, answer, largest=9_000_000)
    assert left(tmp_path) == []
    assert not list((tmp_path / ".asyncpipe" / "parts").iterdir())
    assert sent < 50_000_000


def test_a_body_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Content-Length is believed there."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(2**40)})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    with pytest.raises(TooLarge, match="1099511627776"):
        fetch(tmp_path, answer)


FILM = b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\x08moov"


@pytest.mark.parametrize(
    "body",
    [PNG_WHOLE, FILM + (3 * SMALL).to_bytes(4) + b"mdat" + bytes(3 * SMALL - 8)],
    ids=["small", "large"],
)
def test_the_limit_itself_is_allowed(tmp_path: Path, body: bytes) -> None:
    """One byte more is not."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()  # chunked: no length to go by
        await response.prepare(request)
        await response.write(body)
        return response

    with pytest.raises(TooLarge):
        fetch(tmp_path, answer, largest=len(body) - 1)
    assert not list((tmp_path / ".asyncpipe" / "parts").iterdir())
    assert fetch(tmp_path, answer, largest=len(body)).size == len(body)


@pytest.mark.parametrize("size", [60, 2 * SMALL])
def test_a_film_that_is_cut_off_without_a_word_is_none(tmp_path: Path, size: int) -> None:
    """No length was told: its boxes tell."""
    body = FILM + (3 * SMALL).to_bytes(4) + b"mdat" + bytes(size)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(body)
        return response

    with pytest.raises(DownloadError, match="cut off"):
        fetch(tmp_path, answer)
    assert left(tmp_path) == []


def test_a_data_uri_has_the_same_limit(tmp_path: Path) -> None:
    """It came inside an answer, and would fill a disk as well."""

    async def main() -> None:
        async with Downloader(tmp_path, largest=10) as downloader:
            await downloader.fetch(PIXEL, TARGET)

    with pytest.raises(TooLarge):
        asyncio.run(main())


@pytest.mark.parametrize("size", [100, 3 * SMALL])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "aws-chunked", "utf-8", "none", ""])
def test_media_come_as_they_are_however_they_are_coded(
    tmp_path: Path, coding: str, size: int
) -> None:
    """Asked for uncoded; what is packed all the same is unpacked, what says so and is not, kept."""
    seen: list[web.BaseRequest] = []
    picture = PNG_WHOLE[:-12] + bytes(size) + PNG_WHOLE[-12:]
    packed = {"gzip": gzip.compress(picture), "deflate": zlib.compress(picture)}

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(
            body=packed.get(coding, picture), headers={"Content-Encoding": coding, "ETag": '"1"'}
        )

    stored = fetch(tmp_path, answer, seen)
    assert seen[0].headers.getall("Accept-Encoding") == ["identity"]
    assert (tmp_path / stored.path).read_bytes() == picture
    assert stored.size == len(picture)


def test_what_cannot_be_unpacked_is_no_medium(tmp_path: Path) -> None:
    """The coding is said; nothing is left, and nothing is gone on with."""

    async def coded(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"(\xb5/\xfd" + PNG, headers={"Content-Encoding": "zstd"})

    async def cut(request: web.BaseRequest) -> web.Response:
        body = gzip.compress(PNG_WHOLE + os.urandom(5000))[:-30]
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "ETag": '"1"'})

    for answer, said in ((coded, "zstd"), (cut, "ends too early")):
        with pytest.raises(DownloadError, match=said):
            fetch(tmp_path, answer)
        assert left(tmp_path) == []


def test_what_unpacks_to_too_much_is_stopped(tmp_path: Path) -> None:
    """A thousand times its size, and never more in memory than what is allowed."""

    async def answer(request: web.BaseRequest) -> web.Response:
        body = gzip.compress(PNG + bytes(50_000_000))
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    with pytest.raises(TooLarge):
        fetch(tmp_path, answer, largest=2_000_000)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]
)
@pytest.mark.parametrize("body", [PNG, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("step", ["open", "write", "fsync", "link"])
def test_a_disk_that_refuses_is_not_a_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, body: bytes, number: int
) -> None:
    """Whatever refuses at whatever step: DiskError, no file; and the next run stores it."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, headers={"ETag": '"v"'})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    place = {
        "open": "Part",
        "write": "Part.writelines",
        "fsync": "os.fsync",
        "link": "os.link",
    }
    if body is PNG:
        place |= {"open": "os.open", "write": "os.write"}
    with monkeypatch.context() as broken:
        broken.setattr(f"asyncpipe.media.parts.{place[step]}", refuse)
        if step == "link":  # where there are no hard links
            broken.setattr("asyncpipe.media.parts.os.replace", refuse)
        if step == "open" and body is LARGE:
            broken.setattr("asyncpipe.media.downloader.Part", refuse)
        with pytest.raises(DiskError, match=r"run the same command again") as caught:
            fetch(tmp_path, answer)
    assert str(tmp_path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert not isinstance(caught.value, DownloadError)
    assert left(tmp_path) == []
    if step == "fsync":  # the cache may look whole by now while the disk is not
        assert not list((tmp_path / ".asyncpipe" / "parts").iterdir())
    stored = fetch(tmp_path, answer)
    assert (tmp_path / stored.path).read_bytes() == body


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from asyncpipe.media import Downloader, Target
from asyncpipe.errors import DiskError

async def main():
    target = Target(stem="images/a", part="1_0.part", default_extension="png")
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
    async with Downloader(Path(sys.argv[1])) as downloader:
        try:
            await downloader.fetch(sys.argv[2], target)
        except DiskError as exc:
            print(exc)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size there")
@pytest.mark.parametrize(
    ("body", "limit", "start"), [(PNG, 50, None), (LARGE, 2 * SMALL, SMALL)], ids=["small", "large"]
)
def test_a_real_refusal_names_folder_cause_and_remedy(
    tmp_path: Path, body: bytes, limit: int, start: int | None
) -> None:
    """The system itself refuses in mid-file; what was written before is gone on with."""
    ranges: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        ranges.append(request.headers.get("Range"))
        first = request.http_range.start or 0
        told = {"ETag": '"v"', "Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
        return web.Response(body=body[first:], headers=told, status=206 if first else 200)

    async def main() -> tuple[str, StoredFile]:
        async with offering(answer) as url:
            program = (sys.executable, "-c", LIMITED, str(tmp_path), url, str(limit))
            process = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE)
            said, _ = await process.communicate()
            assert left(tmp_path) == []
            async with Downloader(tmp_path) as downloader:
                return said.decode(), await downloader.fetch(url, TARGET)

    said, stored = asyncio.run(main())
    assert f"nothing more can be stored in {tmp_path}: File too large; raise the limit" in said
    assert (tmp_path / stored.path).read_bytes() == body
    assert ranges[0] is None
    begun = int((ranges[1] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    assert begun >= (start or 0)
    assert (ranges[1] is None) is (start is None)


def test_a_folder_that_cannot_be_made_is_disk_trouble(tmp_path: Path) -> None:
    """Before anything is fetched."""
    (tmp_path / "out").write_text("in the way")

    async def main() -> None:
        async with Downloader(tmp_path / "out"):
            pass

    with pytest.raises(DiskError, match="out"):
        asyncio.run(main())
