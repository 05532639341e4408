"""A sub-application for aiohttp that takes deliveries for a pipeline."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import web

from asyncpipe.webhooks.delivery import LARGEST_BODY, TOO_LARGE, RawHeaders
from asyncpipe.webhooks.verifier import Verifier

BODY_S = 10.0
"""A body has to be here within so many seconds."""


class TakesDeliveries(Protocol):
    """What a receiver needs of a pipeline."""

    async def deliver(
        self, headers: RawHeaders, body: bytes, *, verifier: Verifier | None = None
    ) -> int:
        """Take one request; return the HTTP status to answer."""


def receiver(pipeline: TakesDeliveries, *, verifier: Verifier | None = None) -> web.Application:
    """A sub-application, which is put in by ``app.add_subapp("/webhooks", …)``.

    It takes POSTs to ``/webhooks`` and ``/webhooks/`` and answers a status and nothing else: 200
    for what is right, also for what nobody waits for, 4xx for what is not, 503 for what is to be
    sent again. ``verifier`` is for senders that are not the pipeline's provider.
    """

    async def take(request: web.Request) -> web.Response:
        body = await _read(request)
        if body is None:
            return web.Response(status=TOO_LARGE)
        return web.Response(status=await pipeline.deliver(request.headers, body, verifier=verifier))

    app = web.Application()
    app.router.add_post("", take)
    app.router.add_post("/", take)
    return app


async def _read(request: web.Request) -> bytes | None:
    """The raw body; None where it is too large, whatever the application around allows."""
    if (request.content_length or 0) > LARGEST_BODY:
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > LARGEST_BODY:
                    return None
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return bytes(body)
