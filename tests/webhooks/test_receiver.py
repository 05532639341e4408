"""The sub-application for aiohttp, over sockets: what it answers, and what it never reads."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asyncpipe.errors import WebhookRefused
from asyncpipe.webhooks import StandardWebhooks, receiver
from asyncpipe.webhooks.delivery import LARGEST_BODY
from tests.support.signed import NOW, SECRET, STANDARD, STANDARD_BODY


class Takes:
    """Takes deliveries signed with SECRET, a moment in 2025."""

    def __init__(self) -> None:
        self.verifier = StandardWebhooks(SECRET)
        self.bodies: list[bytes] = []

    async def deliver(self, headers: Any, body: bytes, *, verifier: Any = None) -> int:
        self.bodies.append(body)
        try:
            await self.verifier.verify(headers, body, NOW)
        except WebhookRefused as exc:
            return exc.status
        return 200


def beside(steps: Callable[[str, aiohttp.ClientSession, Takes], Awaitable[None]]) -> None:
    """Do ``steps`` beside an application that has a receiver in it, and takes larger bodies."""

    async def main() -> None:
        takes = Takes()
        app = web.Application(client_max_size=8 * LARGEST_BODY)
        app.add_subapp("/webhooks", receiver(takes))
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks"
            async with aiohttp.ClientSession() as session:
                await steps(url, session, takes)
        finally:
            await runner.cleanup()

    asyncio.run(main())


def test_it_answers_a_status_and_nothing_else() -> None:
    """What is right, what is a replay, what is forged, and what is no POST."""

    async def steps(url: str, session: aiohttp.ClientSession, takes: Takes) -> None:
        async def post(path: str = "", **headers: str) -> int:
            told = {**STANDARD, **headers}
            async with session.post(url + path, data=STANDARD_BODY, headers=told) as answer:
                assert await answer.read() == b""
                return answer.status

        assert await post() == 200
        assert await post("/") == 409
        assert await post("/", **{"webhook-id": "msg_2"}) == 401
        assert await post("/", **{"webhook-timestamp": "1"}) == 400
        async with session.get(url) as answer:
            assert answer.status == 405
        assert takes.bodies == [STANDARD_BODY] * 4

    beside(steps)


def test_a_large_body_is_not_read() -> None:
    """Whether its length is told or not, and whatever the application allows."""

    async def pieces() -> Any:
        for _ in range(3):
            yield b"x" * (LARGEST_BODY // 2)

    async def steps(url: str, session: aiohttp.ClientSession, takes: Takes) -> None:
        for data in (io.BytesIO(b"x" * (LARGEST_BODY + 1)), pieces()):
            async with session.post(url, data=data, headers=STANDARD) as answer:
                assert answer.status == 413
        assert takes.bodies == []
        async with session.post(url, data=b"x" * LARGEST_BODY, headers=STANDARD) as answer:
            assert answer.status == 401

    beside(steps)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody holds connections open with half a delivery."""
    monkeypatch.setattr("asyncpipe.webhooks.app.BODY_S", 0.05)

    async def steps(url: str, session: aiohttp.ClientSession, takes: Takes) -> None:
        host, port = url.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        assert b" 408 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert takes.bodies == []

    beside(steps)
