"""A made-up API with real idempotency keys, after Higgsfield's: a key buys once, however often.

The same key with the same endpoint and body is answered with the first request's id; with another
body it is refused. It has no list, and says of each request what it was charged.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.models import kind_of
from asyncpipe.simulator.sales import Sales
from asyncpipe.simulator.submit import lose, read_body
from asyncpipe.simulator.wire import Service

_REFUSED = {"rate_limited": 429, "overloaded": 503, "no_balance": 402, "firewall": 403}

_ENDS = {"completed": "completed", "failed": "failed", "moderated": "nsfw"}


def profile(service: Service) -> Keyed:
    """Make it."""
    return Keyed(service)


class Keyed:
    """``POST /{model}`` with ``Idempotency-Key``, ``GET /requests/{id}/status``, ``…/cancel``."""

    base_path = ""

    def __init__(self, service: Service) -> None:
        self._service, self._books, self._sales = service, service.books, Sales(service)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add its paths."""
        router.add_get("/requests/{id}/status", self._status)
        router.add_post("/requests/{id}/cancel", self._cancel)
        router.add_get("/charges", self._charges)
        router.add_post("/{model:.+/.+}", self._submit)

    def refusal(self, request: web.Request) -> web.StreamResponse | None:
        """The key comes as ``Key …``."""
        open_to_all = request.path.startswith(("/media/", "/books"))
        if open_to_all or self._service.has_key(request, "Key"):
            limited = request.method == "POST" and self._service.over_rate()
            return _detail(429, "slow down") if limited else None
        return _detail(401, "Invalid credentials")

    def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """An honest 404."""
        return _detail(404, "Not Found")

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        model, body = request.match_info["model"], await read_body(request)
        key = request.headers.get("Idempotency-Key", "")
        if (refusal := self._refused(body, key)) is not None:
            return refusal
        same = json.dumps([model, body], sort_keys=True)
        account = self._service.account(request)
        before = self._books.bought_with(account, key)
        if before is not None:
            if before[0] != same:
                return _detail(422, "Idempotency-Key was used with another request")
            self._books.count("replayed")
            return web.json_response(_answer(before[1]))
        prediction = self._sales.sell(kind=kind_of(model), model=model, body=body, account=account)
        self._books.note_key(account, key, same, prediction.id)
        if (lost := self._sales.lost(prediction)) is not None:
            return await lose(self._service, request, lost)
        return web.json_response(_answer(prediction.id))

    def _refused(self, body: Any, key: str) -> web.Response | None:
        if (fault := self._sales.refused()) is not None:
            return _detail(_REFUSED.get(fault, 422), fault)
        if not isinstance(body, dict) or not body.get("prompt"):
            return _detail(422, "prompt: field required")
        if not 0 < len(key) <= 255:
            return _detail(400, "Idempotency-Key: 1 to 255 characters")
        return None

    async def _status(self, request: web.Request) -> web.StreamResponse:
        prediction = self._sales.find(request, request.match_info["id"])
        if prediction is None:
            return _detail(404, "Request not found")
        if self._books.is_cancelled(prediction.id):
            return web.json_response(_answer(prediction.id, "canceled"))
        if not self._sales.ended(prediction):
            return web.json_response(_answer(prediction.id, "in_progress"))
        answer = _answer(prediction.id, _ENDS[prediction.outcome])
        if prediction.outcome == "completed":
            answer["outputs"] = [{"url": url} for url in self._sales.urls(request, prediction)]
        return web.json_response(answer)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        prediction = self._sales.find(request, request.match_info["id"])
        if prediction is None:
            return _detail(404, "Request not found")
        if not self._books.is_cancelled(prediction.id):
            if self._sales.ended(prediction):
                return _detail(400, "Request has started")
            self._books.cancel(prediction.id)
        return web.Response(status=202)

    async def _charges(self, request: web.Request) -> web.StreamResponse:
        """USD by request; nothing of those that have not ended."""
        told: dict[str, str] = {}
        for name in request.query.get("ids", "").split(","):
            prediction = self._books.find(name)
            if prediction is not None and self._sales.ended(prediction):
                told[name] = _usd(prediction)
        return web.json_response({"charges": told})


def _usd(prediction: BookedPrediction) -> str:
    micro = prediction.price if prediction.outcome == "completed" else 0
    return f"{micro / 1_000_000:.6f}"


def _answer(name: str, status: str = "queued") -> dict[str, Any]:
    return {"request_id": name, "status": status}


def _detail(status: int, text: str) -> web.Response:
    return web.json_response({"detail": text}, status=status)
