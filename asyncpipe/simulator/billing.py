"""The bill: what the books say was charged, by day, in the public API's words."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.wire import Service

MOST_DAYS = 180

MOST_ROWS = 1000

MOST_IDS = 100

KEY_ID = "key-simulated"
"""The one API key this account has."""

_GROUPS = ("model_type", "model", "api_key")

_FILTERS = ("model_types[]", "model_ids[]", "api_key_ids[]")


class Refused(Exception):
    """A query the API does not take; ``param`` is the parameter that is wrong."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A checked query: days from ``first`` to before ``end``, ``limit`` of them from ``page``."""

    first: date
    end: date
    groups: tuple[str, ...]
    models: frozenset[str]
    types: frozenset[str]
    keys: frozenset[str]
    limit: int
    page: date


class Billing:
    """Answer questions about what was charged."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def model_costs(self, request: web.Request) -> web.Response:
        """Daily costs, each day a bucket, empty ones too; ``limit`` buckets to a page."""
        trace = uuid.uuid4().hex
        try:
            asked = read_query(request)
        except Refused as exc:
            error = {
                "type": "invalid_request_error",
                "code": "invalid_parameter",
                "message": str(exc),
                "param": exc.param,
            }
            return web.json_response({"error": error, "request_id": trace}, status=400)
        last = min(asked.page + timedelta(days=asked.limit), asked.end)
        buckets = self._buckets(self._service.account(request), asked, last)
        more = last < asked.end
        return web.json_response(
            {
                "object": "page",
                "data": buckets,
                "has_more": more,
                "next_page": last.isoformat() if more else None,
                "request_id": trace,
            }
        )

    def _buckets(self, account: str, asked: Asked, last: date) -> list[dict[str, Any]]:
        sums: defaultdict[str, defaultdict[tuple[tuple[str, str], ...], int]] = defaultdict(
            lambda: defaultdict(int)
        )
        since, until = _start(asked.page).timestamp(), _start(last).timestamp()
        books = self._service.books
        for day, model, kind, amount in books.bookings(account, since, until):
            names = {"model_type": kind, "model": model, "api_key": KEY_ID}
            if _wanted(asked, names):
                sums[day][tuple((group, names[group]) for group in asked.groups)] += amount
        days = [asked.page + timedelta(days=n) for n in range((last - asked.page).days)]
        return [_bucket(day, sums[day.isoformat()]) for day in days]


def _wanted(asked: Asked, names: dict[str, str]) -> bool:
    filters = ((asked.models, "model"), (asked.types, "model_type"), (asked.keys, "api_key"))
    return all(not wanted or names[name] in wanted for wanted, name in filters)


def _bucket(day: date, sums: dict[tuple[tuple[str, str], ...], int]) -> dict[str, Any]:
    start, end = _start(day), _start(day + timedelta(days=1))
    now = datetime.fromtimestamp(time.time(), UTC)
    return {
        "object": "bucket",
        "date": day.isoformat(),
        "start_at": _text(start),
        "end_at": _text(end),
        "covered_until": _text(max(start, min(now, end))),
        "partial": end > now,
        "results": [
            {"object": "model_cost", **dict(group), "amount": _money(amount)}
            for group, amount in sorted(sums.items())
        ],
    }


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _money(micro: int) -> dict[str, str]:
    return {"value": f"{Decimal(micro).scaleb(-6):.6f}", "currency": "usd"}


def read_query(request: web.Request) -> Asked:
    """Check a query as the API documents it; raises Refused."""
    query = request.query
    first, end = _date(request, "start_date"), _date(request, "end_date")
    if not first < end:
        raise Refused("end_date must be after start_date", "end_date")
    if end - first > timedelta(days=MOST_DAYS):
        raise Refused(f"at most {MOST_DAYS} days can be asked for", "end_date")
    if query.get("scope", "self") not in ("self", "account"):
        raise Refused("scope is self or account", "scope")
    groups = tuple(query.getall("group_by[]", []))
    if unknown := sorted(set(groups) - set(_GROUPS)):
        raise Refused(f"nothing can be grouped by {unknown[0]}", "group_by[]")
    types, models, keys = (frozenset(query.getall(name, [])) for name in _FILTERS)
    for name, wanted in zip(_FILTERS, (types, models, keys), strict=True):
        if len(wanted) > MOST_IDS:
            raise Refused(f"at most {MOST_IDS} can be asked for", name)
    page = _date(request, "page") if "page" in query else first
    if not first <= page < end:
        raise Refused("there is no such page", "page")
    return Asked(
        first=first,
        end=end,
        groups=groups,
        models=models,
        types=types,
        keys=keys,
        limit=_limit(query.get("limit", "100")),
        page=page,
    )


def _date(request: web.Request, name: str) -> date:
    try:
        return date.fromisoformat(request.query[name])
    except (KeyError, ValueError):
        raise Refused(f"{name} must be a date like 2026-01-31", name) from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_ROWS):
        raise Refused(f"limit is a number from 1 to {MOST_ROWS}", "limit")
    return int(text)
