"""What goes over the wire besides answers: refusals, pages, connections that are held or end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import ACCOUNT, Books
from asyncpipe.simulator.media import MediaMaker
from asyncpipe.simulator.settings import SimulatorSettings

_LOOK_S = 0.05

# Where timers alone move the clock, sums of floats may come to stand just before an end, for ever.
_JUST_SHORT_S = 1e-9

_REASONS = {
    429: "rate limit exceeded",
    500: "internal server error",
    502: "bad gateway",
    503: "the service is overloaded",
    504: "gateway timeout",
}


class Service:
    """What the parts of one running simulator share.

    ``media_port`` is the second site's, None without one; ``leaving`` is set when it closes.
    """

    def __init__(self, settings: SimulatorSettings, books: Books, maker: MediaMaker) -> None:
        self.settings = settings
        self.books = books
        self.maker = maker
        self.media_port: int | None = None
        self.leaving = asyncio.Event()
        self.at_end: list[Callable[[], Awaitable[None]]] = []
        self._times: deque[float] = deque()

    async def close(self) -> None:
        """End what parts have begun."""
        for end in self.at_end:
            await end()

    def over_rate(self) -> bool:
        """Count a submit or a poll; whether there are too many in this second."""
        most, now = self.settings.requests_per_second, asyncio.get_running_loop().time()
        if most is None:
            return False
        while self._times and self._times[0] <= now - 1:
            self._times.popleft()
        self._times.append(now)
        if len(self._times) <= most:
            return False
        self.books.count("beyond_rate")
        return True

    def account(self, request: web.Request) -> str:
        """The account of the key that a request came with."""
        key = request.headers.get("Authorization", "").partition(" ")[2]
        return self.settings.accounts.get(key, ACCOUNT)

    def has_key(self, request: web.Request, scheme: str) -> bool:
        """Whether a request came with a key that is accepted, behind ``scheme``."""
        told, _, key = request.headers.get("Authorization", "").partition(" ")
        expected = self.settings.api_key
        return told == scheme and bool(key) and (expected is None or key == expected)

    async def hold(self, request: web.Request, seconds: float | None) -> None:
        """Wait ``seconds`` (None: without end), until the client goes or the simulator closes."""
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        while not gone(request) and not self.leaving.is_set():
            left = _LOOK_S if end is None else min(end - loop.time(), _LOOK_S)
            if left <= _JUST_SHORT_S:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), left)


def root(request: web.Request) -> str:
    """Where the client reached us: ``http://host:port``."""
    return f"{request.scheme}://{request.host}"


def gone(request: web.Request) -> bool:
    """Whether the client's connection is over."""
    return request.transport is None or request.transport.is_closing()


def refusal(status: int, text: str, *, http: int | None = None) -> web.Response:
    """The API's envelope for an error; ``http`` where the status line says something else."""
    body = {"code": status, "msg": text, "request_id": uuid.uuid4().hex, "data": None}
    return web.json_response(body, status=http or status)


def page(status: int, text: str) -> web.Response:
    """A proxy's page."""
    html = f"<!DOCTYPE html><html><head><title>{text}</title></head><body>{text}</body></html>"
    return web.Response(status=status, text=html, content_type="text/html")


def firewall() -> web.Response:
    """Cloudflare's refusal."""
    return web.Response(status=403, text="error code: 1010", content_type="text/html")


def rate_limited(draw: random.Random) -> web.Response:
    """429 without Retry-After, with 1 or 2 seconds, or with a date that near."""
    response, wish_s = refusal(429, _REASONS[429]), draw.choice((1, 2))
    kind = draw.choice(("none", "seconds", "date"))
    if kind == "seconds":
        response.headers["Retry-After"] = str(wish_s)
    elif kind == "date":
        at = datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=wish_s)
        response.headers["Retry-After"] = format_datetime(at, usegmt=True)
    return response


def too_many() -> web.Response:
    """429 without a hint."""
    return refusal(429, _REASONS[429])


def overloaded() -> web.Response:
    """503 in the API's own envelope: nothing was taken."""
    return refusal(503, _REASONS[503])


def broken_gateway(draw: random.Random, statuses: tuple[int, ...]) -> web.Response:
    """One of ``statuses``, in the API's envelope or as a page."""
    status = draw.choice(statuses)
    if draw.random() < 0.5:
        return page(status, f"{status} {_REASONS[status]}")
    return rate_limited(draw) if status == 429 else refusal(status, _REASONS[status])


def drop(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """End the connection; the answer returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()


def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection, where the system lets us; else end it."""
    sock: Any = request.transport and request.transport.get_extra_info("socket")
    # uvloop's sockets refuse options with TypeError; then the connection ends without a reset.
    with suppress(OSError, TypeError, AttributeError):
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return drop(request)
