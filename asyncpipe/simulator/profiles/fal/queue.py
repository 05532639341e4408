"""fal's queue: submits, statuses, results and cancellations."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.callbacks import CallbackDesk, may_be_called
from asyncpipe.simulator.faults import Plan, dice, odd_word, plan_of, poll_fault, quiet
from asyncpipe.simulator.media import transcribes
from asyncpipe.simulator.poll import COVER, EMPTY_POLLS, content_type, garbage
from asyncpipe.simulator.profiles.fal.words import (
    NO_MONEY,
    SERVER_ERRORS,
    app_of,
    detail,
    door,
    kind_of,
    price_of,
    proxy,
    traced,
    typed,
    unit_of,
)
from asyncpipe.simulator.sales import Sales
from asyncpipe.simulator.submit import lose, read_body
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service, drop, reset, root

ECHO = 5 * 1024 * 1024
"""Characters of its input that a refusal repeats now and then."""

_QUEUED = 0.3
"""So much of its time a request waits before it is worked on."""

_ASKING = ("prompt", "text", "image_url", "image_urls", "audio_url", "video_url")

_REFUSED = {
    "no_balance": lambda: detail(403, NO_MONEY),
    "firewall": lambda: detail(403, "Forbidden"),
    "rate_limited": lambda: detail(429, "slow down"),
    "refused": lambda: typed(422, "invalid", "the request cannot be taken"),
}


class FalQueue:
    """Sell requests, and tell what they came to: never that one failed."""

    def __init__(self, service: Service, uploads: UploadDesk, callbacks: CallbackDesk) -> None:
        self._service, self._books, self._settings = service, service.books, service.settings
        self._sales, self._uploads = Sales(service), uploads
        self._callbacks = callbacks

    # -- submits ----------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Sell a request, whatever it says: what is wrong with it its result tells."""
        model, body = request.match_info["model"], await read_body(request)
        url = request.query.get("fal_webhook")
        if (wrong := _unreadable(body, url)) is not None:
            return traced(detail(422, wrong))
        if (fault := self._sales.refused()) is not None:
            # The door's own refusal has no trace of the gateway: nothing was taken.
            refused = _REFUSED.get(fault)
            return traced(refused()) if refused else door(503)
        if self._too_dear(self._service.account(request), model, body):
            return traced(detail(403, NO_MONEY))
        faults, number = self._settings.faults, self._books.submits()
        if faults.late_sale > dice(self._settings.seed, "late", number).random():
            self._sell_late(request, model, body)
            return drop(request)
        sold = self._sell(request, model, body, called=url is not None)
        if url is not None:
            await self._callbacks.expect(request, sold, url)
        if (lost := self._sales.lost(sold)) is not None:
            return await self._lose(request, lost)
        return traced(web.json_response(self._answer(request, sold)))

    def _sell(
        self, request: web.Request, model: str, body: dict[str, Any], *, called: bool = False
    ) -> BookedPrediction:
        outcome = None
        if not any(body.get(name) for name in _ASKING) or self._uploads.unreachable(body):
            outcome = "refused"
        else:
            draw = dice(self._settings.seed, "late refusal", self._books.next_number())
            if draw.random() < self._settings.faults.late_refusal:
                outcome = draw.choice(("refused", "charged"))
        return self._sales.sell(
            kind=kind_of(model),
            model=model,
            body=body,
            account=self._service.account(request),
            price=price_of(model, body),
            outcome=outcome,
            called=called,
        )

    def _sell_late(self, request: web.Request, model: str, body: dict[str, Any]) -> None:
        def sell() -> None:
            if not self._service.leaving.is_set():
                self._sell(request, model, body)

        asyncio.get_running_loop().call_later(self._settings.history_lag_s, sell)

    def _too_dear(self, account: str, model: str, body: dict[str, Any]) -> bool:
        balance, price = self._settings.balance_usd, Decimal(price_of(model, body)).scaleb(-6)
        return balance is not None and self._books.charged(account) + price > balance

    async def _lose(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "nameless":
            return traced(web.json_response({"status": "IN_QUEUE"}))
        if fault == "server_error_submit":
            return traced(detail(504, "Request timed out", "request_timeout"))
        return await lose(self._service, request, fault)

    def _answer(self, request: web.Request, sold: BookedPrediction) -> dict[str, Any]:
        place = self._place(request, sold)
        return {
            "status": "IN_QUEUE",
            "request_id": sold.id,
            "gateway_request_id": sold.id,
            "response_url": place,
            "status_url": f"{place}/status",
            "cancel_url": f"{place}/cancel",
            "queue_position": 0,
        }

    def _place(self, request: web.Request, sold: BookedPrediction) -> str:
        return f"{root(request)}/{app_of(sold.model)}/requests/{sold.id}"

    # -- polls ------------------------------------------------------------------------------------

    def _named(self, request: web.Request) -> BookedPrediction | None:
        """The request that a path names: under either of its ids, and at its app alone."""
        name = request.match_info["id"]
        found = self._books.find(name) or self._books.find(last_try(name))
        if found is None or found.account != self._service.account(request):
            return None
        return found if request.match_info["app"] == app_of(found.model) else None

    async def status(self, request: web.Request) -> web.StreamResponse:
        """How a request stands: 202 while it runs, 200 when it has ended."""
        found = self._named(request)
        if found is not None:
            self._books.note_poll(found.id)
        if found is None or found.polls < found.hidden_polls:
            return traced(detail(404, "Request not found"))
        draw = dice(self._settings.seed, "poll", found.id, found.polls)
        if (faulty := await self._faulty(request, found, draw)) is not None:
            return faulty
        ended = self._sales.ended(found)
        told: dict[str, Any] = {"request_id": found.id, "response_url": self._place(request, found)}
        if ended:
            spent_s = round(found.ready_at - found.created_at, 3)
            told |= {"status": "COMPLETED", "metrics": {"inference_time": spent_s}}
        else:
            told |= self._running(found)
        return traced(web.json_response(told, status=200 if ended else 202))

    def _running(self, found: BookedPrediction) -> dict[str, Any]:
        """A request waits, then it is worked on; with the fault it goes back and forth."""
        back = self._plan(found).backwards and found.polls % 2
        if back or self._is_queued(found):
            return {"status": "IN_QUEUE", "queue_position": found.number % 3}
        return {"status": "IN_PROGRESS", "logs": []}

    def _is_queued(self, found: BookedPrediction) -> bool:
        part = (found.ready_at - found.created_at) * _QUEUED
        return time.time() < found.created_at + part

    async def result(self, request: web.Request) -> web.StreamResponse:
        """The output of the model, or its error."""
        found = self._named(request)
        if found is None:
            return traced(detail(404, "Request not found"))
        if not self._sales.ended(found):
            return traced(detail(400, "Request is still in progress"))
        draw = dice(self._settings.seed, "result", found.id, self._books.counter("results"))
        self._books.count("results")
        if (faulty := await self._faulty(request, found, draw, result=True)) is not None:
            return faulty
        if self._books.is_cancelled(found.id):
            return traced(detail(499, "Request was cancelled", "client_cancelled"))
        if found.outcome != "completed":
            return traced(self._error(found))
        return traced(self._output(request, found))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Drop a request that waits; one that is worked on goes on."""
        found = self._named(request)
        if found is None:
            return traced(web.json_response({"status": "NOT_FOUND"}, status=404))
        if self._sales.ended(found):
            return traced(web.json_response({"status": "ALREADY_COMPLETED"}, status=400))
        if self._is_queued(found):
            self._books.cancel(found.id)
        return traced(web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202))

    async def _faulty(
        self,
        request: web.Request,
        found: BookedPrediction,
        draw: random.Random,
        *,
        result: bool = False,
    ) -> web.StreamResponse | None:
        """What is wrong with this answer, or None; a result has no status that could be odd."""
        if quiet(self._settings.faults):
            return None
        past = self._books.poll_past(found.id)
        fault = poll_fault(self._settings.faults, past, draw)
        if fault is None:
            # What has ended is told by two answers: the row ends with the second.
            if result or not self._sales.ended(found):
                self._books.note_poll_past(found.id, replace(past, row=0))
            return None
        hung = past.hung + (fault == "hung_poll")
        past = replace(past, row=past.row + 1, total=past.total + 1, hung=hung)
        self._books.note_poll_past(found.id, past)
        return await self._struck(request, found, draw, fault, result=result)

    async def _struck(
        self,
        request: web.Request,
        found: BookedPrediction,
        draw: random.Random,
        fault: str,
        *,
        result: bool,
    ) -> web.StreamResponse:
        if fault == "garbage":
            return web.Response(body=garbage(found, draw), content_type="application/json")
        if fault == "poll_reset":
            return reset(request)
        if fault == "hung_poll":
            await self._service.hold(request, self._settings.held_s)
            return drop(request)
        if fault == "poll_error" or result:
            return proxy(draw)
        word = {"status": odd_word(draw)} if fault == "odd_status" else {}
        return traced(web.json_response({"request_id": found.id, **word}))

    def _plan(self, found: BookedPrediction) -> Plan:
        return plan_of(self._settings.faults, self._settings.seed, found.id)

    # -- results ----------------------------------------------------------------------------------

    def _error(self, found: BookedPrediction) -> web.Response:
        """The model's own error, which may repeat 5 MB of its input."""
        draw = dice(self._settings.seed, "error", found.id)
        if found.outcome == "failed":
            status, kind, own = draw.choice(SERVER_ERRORS)
            text = "the model broke off"
            return typed(status, kind, text) if own else detail(status, text, kind)
        echo = json.dumps(found.body, ensure_ascii=False)
        if draw.random() < 0.25:
            echo += "A" * ECHO
        if found.outcome == "moderated":
            text = "The content was flagged by a content checker"
            more = {"ctx": {"extra_info": {"categories": ["violence"]}}, "input": echo}
            return typed(422, "content_policy_violation", text, **more)
        return typed(422, "value_error", "the input cannot be processed", input=echo)

    def _output(self, request: web.Request, found: BookedPrediction) -> web.Response:
        plan, past = self._plan(found), self._books.poll_past(found.id)
        if plan.empty_first and past.empty < EMPTY_POLLS:
            self._books.note_poll_past(found.id, replace(past, empty=past.empty + 1))
            return web.json_response({"images": [], "seed": found.number})
        if not past.told:
            self._books.note_poll_past(found.id, replace(past, told=1))
        response = web.json_response(self._document(request, found, plan))
        units = Decimal(found.price) / unit_of(found.model)[0]
        response.headers["x-fal-billable-units"] = f"{units:.12f}".rstrip("0").rstrip(".")
        return response

    def _document(
        self, request: web.Request, found: BookedPrediction, plan: Plan
    ) -> dict[str, Any]:
        if transcribes(found.body):
            return {"text": f"heard: {found.body.get('audio_url', '')}"}
        urls = self._sales.urls(request, found)
        if plan.fewer and len(urls) > 1:
            del urls[-1]
        files = [{"url": url, "content_type": content_type(found)} for url in urls]
        document: dict[str, Any] = {"seed": found.number, "prompt": found.body.get("prompt")}
        if plan.shape is not None:
            document["result"] = {"files": files}
        elif found.type == "image":
            document["images"] = files
        else:
            document[found.type] = files[0] if len(files) == 1 else files
        flags = [plan.flagged and n == 0 for n in range(len(files))]
        document["has_nsfw_concepts"] = flags
        if plan.beside:
            cover = f"{root(request)}/media/{found.id}/{COVER}"
            document["mask_image"] = {"url": cover, "content_type": "image/png"}
        return document


def last_try(name: str) -> str:
    """The other id of a request: after a retry of fal's own its list shows it under that."""
    return name[::-1]


def _unreadable(body: Any, url: str | None) -> str | None:
    """What is wrong with a submit before anybody looks at what it says, or None."""
    if not isinstance(body, dict):
        return "the body is no JSON object"
    if url is not None and not may_be_called(url):
        return "fal_webhook: must be a public https URL"
    return None
