"""Submits: refuse, or sell and answer, or sell and lose the answer."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from asyncpipe.simulator import wire
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.callbacks import CallbackDesk
from asyncpipe.simulator.faults import Plan, dice, plan_of, refusal
from asyncpipe.simulator.models import charge, refused_live
from asyncpipe.simulator.poll import PollAnswer, Polls, nameless, submit_answer
from asyncpipe.simulator.sales import Sales
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service

HUGE_ANSWER = 128 * 1024 * 1024

_BLOCK = b"x" * (256 * 1024)

_ENDPOINTS = {"generateImage": "image", "generateVideo": "video", "generateAudio": "audio"}

_ASKING = ("prompt", "text", "audio", "audio_url", "image", "images", "video")


class Submits:
    """Answer submits."""

    def __init__(
        self, service: Service, polls: Polls, uploads: UploadDesk, callbacks: CallbackDesk
    ) -> None:
        self._service = service
        self._books = service.books
        self._settings = service.settings
        self._polls = polls
        self._uploads = uploads
        self._callbacks = callbacks
        self._sales = Sales(service)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Answer one submit."""
        body = await read_body(request)
        if body is not None:
            self._books.count("submits")
        if not _asks_for_something(body):
            return wire.refusal(400, "Invalid request parameters: model and prompt are required")
        assert body is not None
        url, wrong = self._callbacks.take(body)
        if self._settings.catalog == "live" and wrong is None:
            wrong = refused_live(body)
        if wrong is not None:
            return wire.refusal(*wrong)
        faults, seed, number = self._settings.faults, self._settings.seed, self._books.submits()
        if (refused := refusal(faults, seed, number)) is not None:
            return _refused(refused, dice(seed, "refusal", number))
        lost = self._uploads.unreachable(body) is not None
        if (unfit := self._unfit(request, body, number, lost=lost)) is not None:
            return unfit
        outcome = "unreachable" if lost else None
        if self._sales.comes_late(partial(self._sell, request, body, outcome)):
            return wire.drop(request)
        prediction = self._sell(request, body, outcome, called=url is not None)
        if url is not None:
            await self._callbacks.expect(request, prediction, url)
        return await self._sold(request, prediction)

    async def _sold(self, request: web.Request, prediction: BookedPrediction) -> web.StreamResponse:
        plan = plan_of(self._settings.faults, self._settings.seed, prediction.id)
        if plan.lost is not None:
            if plan.lost == "nameless":
                return web.json_response(nameless(plan))
            return await lose(self._service, request, plan.lost)
        return web.json_response(await self._answer(request, prediction, plan))

    def _unfit(
        self, request: web.Request, body: dict[str, Any], number: int, *, lost: bool
    ) -> web.Response | None:
        """What is refused for its limits or for what it says; ``lost``: an input is gone."""
        if (beyond := self._beyond(self._service.account(request), body)) is not None:
            return beyond
        if (field := self._uploads.malformed(body)) is not None:
            return wire.refusal(400, f"Invalid request parameters: {field} must be a URL")
        # Some models look at their inputs at once, others when it is their turn.
        if lost and dice(self._settings.seed, "looks", number).random() < 0.5:
            return wire.refusal(400, "the input media cannot be fetched: 404 Not Found")
        return None

    def _beyond(self, account: str, body: dict[str, Any]) -> web.Response | None:
        """What is answered to a submit beyond the account's limits or its money."""
        if self._too_many(body):
            return wire.too_many()
        if self._sales.too_dear(account, charge(body, catalog=self._settings.catalog)):
            return wire.refusal(402, "insufficient balance")
        return None

    def _too_many(self, body: dict[str, Any]) -> bool:
        most = self._settings.in_flight
        if most is None or self._books.in_flight(str(body["model"]), time.time()) < most:
            return False
        self._books.count("beyond_in_flight")
        return True

    def _sell(
        self,
        request: web.Request,
        body: dict[str, Any],
        outcome: str | None,
        *,
        called: bool = False,
    ) -> BookedPrediction:
        return self._sales.sell(
            kind=_ENDPOINTS[request.match_info["endpoint"]],
            model=str(body["model"]),
            body=body,
            account=self._service.account(request),
            outcome=outcome,
            called=called,
        )

    async def _answer(
        self, request: web.Request, prediction: BookedPrediction, plan: Plan
    ) -> dict[str, Any]:
        told = await self._polls.tell(request, prediction) if plan.instant else PollAnswer()
        if told.outputs:
            past = self._books.poll_past(prediction.id)
            self._books.note_poll_past(prediction.id, replace(past, told=1))
        url = f"{wire.root(request)}/api/v1/model/prediction/{prediction.id}"
        return submit_answer(prediction, told, plan, wire=self._settings.wire, poll_url=url)


async def lose(service: Service, request: web.Request, fault: str) -> web.StreamResponse:
    """Lose the answer to a submit that was sold, in the way that the fault's name says."""
    if fault == "server_error_submit":
        status = dice(service.settings.seed, "lost", service.books.submits()).choice((500, 502))
        return wire.page(status, f"{status} the server broke off")
    if fault == "huge_answer":
        return await _huge(request)
    if fault == "hung_submit":
        await service.hold(request, None)
    return wire.drop(request)


async def read_body(request: web.Request) -> Any:
    """The request's JSON; None if it is not JSON."""
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def _asks_for_something(body: Any) -> bool:
    asks = isinstance(body, dict) and any(body.get(name) for name in _ASKING)
    return asks and bool(body.get("model"))


def _refused(fault: str, draw: random.Random) -> web.Response:
    if fault == "rate_limited":
        return wire.rate_limited(draw)
    if fault == "overloaded":
        return wire.overloaded()
    if fault == "firewall":
        return wire.firewall()
    if fault == "no_balance":
        return wire.refusal(402, "insufficient balance", http=draw.choice((200, 402)))
    return wire.refusal(400, "Invalid request parameters")


async def _huge(request: web.Request) -> web.StreamResponse:
    """An answer that begins well and never comes to its id."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    with suppress(ConnectionError):
        await response.write(b'{"code":200,"message":"')
        for _ in range(HUGE_ANSWER // len(_BLOCK)):
            await response.write(_BLOCK)
            await asyncio.sleep(0)  # a fast reader must not starve the others
    return wire.drop(request, response)
