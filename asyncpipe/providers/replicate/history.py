"""Replicate's list of an account's predictions: read exactly, page after page.

A lost submit is settled by it, so a list with a hole proves nothing. A prediction's input is shown
for an hour after its end: a row without it stays in the list, as one that may be anybody's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from asyncpipe.errors import HistoryUnavailable, PollFailed
from asyncpipe.providers.base import Listed
from asyncpipe.providers.listing import MOST_PAGES, NO_LIST, ORDER_SLACK, Lister, nonsense, surely
from asyncpipe.providers.replicate.reader import id_of, open_answer, poll_error, word_of
from asyncpipe.providers.texts import Fields, clean

VERSION, DEPLOYMENT = "model:version", "model:deployment"
"""Where a body has these: no input has a field of that name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One answer: its predictions, how many rows it had, and the query of the page that follows."""

    listed: tuple[Listed, ...]
    rows: int
    following: str | None


async def pages(api: Lister, since: datetime) -> AsyncIterator[Sequence[Listed]]:
    """Yield pages, newest first, until one is older than ``since``.

    Raises HistoryUnavailable where the API has no list for this key, and ProviderError where the
    list cannot be had, or turns out to have a hole.
    """
    query, asked, oldest = "", set[str](), datetime.max.replace(tzinfo=UTC)
    for _ in range(MOST_PAGES):
        asked.add(query)
        page = await _ask(api, query)
        if holes := page.rows - len(page.listed):
            raise nonsense(f"{holes} of its rows name no prediction or no time")
        for each in page.listed:
            if each.created - oldest > ORDER_SLACK:
                raise nonsense("it is not newest first")
            oldest = min(oldest, each.created)
        if page.listed:
            yield page.listed
        if page.following is None or oldest < since:
            return
        if page.following in asked:
            raise nonsense("its pages go in circles")
        query = page.following
    raise nonsense(f"it has more than {MOST_PAGES} pages")


async def _ask(api: Lister, query: str) -> Page:
    async def once() -> Page:
        answer = await api.ask_history(query)
        return read_history(answer.status, answer.headers, answer.body)

    return await surely(once)


def read_history(status: int, headers: Mapping[str, str], body: bytes) -> Page:
    """Read one page.

    Raises HistoryUnavailable where the API answers that there is none for this key, PollFailed for
    everything else that is no page.
    """
    answer = open_answer(status, headers, body)
    if status in NO_LIST:
        raise HistoryUnavailable(
            f"the API does not list this key's predictions (HTTP {status})", status=status
        )
    rows = answer.fields.get("results")
    if status != 200 or not isinstance(rows, list):
        raise poll_error(answer, "a question for the list of predictions")
    listed = tuple(one for row in rows if (one := _listed(row)) is not None)
    return Page(listed=listed, rows=len(rows), following=_following(answer.fields.get("next")))


def _following(url: Any) -> str | None:
    """The query of the next page; None where there is none.

    Of its URL that alone is used: the key goes to no place that an answer names.
    """
    if url is None or url == "":
        return None
    query = urlsplit(url).query if isinstance(url, str) else ""
    if not query or not query.isascii() or not query.isprintable() or " " in query:
        raise PollFailed("the list of predictions names no next page that can be asked for")
    return query


def _listed(row: Any) -> Listed | None:
    """One row; None where it names no prediction or no time."""
    if not isinstance(row, dict) or not (name := id_of(row)):
        return None
    if (created := _time(row.get("created_at"))) is None:
        return None
    model = row.get("model")
    return Listed(
        id=name,
        created=created,
        model=clean(model) if isinstance(model, str) else "",
        body=_body(row),
        status=word_of(row),
    )


def body_of(
    given: Mapping[str, Any], *, model: str, version: str, deployment: str
) -> dict[str, Any]:
    """A request as the list can show it: its input beside what it is for; "" names nothing."""
    named = {"model": model, VERSION: version, DEPLOYMENT: deployment}
    return {**given, **{field: text for field, text in named.items() if text}}


def _body(row: Fields) -> Mapping[str, Any] | None:
    """The request of a row; None where its input is not shown (any more)."""
    given = row.get("input")
    if not isinstance(given, dict) or (not given and row.get("data_removed") is not False):
        return None
    names = {name: row.get(name) for name in ("model", "version", "deployment")}
    told = {name: text if isinstance(text, str) else "" for name, text in names.items()}
    return body_of(given, **told)


def _time(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
