"""fal's words: errors in its three forms, and what a unit of a model costs."""

from __future__ import annotations

import random
import uuid
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.models import outputs_asked, seconds_asked
from asyncpipe.simulator.wire import page

NO_MONEY = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard."

SERVER_ERRORS = (
    (500, "internal_server_error", True),
    (503, "runner_scheduling_failure", False),
    (503, "runner_disconnected", False),
    (504, "request_timeout", False),
    (504, "generation_timeout", True),
)
"""Status, type and whether it is the model's own (a list) of what a failed request is answered."""

_UNITS = {
    "fal-ai/flux/dev": (25_000, "megapixels"),
    "fal-ai/flux-pro/v1.1-ultra": (60_000, "images"),
    "fal-ai/kling-video/v2/master/text-to-video": (50_000, "seconds"),
    "fal-ai/minimax/speech-02-hd": (100_000, "1000 characters"),
    "fal-ai/anybody/compute": (1_000, "compute seconds"),
}
"""Micro-dollars for a unit of some models, and the unit."""

_OTHERS = (50_000, "images")

_COMPUTED_S = Decimal(40)
"""Seconds that whatever is billed by the second of a machine takes."""

_KINDS = {
    "video": ("video", "veo", "kling", "wan/", "ltx", "luma", "hailuo", "sora"),
    "audio": ("speech", "tts", "audio", "music", "whisper"),
}


def kind_of(model: str) -> str:
    """What a model makes, by its id: image, video or audio."""
    told = (kind for kind, marks in _KINDS.items() if any(mark in model for mark in marks))
    return next(told, "image")


def app_of(model: str) -> str:
    """What a request to a model is polled at."""
    names = model.split("/")
    return "/".join(names[: 3 if names[0] in ("workflows", "comfy") else 2])


def unit_of(model: str) -> tuple[int, str]:
    """Micro-dollars for a unit of a model, and the unit."""
    return _UNITS.get(model, _OTHERS)


def units_billed(model: str, body: dict[str, Any]) -> Decimal:
    """How many units a request is billed for."""
    unit, outputs = unit_of(model)[1], outputs_asked(body)
    if unit == "megapixels":
        return outputs * max(Decimal(_pixels(body)) / 1_000_000, Decimal(1))
    if unit == "seconds":
        return outputs * Decimal(str(seconds_asked(body)))
    if unit == "1000 characters":
        return Decimal(max(len(str(body.get("text") or body.get("prompt") or "")), 1)) / 1000
    return _COMPUTED_S if unit == "compute seconds" else Decimal(outputs)


def _pixels(body: dict[str, Any]) -> int:
    size = body.get("image_size")
    place = size if isinstance(size, dict) else body
    sides = place.get("width", 1024), place.get("height", 768)
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    return sides[0] * sides[1] if whole else 1024 * 768


def price_of(model: str, body: dict[str, Any]) -> int:
    """Micro-dollars that a request is charged."""
    return round(units_billed(model, body) * unit_of(model)[0])


def detail(status: int, text: str, kind: str = "") -> web.Response:
    """The flat form of an error: of the queue, and of whatever refuses a request."""
    body = {"detail": text, "error_type": kind} if kind else {"detail": text}
    response = web.json_response(body, status=status)
    if kind:
        response.headers["X-Fal-Error-Type"] = kind
    return response


def typed(status: int, kind: str, text: str, **more: Any) -> web.Response:
    """The other form: a model's own."""
    error = {
        "loc": ["body", "prompt"],
        "msg": text,
        "type": kind,
        "url": f"https://docs.fal.ai/errors#{kind}",
        **more,
    }
    return web.json_response({"detail": [error]}, status=status)


def traced(response: web.Response) -> web.Response:
    """With the trace that fal's gateway leaves; what its door refuses has none."""
    response.headers["x-fal-request-id"] = str(uuid.uuid4())
    return response


def door(status: int) -> web.Response:
    """What stands before the gateway: nginx."""
    return page(status, f"{status} nginx")


def proxy(draw: random.Random) -> web.Response:
    """What a question that gets no answer is answered."""
    status = draw.choice((429, 500, 502, 503, 504))
    return traced(detail(429, "slow down")) if status == 429 else door(status)
