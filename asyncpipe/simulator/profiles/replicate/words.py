"""How Replicate says things: problems, limits, times, which model makes what."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from asyncpipe.simulator.wire import page

NO_CREDIT = "You have insufficient credit to run this model."

_MAKES = {
    "video": ("video", "veo", "seedance", "kling", "hailuo", "sora"),
    "audio": ("speech", "music", "audio", "tts"),
}

_STATUSES = (429, 500, 502, 503, 504)


def kind_of(model: str) -> str:
    """What a model makes, by its name: image, video or audio."""
    kinds = (kind for kind, words in _MAKES.items() if any(word in model for word in words))
    return next(kinds, "image")


def problem(status: int, detail: str, title: str = "", **more: Any) -> web.Response:
    """An error as Replicate tells it."""
    told: dict[str, Any] = {"title": title} if title else {}
    told |= {"detail": detail, "status": status, **more}
    return limited(web.json_response(told, status=status, content_type="application/problem+json"))


def throttled(draw: random.Random) -> web.Response:
    """429: how long to wait stands in its words, in its body alone, or in a header of limits."""
    wish_s = draw.choice((1, 2))
    kind = draw.choice(("words", "body", "header"))
    text = f"Request was throttled. Your rate limit resets in ~{wish_s}s."
    if kind == "words":
        return web.json_response({"detail": text}, status=429)
    if kind == "body":
        return web.json_response({"detail": text, "status": 429, "retry_after": wish_s}, status=429)
    headers = {"ratelimit-remaining": "0", "ratelimit-reset": str(wish_s)}
    return web.json_response({"detail": "Throttled."}, status=429, headers=headers)


def broken(draw: random.Random, statuses: tuple[int, ...] = _STATUSES) -> web.Response:
    """One of ``statuses``, as a problem or as a proxy's page."""
    status = draw.choice(statuses)
    if draw.random() < 0.5:
        return page(status, f"{status} the server is in trouble")
    return throttled(draw) if status == 429 else problem(status, "the server is in trouble")


def limited(response: web.Response) -> web.Response:
    """The same answer with what is left of the rate limit, as on all of Replicate's."""
    response.headers.update({"ratelimit-remaining": "599", "ratelimit-reset": "1"})
    return response


def at(seconds: float) -> str:
    """A time as its answers have it."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
