"""The provider of the benchmarks: so cheap that it is never the bottleneck; a process of its own.

    python -m benchmarks.harness.server [--bytes 100000] [--generation 0] [--core 1]

Speaks what the simulator speaks of submit, poll and media, with one fixed body, and nothing else:
no faults, no books. ``GET /stats`` tells its own CPU seconds and how many submits it took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import cast

from benchmarks.harness.line import new_loop, pin

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
LEAST_PNG = PNG + b"\x00" * 17 + b"\x00\x00\x00\x00IEND\xaeB`\x82"
FTYP = b"\x00\x00\x00\x18ftypisom" + b"\x00" * 12
MOOV = b"\x00\x00\x00\x08moov"
_END = b"\r\n\r\n"


def picture(size: int) -> bytes:
    """``size`` bytes or the least; not all zero, so that no file system makes a hole."""
    return LEAST_PNG if size < len(LEAST_PNG) else PNG + b"\xa5" * (size - len(PNG))


def clip(size: int) -> bytes:
    """A film of ``size`` bytes, or the least, as far as anybody looks before it is stored."""
    filler = max(size - len(FTYP) - len(MOOV) - 8, 0)
    return FTYP + MOOV + (8 + filler).to_bytes(4) + b"mdat" + b"\xa5" * filler


def answer(body: bytes, content_type: str = "application/json", more: str = "") -> bytes:
    """One whole HTTP answer."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Server: benchmark\r\n{more}\r\n".encode() + body


class Books:
    """What the server sends, and what it has sold."""

    def __init__(self, size: int, generation_s: float) -> None:
        etag = 'ETag: "a5"\r\nAccept-Ranges: bytes\r\n'
        self.picture = answer(picture(size), "image/png", etag)
        self.clip = answer(clip(size), "video/mp4", etag)
        self.generation_s = generation_s
        self.origin = ""
        self.submits = 0

    def submit(self, path: bytes) -> bytes:
        """Sell one prediction; its id says when it is ready, and what it is."""
        self.submits += 1
        kind = "v" if b"Video" in path else "i"
        ready = time.monotonic() + self.generation_s
        name = f"{kind}{self.submits:x}-{ready:.3f}"
        return answer(b'{"code":200,"data":{"id":"%s","status":"created"}}' % name.encode())

    def poll(self, name: str) -> bytes:
        """Tell how a prediction stands."""
        if self.generation_s and float(name.partition("-")[2]) > time.monotonic():
            status, outputs = "processing", ""
        else:
            kind = "mp4" if name.startswith("v") else "png"
            status, outputs = "completed", f'"{self.origin}/media/{name}.{kind}"'
        text = f'{{"code":200,"data":{{"id":"{name}","status":"{status}","outputs":[{outputs}]}}}}'
        return answer(text.encode())

    def stats(self) -> bytes:
        """What it cost so far."""
        told = {"cpu_s": time.process_time(), "submits": self.submits}
        return answer(json.dumps(told).encode())

    def reply(self, method: bytes, path: bytes) -> bytes:
        """Answer one request."""
        if method == b"POST":
            return self.submit(path)
        if path.startswith(b"/media/"):
            return self.clip if path.endswith(b"mp4") else self.picture
        if path == b"/stats":
            return self.stats()
        if b"/prediction/" not in path:
            return _NOT_THERE
        return self.poll(path.rpartition(b"/")[2].decode())


_NOT_THERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
"""It tells no balance, and whose key it is asked with."""


class Connection(asyncio.Protocol):
    """One client connection, kept alive for ever."""

    def __init__(self, books: Books) -> None:
        self._books, self._buffer = books, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            size = end + len(_END) + _length(self._buffer[:end])
            if len(self._buffer) < size:
                return
            method, path, _ = self._buffer.split(b" ", 2)
            self._buffer = self._buffer[size:]
            self._transport.write(self._books.reply(method, path))


def _length(head: bytes) -> int:
    if not head.startswith(b"POST"):
        return 0
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


async def serve(books: Books) -> None:
    """Print the base URL and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(books), "127.0.0.1", 0, backlog=1000)
    async with server:
        books.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print(f"{books.origin}/api/v1", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--generation", type=float, default=0.0)
    parser.add_argument("--core", type=int, default=1, help="-1: none")
    options = parser.parse_args()
    if options.core >= 0:
        pin(options.core)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(Books(options.bytes, options.generation)))


if __name__ == "__main__":
    main()
