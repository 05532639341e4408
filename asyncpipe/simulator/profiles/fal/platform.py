"""fal's platform API: prices, the list of requests, the bill and the balance."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.catalog import RICH
from asyncpipe.simulator.faults import HISTORY_ERRORS_IN_A_ROW, RowPlan, dice, row_plan
from asyncpipe.simulator.profiles.fal.queue import last_try
from asyncpipe.simulator.profiles.fal.words import (
    detail,
    price_of,
    proxy,
    traced,
    unit_of,
    units_billed,
)
from asyncpipe.simulator.submit import read_body
from asyncpipe.simulator.wire import Service

MOST_IDS = 50

MOST_ROWS = 100

_DAY_S = 86_400.0

_REACH_S = 90 * _DAY_S

_DEFAULTS = {"num_inference_steps": 28, "guidance_scale": 3.5, "enable_safety_checker": True}
"""What fal may add to an input: fields that were not sent, with what they are then."""


class FalPlatform:
    """Answer questions about money and about what was bought; nothing is sold here."""

    def __init__(self, service: Service) -> None:
        self._service, self._books, self._settings = service, service.books, service.settings
        self._failed = 0

    # -- money ------------------------------------------------------------------------------------

    async def pricing(self, request: web.Request) -> web.Response:
        """What a unit of each model costs."""
        self._books.count("quotes")
        models = _each(request, "endpoint_id")
        if not 0 < len(models) <= MOST_IDS:
            return traced(detail(422, "endpoint_id: 1 to 50"))
        prices = []
        for model in models:
            micro, unit = unit_of(model)
            usd = float(Decimal(micro).scaleb(-6))
            prices.append(
                {"endpoint_id": model, "unit_price": usd, "unit": unit, "currency": "USD"}
            )
        return traced(web.json_response({"prices": prices, "next_cursor": None, "has_more": False}))

    async def estimate(self, request: web.Request) -> web.Response:
        """What calls have cost on average, or so many units cost."""
        body = await read_body(request)
        asked = body.get("endpoints") if isinstance(body, dict) else None
        if not isinstance(asked, dict) or not asked:
            return traced(detail(422, "endpoints: field required"))
        kind, micro = body.get("estimate_type"), Decimal(0)
        for model, many in asked.items():
            if kind == "unit_price":
                micro += unit_of(model)[0] * Decimal(str(many.get("unit_quantity", 0)))
            else:
                micro += price_of(model, {}) * int(many.get("call_quantity", 1))
        told = {"estimate_type": kind, "total_cost": float(micro.scaleb(-6)), "currency": "USD"}
        return traced(web.json_response(told))

    async def account(self, request: web.Request) -> web.Response:
        """What the account has left."""
        if (refused := _for_admins(request)) is not None:
            return refused
        first, account = self._settings.balance_usd, self._service.account(request)
        left = (RICH if first is None else first) - self._books.charged(account)
        told = {"username": "simulated", "credits": {"current_balance": float(left)}}
        return traced(web.json_response(told))

    async def billing(self, request: web.Request) -> web.Response:
        """What each request was charged, once it has ended; nothing of those that were not."""
        if (refused := _for_admins(request)) is not None:
            return refused
        names = _each(request, "request_id")
        if len(names) > MOST_IDS:
            return traced(detail(422, "request_id: 1 to 50"))
        account = self._service.account(request)
        found = [self._books.find(name) or self._books.find(last_try(name)) for name in names]
        events = [
            _event(name, each)
            for name, each in zip(names, found, strict=True)
            if each is not None
            and each.account == account
            and each.outcome in ("completed", "charged")
            and time.time() >= each.ready_at
        ]
        return traced(web.json_response({"billing_events": events, "next_cursor": None}))

    # -- the list ---------------------------------------------------------------------------------

    async def requests(self, request: web.Request) -> web.Response:
        """One page of the requests to some endpoints that have ended, the last to end first."""
        self._books.count("histories")
        if (fault := self._fault()) is not None:
            return fault
        models, now = _each(request, "endpoint_id"), time.time()
        since = _moment(request.query.get("start"), now - _DAY_S)
        start, limit = request.query.get("cursor", "0"), request.query.get("limit", "50")
        wrong = not 0 < len(models) <= MOST_IDS or since is None or since < now - _REACH_S
        if wrong or not (start.isdigit() and limit.isdigit() and 0 < int(limit) <= MOST_ROWS):
            return traced(detail(422, "endpoint_id, start, limit or cursor"))
        assert since is not None
        account = self._service.account(request)
        rows = [
            each
            for each in self._books.predictions()
            if each.model in models and each.account == account and self._is_listed(each, since)
        ]
        rows.sort(key=lambda each: each.ready_at, reverse=True)
        end = int(start) + int(limit)
        payloads = "payloads" in _each(request, "expand")
        items = [self._row(each, payloads=payloads) for each in rows[int(start) : end]]
        more = end < len(rows)
        told = {"items": items, "next_cursor": str(end) if more else None, "has_more": more}
        return traced(web.json_response(told))

    def _fault(self) -> web.Response | None:
        faults, seed = self._settings.faults, self._settings.seed
        draw = dice(seed, "history", self._books.counter("histories"))
        if draw.random() < faults.no_history:
            return traced(detail(404, "Not Found"))
        if draw.random() >= faults.history_error or self._failed >= HISTORY_ERRORS_IN_A_ROW:
            self._failed = 0
            return None
        self._failed += 1
        return proxy(draw)

    def _plan(self, found: BookedPrediction) -> RowPlan:
        return row_plan(self._settings.faults, self._settings.seed, found.id)

    def _is_listed(self, found: BookedPrediction, since: float) -> bool:
        """Only what has ended is, and some of it late."""
        late = self._settings.faults.history_lag and self._plan(found).late
        lag_s = self._settings.history_lag_s if late else 0.0
        return found.ready_at >= since and time.time() >= found.ready_at + lag_s

    def _row(self, found: BookedPrediction, *, payloads: bool) -> dict[str, Any]:
        row: dict[str, Any] = {
            "request_id": self._listed_as(found),
            "endpoint_id": found.model,
            "sent_at": _text(found.created_at),
            "started_at": _text(found.created_at),
            "ended_at": _text(found.ready_at),
            "status_code": {"completed": 200, "failed": 500}.get(found.outcome, 422),
            "duration": round(found.ready_at - found.created_at, 3),
        }
        if payloads:
            row |= {"json_input": dict(found.body), "json_output": {}}
        return self._spoiled(row, found)

    def _listed_as(self, found: BookedPrediction) -> str:
        """Its id, or that of its last try."""
        draw = dice(self._settings.seed, "retried", found.id)
        retried = draw.random() < self._settings.faults.retried
        return last_try(found.id) if retried else found.id

    def _spoiled(self, row: dict[str, Any], found: BookedPrediction) -> dict[str, Any]:
        plan = self._plan(found)
        if "json_input" not in row:
            return row
        if plan.defaults:
            row["json_input"] = {**_DEFAULTS, **row["json_input"]}
        if plan.foreign:
            row["json_input"] = {"prompt": "somebody else's"}
        if plan.taken and (before := self._books.before(found.number)):
            row["request_id"] = before.id
        if plan.missing is not None:
            del row["json_input"]
        return row


def _event(name: str, found: BookedPrediction) -> dict[str, Any]:
    usd = float(Decimal(found.price).scaleb(-6))
    return {
        "request_id": name,
        "endpoint_id": found.model,
        "timestamp": _text(found.ready_at),
        "output_units": float(units_billed(found.model, found.body)),
        "unit_price": float(Decimal(unit_of(found.model)[0]).scaleb(-6)),
        "percent_discount": 0,
        "cost_subtotal": usd,
        "cost_discount": 0,
        "cost_total": usd,
        "cost_estimate_nano_usd": found.price * 1000,
    }


def _for_admins(request: web.Request) -> web.Response | None:
    key = request.headers.get("Authorization", "").partition(" ")[2]
    return None if key.startswith("admin") else traced(detail(403, "Admin scope is required"))


def _each(request: web.Request, name: str) -> list[str]:
    """What a parameter lists: repeated, or with commas between."""
    return [each for text in request.query.getall(name, []) for each in text.split(",") if each]


def _moment(text: str | None, usual: float) -> float | None:
    if text is None:
        return usual
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
