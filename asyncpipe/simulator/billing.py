"""The bill: what the books say was charged and asked for, by day, in the public API's words."""

from __future__ import annotations

import base64
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
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
    """A checked query: days from ``first`` to before ``end``, ``limit`` rows of them.

    ``page`` is where to begin: how many days, and how many rows of the next, were told before.
    """

    first: date
    end: date
    scope: str
    groups: tuple[str, ...]
    models: frozenset[str]
    types: frozenset[str]
    keys: frozenset[str]
    limit: int
    page: tuple[int, int]


Group = tuple[tuple[str, str], ...]


class Billing:
    """Answer questions about what was charged, and how much was asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def model_costs(self, request: web.Request) -> web.Response:
        """Daily costs, each day a bucket, empty ones too; ``limit`` rows to a page."""
        books, account = self._service.books, self._service.account(request)
        return self._answer(request, "model_cost", lambda *span: books.bookings(account, *span))

    async def model_usage(self, request: web.Request) -> web.Response:
        """Daily requests, in the same buckets."""
        books, account = self._service.books, self._service.account(request)
        return self._answer(request, "usage", lambda *span: books.requests(account, *span))

    def _answer(
        self,
        request: web.Request,
        what: str,
        booked: Callable[[float, float], list[tuple[str, str, str, int]]],
    ) -> web.Response:
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
        buckets, following = _page(asked, what, _sums(asked, booked))
        return web.json_response(
            {
                "object": "list",
                "scope": asked.scope,
                "data": buckets,
                "has_more": following is not None,
                "next_page": following,
                "request_id": trace,
            }
        )


def _sums(
    asked: Asked, booked: Callable[[float, float], list[tuple[str, str, str, int]]]
) -> dict[str, dict[Group, int]]:
    """By day and group."""
    sums: defaultdict[str, defaultdict[Group, int]] = defaultdict(lambda: defaultdict(int))
    for day, model, kind, amount in booked(
        _start(asked.first).timestamp(), _start(asked.end).timestamp()
    ):
        names = {"model_type": kind, "model": model, "api_key": KEY_ID}
        if _wanted(asked, names):
            sums[day][tuple((group, names[group]) for group in asked.groups)] += amount
    return {day: dict(groups) for day, groups in sums.items()}


def _page(
    asked: Asked, what: str, sums: dict[str, dict[Group, int]]
) -> tuple[list[dict[str, Any]], str | None]:
    """The buckets of one page, and where the next begins; a day without rows counts as one."""
    start, skip = asked.page
    left, buckets = asked.limit, list[dict[str, Any]]()
    for n in range(start, (asked.end - asked.first).days):
        if left <= 0:
            return buckets, _cursor(n, 0)
        day = asked.first + timedelta(days=n)
        rows = sorted(sums.get(day.isoformat(), {}).items())[skip:]
        buckets.append(_bucket(day, what, rows[:left]))
        if len(rows) > left:
            return buckets, _cursor(n, skip + left)
        left, skip = left - max(len(rows), 1), 0
    return buckets, None


def _cursor(days: int, rows: int) -> str:
    return base64.urlsafe_b64encode(f"{days}~{rows}".encode()).decode()


def _wanted(asked: Asked, names: dict[str, str]) -> bool:
    filters = ((asked.models, "model"), (asked.types, "model_type"), (asked.keys, "api_key"))
    return all(not wanted or names[name] in wanted for wanted, name in filters)


def _bucket(day: date, what: str, rows: list[tuple[Group, int]]) -> dict[str, Any]:
    start, end = _start(day), _start(day + timedelta(days=1))
    now = datetime.fromtimestamp(time.time(), UTC)
    return {
        "object": f"{what}.bucket",
        "date": day.isoformat(),
        "start_at": _text(start),
        "end_at": _text(end),
        "covered_until": _text(max(start, min(now, end))),
        "partial": end > now,
        "results": [
            {"object": f"{what}.result", **dict(group), **_told(what, amount)}
            for group, amount in rows
        ],
    }


def _told(what: str, amount: int) -> dict[str, Any]:
    return {"requests": amount} if what == "usage" else {"amount": _money(amount)}


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
    return Asked(
        first=first,
        end=end,
        scope=query.get("scope", "self"),
        groups=groups,
        models=models,
        types=types,
        keys=keys,
        limit=_limit(query.get("limit", "100")),
        page=_where(query["page"], (end - first).days) if "page" in query else (0, 0),
    )


def _where(cursor: str, days: int) -> tuple[int, int]:
    try:
        told = base64.urlsafe_b64decode(cursor.encode()).decode()
        day, row = map(int, told.split("~"))
    except ValueError:
        day = row = -1
    if not (0 <= day < days and row >= 0):
        raise Refused("there is no such page", "page")
    return day, row


def _date(request: web.Request, name: str) -> date:
    try:
        return date.fromisoformat(request.query[name])
    except (KeyError, ValueError):
        raise Refused(f"{name} must be a date like 2026-01-31", name) from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_ROWS):
        raise Refused(f"limit is a number from 1 to {MOST_ROWS}", "limit")
    return int(text)
