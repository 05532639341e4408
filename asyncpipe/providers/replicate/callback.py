"""How Replicate signs what it sends back: Standard Webhooks, by a secret that its API tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from asyncpipe.errors import PollFailed
from asyncpipe.http import HttpAnswer
from asyncpipe.webhooks import FetchedSecret, id_in, word_in

SECRET = "/webhooks/default/secret"  # noqa: S105 - where it is told


def verifier(ask: Callable[[], Awaitable[HttpAnswer]]) -> FetchedSecret:
    """Make a verifier; ``ask`` gets the API's answer about the secret."""

    async def fetch() -> str:
        return read_secret(await ask())

    return FetchedSecret(fetch, read=read)


def read(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Id and status: the body is the prediction."""
    return id_in(payload, "id"), word_in(payload, "status")


def read_secret(answer: HttpAnswer) -> str:
    """The secret; raises PollFailed where it is not told."""
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        told = None
    key = told.get("key") if isinstance(told, dict) else None
    if answer.status != 200 or not isinstance(key, str):
        raise PollFailed("the secret of webhooks is not told", status=answer.status)
    return key
