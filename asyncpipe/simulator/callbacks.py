"""Callbacks: signed POSTs to whoever asked for them, and what may go wrong with those."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiohttp import web
from anyio.abc import TaskGroup

from asyncpipe.errors import UsageError
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import callback_fault
from asyncpipe.simulator.wire import Service

LONGEST_URL = 1024

LATE_S = 30.0
"""How much later ``callback_late`` sends one, divided by the speed."""

STALE_S = 600
"""How long ago one of ``callback_stale`` was signed."""

AGAIN_S, AGAIN_MOST_S, ATTEMPTS = 10.0, 1800.0, 10
"""One that is not taken is sent again after 10, 20, 40 … seconds, ten times in all."""

ANSWER_S = 15.0

_JUST_AFTER_S = 0.01

Write = Callable[
    [web.Request, BookedPrediction, int, bool], Awaitable[tuple[bytes, dict[str, str]]]
]
"""Body and headers for a prediction, signed at a time in Unix seconds; or by a key of nobody's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One delivery as it is sent: ``kind`` is what the books count it as."""

    kind: str
    url: str
    body: bytes
    headers: dict[str, str]


class CallbackDesk:
    """Sends what was asked for once a prediction has ended, from a task of its own.

    ``write`` is how a profile says and signs it, ``field`` where a submit's body has the URL. The
    books count what was sent, as ``callback_sent_200``.
    """

    def __init__(self, service: Service, write: Write, *, field: str = "") -> None:
        self._write, self._field = write, field
        self._settings, self._books = service.settings, service.books
        self._host: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._starting = asyncio.Lock()
        service.at_end.append(self._end)

    async def _end(self) -> None:
        if self._host is not None:
            self._host.cancel()
            with suppress(asyncio.CancelledError):
                await self._host

    def take(self, body: dict[str, Any]) -> tuple[str | None, tuple[int, str] | None]:
        """Take the URL out of a submit's body; with it, or with why it is refused, a status."""
        if self._field not in body:
            return None, None
        url = body.pop(self._field)
        if may_be_called(url):
            return url, None
        return None, (400, f"Invalid request parameters: {self._field} must be a public https URL")

    async def expect(self, request: web.Request, prediction: BookedPrediction, url: str) -> None:
        """Send the callback of a prediction when it has ended; now, if it is an early one."""
        async with self._starting:
            if self._tasks is None:
                await self._start()
        assert self._tasks is not None, "it was started just now"
        if self._draws(prediction.id, "early"):
            await self._call(request, prediction, url)
        else:
            self._tasks.start_soon(
                self._call, request, prediction, url, name="asyncpipe simulator callback"
            )

    async def _start(self) -> None:
        started: asyncio.Future[TaskGroup] = asyncio.get_running_loop().create_future()
        self._host = asyncio.create_task(_hold(started), name="asyncpipe simulator callbacks")
        self._tasks = await started

    def _draws(self, prediction_id: str, fault: str) -> bool:
        return callback_fault(self._settings.faults, self._settings.seed, prediction_id, fault)

    async def _call(self, request: web.Request, prediction: BookedPrediction, url: str) -> None:
        """Send everything that is to be sent of one prediction."""
        speed, draws = self._settings.speed, self._draws
        for kind in ("forged", "stale"):
            if draws(prediction.id, kind):
                await self._send(await self._message(kind, request, prediction, url))
        await asyncio.sleep(max(prediction.ready_at - time.time(), 0.0) + _JUST_AFTER_S)
        if draws(prediction.id, "lost"):
            return self._books.count("callback_lost")
        if draws(prediction.id, "late"):
            await asyncio.sleep(LATE_S / speed)
        sent = await self._surely("sent", request, prediction, url)
        if sent is not None and draws(prediction.id, "replayed"):
            await self._send(replace(sent, kind="replayed"))
        if draws(prediction.id, "twice"):
            await asyncio.sleep(max(1.0, AGAIN_S / speed))  # the next second, signed anew
            await self._surely("twice", request, prediction, url)

    async def _surely(
        self, kind: str, request: web.Request, prediction: BookedPrediction, url: str
    ) -> Message | None:
        """Send it until it is taken; return it as it was taken."""
        for attempt in range(ATTEMPTS):
            message = await self._message(kind, request, prediction, url)
            if await self._send(message) // 100 == 2:
                return message
            await asyncio.sleep(min(AGAIN_S * 2**attempt, AGAIN_MOST_S) / self._settings.speed)
        return None

    async def _message(
        self, kind: str, request: web.Request, prediction: BookedPrediction, url: str
    ) -> Message:
        at = int(time.time()) - (STALE_S if kind == "stale" else 0)
        body, headers = await self._write(request, prediction, at, kind == "forged")
        typed = {"Content-Type": "application/json", **headers}
        return Message(kind=kind, url=url, body=body, headers=typed)

    async def _send(self, message: Message) -> int:
        """Send it once; count and return the status that is answered, 0 without an answer."""
        status = 0
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    message.url, data=message.body, headers=message.headers, allow_redirects=False
                ) as answer,
            ):
                status = answer.status
        self._books.count(f"callback_{message.kind}_{status}")
        return status


async def _hold(started: asyncio.Future[TaskGroup]) -> None:
    async with anyio.create_task_group() as tasks:
        started.set_result(tasks)
        await anyio.sleep_forever()


def private_key(seed: object) -> Any:
    """The Ed25519 key that a seed stands for; raises UsageError without the package that signs."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as exc:
        raise UsageError(
            "callbacks of the simulator need one more package: pip install 'asyncpipe[webhooks]'"
        ) from exc
    digest = hashlib.sha256(f"callbacks {seed}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(digest)


def may_be_called(url: object) -> bool:
    """Whether a URL is one that callbacks may go to: public and https, or on this machine."""
    if not isinstance(url, str) or len(url) > LONGEST_URL:
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    local = host == "localhost"
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if not (address.is_loopback or address.is_global):
            return False
        local = address.is_loopback
    return parts.scheme == "https" or (parts.scheme == "http" and local)
