"""fal's list of an account's requests: read exactly, page after page.

A lost submit is looked for in it. It shows requests of some endpoints, perhaps only once they have
ended, and under the id of their last try: it never proves that nothing was bought.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlencode

from asyncpipe.errors import HistoryUnavailable, PollFailed
from asyncpipe.http import HttpAnswer, retry_after_s
from asyncpipe.providers.base import Listed
from asyncpipe.providers.fal.answer import open_answer
from asyncpipe.providers.fal.money import batches, cursor_in
from asyncpipe.providers.listing import MOST_PAGES, NO_LIST, nonsense, surely
from asyncpipe.providers.texts import clean, read_json, storable

PATH = "/models/requests/by-endpoint"

PAGE = 100
"""Requests to a page: the most there may be."""

REACH = timedelta(days=90)
"""So far back the list goes."""

_TIMES = ("sent_at", "started_at", "ended_at")


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestsPage:
    """One answer: its requests, and where the next page is, or None."""

    listed: tuple[Listed, ...]
    cursor: str | None


class AsksApi(Protocol):
    """What is asked: Fal, or a test's stand-in."""

    async def ask_api(self, path: str, *, what: str) -> HttpAnswer:
        """Ask the platform's API once; raises PollFailed without an answer."""


async def pages(
    api: AsksApi, since: datetime, models: Collection[str]
) -> AsyncIterator[Sequence[Listed]]:
    """Yield the requests of ``models`` since then, page after page.

    Raises HistoryUnavailable where fal has no list for this key, and ProviderError where the list
    cannot be had or is not whole.
    """
    for batch in batches(models):
        query: list[tuple[str, str]] = [("endpoint_id", model) for model in batch]
        query += [("start", _spelled(since)), ("expand", "payloads"), ("limit", str(PAGE))]
        cursor, seen = None, set[str]()
        for _ in range(MOST_PAGES):
            page = await _ask(api, [*query, *([("cursor", cursor)] if cursor else [])])
            yield page.listed
            cursor = page.cursor
            if cursor is None:
                break
            if cursor in seen:
                raise nonsense("its pages go in circles")
            seen.add(cursor)
        else:
            raise nonsense(f"it has more than {MOST_PAGES} pages")


def _spelled(since: datetime) -> str:
    earliest = datetime.now(UTC) - REACH + timedelta(hours=1)
    return max(since.astimezone(UTC), earliest).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _ask(api: AsksApi, query: Sequence[tuple[str, str]]) -> RequestsPage:
    async def once() -> RequestsPage:
        answer = await api.ask_api(f"{PATH}?{urlencode(query)}", what="the list of requests")
        return read_history(answer.status, answer.headers, answer.body)

    return await surely(once)


def read_history(status: int, headers: Mapping[str, str], body: bytes) -> RequestsPage:
    """Read one page.

    Raises HistoryUnavailable where fal answers that there is none for this key, PollFailed for
    everything else that is no page, ProviderError for a row without an id or a time.
    """
    if status in NO_LIST:
        said = open_answer(status, headers, body).said
        raise HistoryUnavailable(
            clean(f"fal does not list this key's requests (HTTP {status}{said and ': ' + said})"),
            status=status,
        )
    document = read_json(body) or {}
    rows = document.get("items")
    if not 200 <= status < 300 or not isinstance(rows, list):
        raise PollFailed(
            f"the list of requests cannot be read (HTTP {status})",
            status=status,
            retry_after_s=retry_after_s(headers),
        )
    listed = [_listed(row) for row in rows]
    if None in listed:
        raise nonsense("a row names no request or no time")
    return RequestsPage(
        listed=tuple(each for each in listed if each is not None), cursor=cursor_in(document)
    )


def _listed(row: Any) -> Listed | None:
    """One row; None where it names no request or no time."""
    if not isinstance(row, dict):
        return None
    name, model, status = row.get("request_id"), row.get("endpoint_id"), row.get("status_code")
    times = (_time(row.get(each)) for each in _TIMES)
    created = next((at for at in times if at is not None), None)
    if not isinstance(name, str) or not name or created is None:
        return None
    return Listed(
        id=storable(name),
        created=created,
        model=clean(model) if isinstance(model, str) else "",
        body=_body(row.get("json_input")),
        status=str(status) if isinstance(status, int) else "",
    )


def _time(value: Any) -> datetime | None:
    """A time in ISO 8601; without a zone it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _body(value: Any) -> Mapping[str, Any] | None:
    """A request's input, as it is or as text; None where it is no JSON object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
