"""The catalogue, quotes and the balance: what the API says of models and money."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.models import LIVE, MODELS, charge, refused_live
from asyncpipe.simulator.submit import read_body
from asyncpipe.simulator.wire import Service, refusal, root

RICH = Decimal(1_000_000)
"""USD an account has at first when the settings name no balance."""


class Catalog:
    """Answer questions about models and money; nothing is sold here."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, request: web.Request) -> web.Response:
        """The models there are; ``code`` is text here, as it is at Atlas Cloud."""
        if self._live:
            place = f"{root(request)}/schemas/"
            rows = [
                {
                    **_row(model, live.kind, live.base, live.unit, live.least_s),
                    **live.listed,
                    "displayName": live.name,
                    "schema": f"{place}{model}.json",
                }
                for model, live in LIVE.items()
            ]
        else:
            rows = [_row(model, kind, base) for model, (kind, base) in MODELS.items()]
        return web.json_response({"code": "200", "data": rows})

    async def schema(self, request: web.Request) -> web.Response:
        """The OpenAPI document of one of today's models."""
        live = LIVE.get(request.match_info["model"]) if self._live else None
        return web.json_response(live.document()) if live else refusal(404, "not found")

    @property
    def _live(self) -> bool:
        return self._service.settings.catalog == "live"

    async def calculate(self, request: web.Request) -> web.Response:
        """What a submit of the same body would be charged."""
        body = await read_body(request)
        self._service.books.count("quotes")
        if not isinstance(body, dict) or not body.get("model"):
            return refusal(400, "Invalid request parameters: model is required")
        if self._live and (wrong := refused_live(body)):
            return refusal(*wrong)
        micro = charge(body, catalog=self._service.settings.catalog)
        live = LIVE.get(str(body["model"])) if self._live else None
        more = live.quote(body) if live else {"discount": "100", "estimated": False}
        listed = Decimal(micro).scaleb(-6) * 100 / (live.discount if live else 100)
        price = {"price": float(Decimal(micro).scaleb(-6)), "origin_price": float(listed)}
        return web.json_response({"code": 200, "data": {**price, **more, "currency": "usd"}})

    async def balance(self, request: web.Request) -> web.Response:
        """What the account has left, in the public API's words."""
        first = self._service.settings.balance_usd
        account = self._service.account(request)
        left = (RICH if first is None else first) - self._service.books.charged(account)
        nothing = _money(Decimal(0))
        return web.json_response(
            {
                "object": "balance",
                "scope": "account",
                "account": {"id": account, "name": "simulated", "type": "personal"},
                "available": _money(left),
                "cash": _money(left),
                "bonus": nothing,
                "subscription_bonus": nothing,
                "frozen": nothing,
                "credit_grant": {
                    "status": "none",
                    **dict.fromkeys(
                        ("granted", "used", "remaining_overdraft", "overdrawn"), nothing
                    ),
                },
                "request_id": uuid.uuid4().hex,
            }
        )


def public_refusal(status: int, text: str) -> web.Response:
    """The public API's envelope for an error."""
    error = {"type": "authentication_error", "code": "unauthorized", "message": text, "param": None}
    return web.json_response({"error": error, "request_id": uuid.uuid4().hex}, status=status)


def _money(usd: Decimal) -> dict[str, str]:
    return {"value": f"{usd:.6f}", "currency": "usd"}


def _row(
    model: str, kind: str, base: int, unit: str | None = None, least_s: int | None = None
) -> dict[str, Any]:
    maker, _, name = model.partition("/")
    price = str(Decimal(base).scaleb(-6).normalize())
    actual = {"base_price": price, "input_price": "", "output_price": "", "request_price": ""}
    if unit:
        actual["unit"] = unit
    return {
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, model)),
        "model": model,
        "type": kind.title(),
        "displayName": name,
        "tags": [],
        "categories": [f"TEXT-TO-{kind.upper()}"],
        "organization": maker,
        "familyName": name.split("/")[0],
        "avgLatency": "",
        "display_console": True,
        "schema": "",
        "readme": "",
        "example": "",
        "price": {"discount": "100", "actual": actual, "origin": {"base_price": price}},
        **({"minDuration": least_s} if least_s else {}),
    }
