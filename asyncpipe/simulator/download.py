"""Downloads: media, whole or from an offset, and what may be wrong with them."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import MediaPlan, dice, media_plan
from asyncpipe.simulator.poll import content_type
from asyncpipe.simulator.wire import Service, drop, gone, page

TRICKLE = 8
"""Bytes a second of a slow download."""

_STEP_S = 0.25

_BLOCK = 64 * 1024

_OTHER_NAME = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What is answered to a download when nothing is wrong."""

    status: int
    headers: dict[str, str]
    body: bytes


class Downloads:
    """Answer downloads."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._books = service.books
        self._settings = service.settings

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Answer one download."""
        if "Authorization" in request.headers or "Cookie" in request.headers:
            self._books.count("media_credentials")
        prediction = self._books.find(request.match_info["id"])
        index = int(request.match_info["index"])
        if prediction is None or index >= prediction.outputs or time.time() < prediction.ready_at:
            return web.Response(status=404)
        plan = media_plan(self._settings.faults, self._settings.seed, prediction.id, index)
        if plan.lost:
            return web.Response(status=404)
        if plan.redirected and not self._elsewhere(request):
            return self._redirect(request)
        if plan.expired is not None and request.query.get("Signature") != plan.fresh:
            self._books.note_fetch(prediction.id, index, old=True)
            return web.Response(status=plan.expired)
        return await self._serve(request, prediction, index, plan)

    async def cover(self, request: web.Request) -> web.StreamResponse:
        """Answer the download of a prediction's cover, which nothing is ever wrong with."""
        prediction = self._books.find(request.match_info["id"])
        if prediction is None or time.time() < prediction.ready_at:
            return web.Response(status=404)
        maker, loop = self._service.maker, asyncio.get_running_loop()
        body = await loop.run_in_executor(maker.thread, maker.make_cover, prediction)
        return web.Response(body=body, content_type="image/png")

    async def _serve(
        self, request: web.Request, prediction: BookedPrediction, index: int, plan: MediaPlan
    ) -> web.StreamResponse:
        self._books.note_download(prediction.id)
        fault = None
        if plan.broken:
            _, before = self._books.fetches(prediction.id, index)
            self._books.note_fetch(prediction.id, index)
            fault = next(iter(plan.broken[before:]), None)
        maker, loop = self._service.maker, asyncio.get_running_loop()
        body = await loop.run_in_executor(maker.thread, maker.make, prediction, index)
        part = _part(request, body, prediction, index, plan)
        if plan.endless:
            return await _endless(request, part)
        if fault is not None:
            draw = dice(self._settings.seed, "broken", prediction.id, index, before)
            return await self._broken(request, part, fault, draw)
        return web.Response(status=part.status, headers=part.headers, body=part.body)

    async def _broken(
        self, request: web.Request, part: _Part, fault: str, draw: random.Random
    ) -> web.StreamResponse:
        kind = part.headers["Content-Type"]
        if fault == "cut":
            return await _cut(request, part, chunked=draw.random() < 0.5)
        if fault == "slow":
            return await self._trickle(request, part)
        if fault == "html_media":
            return page(200, "Sign in to continue")
        if fault == "wrong_bytes":
            noise = b"\0\1\2\3" + draw.randbytes(4096)  # begins like nothing there is
            return web.Response(body=noise, content_type=kind)
        return web.Response(body=b"", content_type=kind)

    def _elsewhere(self, request: web.Request) -> bool:
        assert request.transport is not None
        port: int = request.transport.get_extra_info("sockname")[1]
        return port == self._service.media_port

    def _redirect(self, request: web.Request) -> web.Response:
        host = request.url.host or self._settings.host
        url = request.url.with_host(_OTHER_NAME.get(host, host)).with_port(self._service.media_port)
        return web.Response(status=302, headers={"Location": str(url)})

    async def _trickle(self, request: web.Request, part: _Part) -> web.StreamResponse:
        """Send a few bytes a second for a while, then break off."""
        response = await _begin(request, part)
        step, loop = max(1, int(TRICKLE * _STEP_S)), asyncio.get_running_loop()
        end, sent = loop.time() + self._settings.held_s, 0
        with suppress(ConnectionError):
            while sent < len(part.body) - step and loop.time() < end and not gone(request):
                await response.write(part.body[sent : sent + step])
                sent += step
                await self._service.hold(request, _STEP_S)
                if self._service.leaving.is_set():
                    break
        return drop(request, response)


def _part(
    request: web.Request, body: bytes, prediction: BookedPrediction, index: int, plan: MediaPlan
) -> _Part:
    """The whole body, or the rest a client asks for if it still is the same."""
    etag = f'"{prediction.id}-{index}"'
    headers = {"ETag": etag, "Content-Type": content_type(prediction)}
    if plan.untyped:
        headers["Content-Type"] = "application/octet-stream"
        headers["Content-Disposition"] = "attachment"
    if plan.no_range:
        return _Part(status=200, headers=headers, body=body)
    headers["Accept-Ranges"] = "bytes"
    start = request.http_range.start
    if not start or start < 0 or request.headers.get("If-Range", etag) != etag:
        return _Part(status=200, headers=headers, body=body)
    if start >= len(body):
        headers["Content-Range"] = f"bytes */{len(body)}"
        return _Part(status=416, headers=headers, body=b"")
    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return _Part(status=206, headers=headers, body=body[start:])


async def _begin(request: web.Request, part: _Part, *, chunked: bool = False) -> web.StreamResponse:
    response = web.StreamResponse(status=part.status, headers=part.headers)
    if chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(part.body)
    await response.prepare(request)
    return response


async def _cut(request: web.Request, part: _Part, *, chunked: bool) -> web.StreamResponse:
    """Send half a body and break off."""
    response = await _begin(request, part, chunked=chunked)
    with suppress(ConnectionError):
        await response.write(part.body[: len(part.body) // 2])
    return drop(request, response)


async def _endless(request: web.Request, part: _Part) -> web.StreamResponse:
    """Send the body and go on until the client goes."""
    response = await _begin(request, part, chunked=True)
    block = part.body
    with suppress(ConnectionError):
        while not gone(request):
            await response.write(block)
            await asyncio.sleep(0)  # a fast reader must not starve the others
            block = bytes(_BLOCK)
    return response
