"""Atlas Cloud's list of an account's predictions: read exactly, page after page.

A lost submit is settled by it, so what cannot be read is said and never left out silently: a list
with a hole proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from asyncpipe.errors import HistoryUnavailable, PollFailed
from asyncpipe.http import retry_after_s
from asyncpipe.providers.atlas import fields
from asyncpipe.providers.atlas.answer import open_answer
from asyncpipe.providers.base import Listed
from asyncpipe.providers.listing import MOST_PAGES, NO_LIST, ORDER_SLACK, Lister, nonsense, surely
from asyncpipe.providers.texts import clean

PAGE = 50
"""Predictions to a page: the most there may be."""

_IDS = ("ID", "id", "sessionID", "session_id", "predictionId", "prediction_id")

_BODIES = ("requestBody", "request_body")

_TIMES = ("createdAt", "created_at")

_MILLISECONDS = 10**11
"""From here on a Unix time counts milliseconds: in seconds it would be the year 5138."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryPage:
    """One answer: its predictions, how many rows it had, and how many there are (None: untold)."""

    listed: tuple[Listed, ...]
    rows: int
    total: int | None

    @property
    def holes(self) -> int:
        """Rows that name no prediction or no time."""
        return self.rows - len(self.listed)


async def pages(api: Lister, since: datetime) -> AsyncIterator[Sequence[Listed]]:
    """Yield pages, newest first, until one is older than ``since``.

    Raises HistoryUnavailable where the API has no list for this key, and ProviderError where the
    list cannot be had, or turns out to have a hole when all of it was read.
    """
    seen: dict[str, Listed] = {}
    rows, holes, most, oldest = 0, 0, 0, datetime.max.replace(tzinfo=UTC)
    for number in range(1, MOST_PAGES + 1):
        page = await _ask(api, number)
        rows, holes = rows + page.rows, holes + page.holes
        if page.total is not None and page.total < most:
            raise nonsense(f"it shrank from {most} to {page.total} while it was read")
        most = max(most, page.total or 0)
        new = [each for each in page.listed if not _is_same(seen.get(each.id), each)]
        seen |= {each.id: each for each in new}
        for each in new:
            if each.created - oldest > ORDER_SLACK:
                raise nonsense("it is not newest first")
            oldest = min(oldest, each.created)
        if new:
            yield new
        if page.rows == 0 or oldest < since or rows >= most > 0:
            break
        if page.listed and not new:
            raise nonsense("its pages go in circles")
    else:
        raise nonsense(f"it has more than {MOST_PAGES} pages")
    if holes:
        raise nonsense(f"{holes} of its rows name no prediction or no time")
    if rows < most and oldest >= since:
        raise nonsense(f"it says there are {most} predictions and shows {rows}")


def _is_same(before: Listed | None, row: Listed) -> bool:
    """Whether a row came already; another one under its id has to be seen: one of both is wrong."""
    return before is not None and (before.created, before.body) == (row.created, row.body)


async def _ask(api: Lister, number: int) -> HistoryPage:
    query = urlencode({"no": number, "size": PAGE})

    async def once() -> HistoryPage:
        answer = await api.ask_history(query)
        return read_history(answer.status, answer.headers, answer.body)

    return await surely(once)


def read_history(status: int, headers: Mapping[str, str], body: bytes) -> HistoryPage:
    """Read one page.

    Raises HistoryUnavailable where the API answers that there is none for this key, PollFailed for
    everything else that is no page.
    """
    answer = open_answer(status, headers, body)
    if answer.code in NO_LIST:
        raise HistoryUnavailable(
            f"the API does not list this key's predictions (HTTP {answer.code})",
            status=answer.code,
            request_id=answer.request_id,
        )
    rows = next((found for layer in answer.layers if (found := _items(layer)) is not None), None)
    if answer.code != 200 or rows is None:
        said = f", {answer.said}" if answer.said else ""
        raise PollFailed(
            f"the list of predictions cannot be read (HTTP {answer.code}{said})",
            status=answer.code,
            request_id=answer.request_id,
            retry_after_s=retry_after_s(headers),
        )
    total = next((n for layer in answer.layers if (n := fields.number(layer.get("total")))), None)
    listed = tuple(one for row in rows if (one := _listed(row)) is not None)
    return HistoryPage(listed=listed, rows=len(rows), total=total)


def _items(layer: fields.Fields) -> list[Any] | None:
    """The rows of a layer; an empty list may be spelled null."""
    items = layer.get("items")
    if items is None and "items" in layer:
        return []
    return items if isinstance(items, list) else None


def _listed(row: Any) -> Listed | None:
    """One row; None where it names no prediction or no time."""
    if not isinstance(row, dict):
        return None
    told = row.get("result")
    result = told if isinstance(told, dict) else {}
    name = fields.identifier(row, _IDS) or fields.identifier(result, _IDS)
    times = (_time(part.get(each)) for part in (row, result) for each in _TIMES)
    created = next((at for at in times if at is not None), None)
    if not name or created is None:
        return None
    body = next((found for each in _BODIES if (found := _body(row.get(each))) is not None), None)
    model = row.get("model") or result.get("model") or (body or {}).get("model")
    word = row.get("status") or result.get("status")
    return Listed(
        id=name,
        created=created,
        model=clean(model) if isinstance(model, str) else "",
        body=body,
        status=clean(word, 40).lower() if isinstance(word, str) else "",
    )


def _time(value: Any) -> datetime | None:
    """A time, as Unix seconds or milliseconds, a number or text, or as ISO 8601 with its zone."""
    if isinstance(value, str) and not value.strip().replace(".", "", 1).isdigit():
        try:
            at = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        return at.astimezone(UTC) if at.tzinfo is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = Decimal(str(value).strip())
        seconds = seconds / 1000 if seconds >= _MILLISECONDS else seconds
        return datetime.fromtimestamp(float(seconds), UTC) if seconds > 0 else None
    except (InvalidOperation, ValueError, OverflowError, OSError):
        return None


def _body(value: Any) -> Mapping[str, Any] | None:
    """A request body, as text or as it is; None where it is no JSON object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
