"""A proxy that tunnels TLS, with a CA of the test's own, and whole commands behind it."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trustme

KEY = "apikey-0123456789abcdef0123456789abcdef"
HOST = "api.provider.test"


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until they end."""
    try:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    """Carry bytes both ways between a client and a port."""
    far_reader, far_writer = await asyncio.open_connection(host, port)
    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


@asynccontextmanager
async def proxied(
    port: int, ca: trustme.CA, answer: bytes | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy whose tunnels end at TLS in front of ``port``; yields its port and its CONNECTs.

    With ``answer`` it opens none and says that.
    """
    heads: list[str] = []
    served: set[asyncio.Task[None]] = set()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)

    def note() -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        task.add_done_callback(served.discard)

    async def unwrap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        note()
        await join(reader, writer, "127.0.0.1", port)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        note()
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            return writer.close()
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(reader, writer, "127.0.0.1", inside)

    tls = await asyncio.start_server(unwrap, "127.0.0.1", 0, ssl=context)
    inside = tls.sockets[0].getsockname()[1]
    proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with tls, proxy:
        yield proxy.sockets[0].getsockname()[1], heads
        if served:
            await asyncio.wait(served, timeout=10)


async def command(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a command to its end; returns its exit code and what it printed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncpipe", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    said, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode()
