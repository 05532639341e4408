"""Submits: refuse, or sell and answer, or sell and lose the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator import wire
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import FAILED_IN_A_ROW, Plan, dice, plan_of, refusal
from asyncpipe.simulator.models import charge, outputs_asked, refused_live
from asyncpipe.simulator.poll import PollAnswer, Polls, nameless, submit_answer
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service

HIDDEN_POLLS = 2
"""Polls that ``not_found_first`` answers 404."""

HUGE_ANSWER = 128 * 1024 * 1024

_BLOCK = b"x" * (256 * 1024)

_GENERATION_S = {"image": (8.0, 20.0), "video": (30.0, 90.0), "audio": (8.0, 20.0)}

_ENDPOINTS = {"generateImage": "image", "generateVideo": "video", "generateAudio": "audio"}

_ASKING = ("prompt", "text", "audio", "audio_url", "image", "images", "video")


class Submits:
    """Answer submits."""

    def __init__(self, service: Service, polls: Polls, uploads: UploadDesk) -> None:
        self._service = service
        self._books = service.books
        self._settings = service.settings
        self._polls = polls
        self._uploads = uploads

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Answer one submit."""
        body = await read_body(request)
        if body is not None:
            self._books.count("submits")
        if not _asks_for_something(body):
            return wire.refusal(400, "Invalid request parameters: model and prompt are required")
        assert body is not None
        if self._settings.catalog == "live" and (wrong := refused_live(body)):
            return wire.refusal(*wrong)
        faults, seed, number = self._settings.faults, self._settings.seed, self._books.submits()
        if (refused := refusal(faults, seed, number)) is not None:
            return _refused(refused, dice(seed, "refusal", number))
        lost = self._uploads.unreachable(body) is not None
        if (unfit := self._unfit(request, body, number, lost=lost)) is not None:
            return unfit
        outcome = "unreachable" if lost else None
        if faults.late_sale > dice(seed, "late", number).random():
            self._sell_late(request, body, outcome)
            return wire.drop(request)
        return await self._sold(request, self._sell(request, body, outcome))

    async def _sold(self, request: web.Request, prediction: BookedPrediction) -> web.StreamResponse:
        plan = plan_of(self._settings.faults, self._settings.seed, prediction.id)
        if plan.lost is not None:
            return await self._lose(request, prediction, plan)
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
        too_dear = self._too_dear(account, body)
        return wire.refusal(402, "insufficient balance") if too_dear else None

    def _too_many(self, body: dict[str, Any]) -> bool:
        most = self._settings.in_flight
        if most is None or self._books.in_flight(str(body["model"]), time.time()) < most:
            return False
        self._books.count("beyond_in_flight")
        return True

    def _too_dear(self, account: str, body: Any) -> bool:
        balance = self._settings.balance_usd
        price = Decimal(self._charge(body)).scaleb(-6)
        return balance is not None and self._books.charged(account) + price > balance

    def _charge(self, body: dict[str, Any]) -> int:
        return charge(body, catalog=self._settings.catalog)

    def _sell_late(self, request: web.Request, body: dict[str, Any], outcome: str | None) -> None:
        def sell() -> None:
            if not self._service.leaving.is_set():
                self._sell(request, body, outcome)

        asyncio.get_running_loop().call_later(self._settings.history_lag_s, sell)

    def _sell(
        self, request: web.Request, body: dict[str, Any], outcome: str | None
    ) -> BookedPrediction:
        kind = _ENDPOINTS[request.match_info["endpoint"]]
        low, high = self._settings.generation_s or _GENERATION_S[kind]
        now, number = time.time(), self._books.next_number()
        faults, seed = self._settings.faults, self._settings.seed
        draw = random.Random(f"{seed}-{number}")
        wait_s = draw.uniform(low, high) / self._settings.speed
        hidden = draw.random() < faults.not_found_first
        prediction_id = f"{draw.getrandbits(128):032x}"
        plan = plan_of(faults, seed, prediction_id)
        instant, price = plan.instant, self._charge(body)
        prediction = BookedPrediction(
            number=number,
            id=prediction_id,
            type=kind,
            model=str(body["model"]),
            body=body,
            created_at=now,
            ready_at=now if instant else now + wait_s,
            outcome=outcome or self._outcome(draw.random(), body),
            price=price + price // 2 if plan.overrun else price,
            outputs=outputs_asked(body),
            hidden_polls=HIDDEN_POLLS if hidden and not instant else 0,
            account=self._service.account(request),
        )
        self._books.sell(prediction)
        return prediction

    def _outcome(self, draw: float, body: dict[str, Any]) -> str:
        faults = self._settings.faults
        if faults.failed <= draw < faults.failed + faults.moderated:
            return "moderated"
        if not 0 < faults.failed < 1:
            return "failed" if draw < faults.failed else "completed"
        same = json.dumps(body, sort_keys=True).encode()
        row = f"failed {hashlib.sha256(same).hexdigest()[:16]}"
        if draw < faults.failed and self._books.counter(row) < FAILED_IN_A_ROW:
            self._books.count(row)
            return "failed"
        self._books.reset(row)
        return "completed"

    async def _answer(
        self, request: web.Request, prediction: BookedPrediction, plan: Plan
    ) -> dict[str, Any]:
        told = await self._polls.tell(request, prediction) if plan.instant else PollAnswer()
        if told.outputs:
            past = self._books.poll_past(prediction.id)
            self._books.note_poll_past(prediction.id, replace(past, told=1))
        url = f"{wire.root(request)}/api/v1/model/prediction/{prediction.id}"
        return submit_answer(prediction, told, plan, wire=self._settings.wire, poll_url=url)

    async def _lose(
        self, request: web.Request, prediction: BookedPrediction, plan: Plan
    ) -> web.StreamResponse:
        if plan.lost == "nameless":
            return web.json_response(nameless(plan))
        if plan.lost == "server_error_submit":
            status = dice(self._settings.seed, "lost", prediction.id).choice((500, 502))
            return wire.page(status, f"{status} the server broke off")
        if plan.lost == "huge_answer":
            return await _huge(request)
        if plan.lost == "hung_submit":
            await self._service.hold(request, None)
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
