"""Bodies received straight into a block: the same file, the same errors, the same connection."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe import disk
from asyncpipe.body import BLOCK
from asyncpipe.downloader import Downloader, StoredFile, Target
from asyncpipe.errors import DownloadError
from asyncpipe.parts import Small, Written, write_small
from asyncpipe.straight import LEAST, Straight
from asyncpipe.testing import run_virtual

MOST = 3 * BLOCK + 12
NOISE = Random(7).randbytes(MOST + 97)


def media(size: int) -> bytes:
    """So many bytes, of each size other ones."""
    return (b"\x00\x00\x00\x18ftypisom" + NOISE[size % 97 :])[:size]


def target(number: int) -> Target:
    return Target(stem=f"videos/{number}", part=f"{number}_0.part", default_extension="mp4")


class Origin:
    """Serves as many bytes as the path says; ``sends`` of them at most, then nothing."""

    def __init__(self, sends: int = MOST) -> None:
        self.sends, self.connections = sends, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.split()[1].strip(b"/"))
                told = f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "v"\r\n\r\n'
                writer.write(told.encode() + media(size)[: self.sends])
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def fetch(self, folder: Path, *sizes: int, **options: Any) -> list[StoredFile]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Downloader(folder, **options) as downloader:
            return [
                await downloader.fetch(f"{at}/{size}", target(number))
                for number, size in enumerate(sizes)
            ]


def loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
    with suppress(ImportError):
        import uvloop

        found.append(uvloop.new_event_loop)
    return found


@pytest.mark.parametrize("loop", loops())
def test_one_connection_serves_all(
    tmp_path: Path,
    loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """aiohttp has it back after each body, whatever its size is to a block's."""
    sizes = (BLOCK - 1, 100, LEAST, BLOCK, BLOCK + 1, 3 * BLOCK, MOST, 7)
    gone: list[int] = []
    receive = Straight.receive

    async def watched(self: Straight, room: memoryview) -> None:
        gone.append(len(room))
        await receive(self, room)

    monkeypatch.setattr(Straight, "receive", watched)
    origin = Origin()
    with asyncio.Runner(loop_factory=loop) as runner:
        stored = runner.run(origin.fetch(tmp_path, *sizes))
    assert [file.size for file in stored] == list(sizes)
    for file in stored:
        body = media(file.size)
        assert (tmp_path / file.path).read_bytes() == body
        assert file.sha256 == hashlib.sha256(body).hexdigest()
    assert origin.connections == 1
    assert len(gone) > 5  # and it was not aiohttp that read them


@pytest.mark.parametrize("sends", [LEAST, BLOCK + 5])
def test_a_silent_server_is_given_up(tmp_path: Path, sends: int) -> None:
    """So long after its last byte, and what came is kept."""

    async def main() -> tuple[DownloadError, float]:
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(DownloadError) as caught:
            await Origin(sends).fetch(tmp_path, MOST, stalled_s=20.0)
        return caught.value, clock() - began

    error, took_s = run_virtual(main())
    assert error.have == sends
    assert 20.0 <= took_s < 21.0


def test_a_block_that_is_still_written_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled download's thread goes on: the next body must not get into its file."""
    begun, go = threading.Event(), threading.Event()

    def slowly(batch: list[Small]) -> list[Written]:
        begun.set()
        assert go.wait(10)
        return write_small(batch)

    monkeypatch.setattr(disk, "write_small", slowly)

    async def main() -> None:
        server = await asyncio.start_server(Origin().serve, "127.0.0.1", 0)
        at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Downloader(tmp_path) as downloader:
            first = asyncio.ensure_future(downloader.fetch(f"{at}/{LEAST}", target(0)))
            await asyncio.to_thread(begun.wait, 10)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.ensure_future(downloader.fetch(f"{at}/{BLOCK - 1}", target(1)))
            await asyncio.sleep(0.3)  # by then it has been received
            go.set()
            await second

    asyncio.run(main())
    assert (tmp_path / "videos/0.mp4").read_bytes() == media(LEAST)
    assert (tmp_path / "videos/1.mp4").read_bytes() == media(BLOCK - 1)
