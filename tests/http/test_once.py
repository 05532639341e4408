"""A submit's bytes exist in one place and are handed out once: sent is known, and paid once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
from yarl import URL

from asyncpipe.errors import NotSent, SubmitUnknown
from asyncpipe.http.client import HttpAnswer, HttpClient, OnceBody

JOB = {"model": "m", "prompt": "一只猫"}
TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """A raw server; ``serve`` gets each connection, which is reset afterwards."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read_body(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request, read to the length that its head tells."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert not any(line.startswith(b"transfer-encoding") for line in lines), "no chunks"
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    return await reader.readexactly(length)


def instead(monkeypatch: pytest.MonkeyPatch, request: Callable[..., Awaitable[Any]]) -> None:
    """Let ``request`` stand for what aiohttp makes of a submit's body."""

    async def asked(session: Any, method: str, url: URL, *, data: OnceBody, **_: Any) -> Any:
        return await request(data)

    monkeypatch.setattr(aiohttp.ClientSession, "request", asked)


async def post(url: str = "http://127.0.0.1:1") -> HttpAnswer:
    async with HttpClient(url, headers={}) as client:
        return await client.post("/x", JOB)


def test_a_body_nobody_asked_for_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the error says that the connection was lost: nothing that buys had left."""

    async def break_off(body: OnceBody) -> None:
        raise aiohttp.ClientOSError(104, "Connection reset by peer")

    instead(monkeypatch, break_off)
    with pytest.raises(NotSent):
        asyncio.run(post())


def test_a_body_that_was_asked_for_may_have_been_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marked before its first byte is handed out: what the network made of it nobody knows."""

    async def break_off(body: OnceBody) -> None:
        async for _ in body:
            raise aiohttp.ClientOSError(104, "Connection reset by peer")

    instead(monkeypatch, break_off)
    with pytest.raises(SubmitUnknown):
        asyncio.run(post())


def test_a_body_is_handed_out_once() -> None:
    """Whoever asks again gets an error, and not a byte."""

    async def main() -> None:
        body = OnceBody(b"{}")
        states = [body.begun]
        assert [piece async for piece in body] == [b"{}"]
        assert [*states, body.begun] == [False, True]
        with pytest.raises(RuntimeError, match="once"):
            await anext(aiter(body))

    asyncio.run(main())


def test_a_body_arrives_whole_under_its_length() -> None:
    """Not in chunks, which some gateways refuse."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_body(reader))
        writer.write(TAKEN)
        await writer.drain()

    async def main() -> None:
        async with listening(serve) as url:
            assert (await post(url)).body == b"{}"

    asyncio.run(main())
    assert seen == ['{"model":"m","prompt":"一只猫"}'.encode()]


def test_a_reused_connection_that_was_closed_gets_no_second_submit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although aiohttp, told that a POST may be repeated, asks for the body again."""
    monkeypatch.setattr("aiohttp.client.IDEMPOTENT_METHODS", frozenset({"POST"}))
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_body(reader))
        writer.write(TAKEN)
        await writer.drain()
        seen.append(await read_body(reader))  # and closes without a word

    async def main() -> None:
        async with listening(serve) as url, HttpClient(url, headers={}) as client:
            await client.post("/x", JOB)
            with pytest.raises(SubmitUnknown):
                await client.post("/x", JOB)

    asyncio.run(main())
    assert len(seen) == 2


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_is_followed_sends_no_second_submit(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Ours are not followed; were they, these two would repeat the body."""
    request = aiohttp.ClientSession.request

    async def following(*arguments: Any, **options: Any) -> Any:
        return await request(*arguments, **{**options, "allow_redirects": True})

    monkeypatch.setattr(aiohttp.ClientSession, "request", following)
    seen: list[bytes] = []

    async def serve(
        answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seen.append(await read_body(reader))
        writer.write(answer)
        await writer.drain()

    async def main() -> None:
        async with listening(partial(serve, TAKEN)) as other:
            moved = (
                f"HTTP/1.1 {status} Moved\r\nLocation: {other}/y\r\nContent-Length: 0\r\n\r\n"
            ).encode()
            async with listening(partial(serve, moved)) as url:
                with pytest.raises(SubmitUnknown):
                    await post(url)

    asyncio.run(main())
    assert len(seen) == 1
