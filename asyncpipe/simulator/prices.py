"""What the simulated provider charges: its own table, the article's figures or today's."""

from __future__ import annotations

from typing import Any

from asyncpipe.simulator.live import LIVE

_PER_IMAGE = {
    "black-forest-labs/flux-2-pro/text-to-image": 40_000,
    "google/imagen4-ultra/text-to-image": 60_000,
}

_PER_SECOND = {
    "bytedance/seedance-v1.5-pro/text-to-video": 22_000,
    "google/veo3.1/text-to-video": 30_000,
    "openai/sora-v2/text-to-video": 150_000,
}

_OTHERS = 50_000

MODELS = {
    **{model: ("image", price) for model, price in _PER_IMAGE.items()},
    **{model: ("video", price) for model, price in _PER_SECOND.items()},
}
"""The models of the catalogue: type, and micro-dollars per image or per second."""

MOST_OUTPUTS = 15


def outputs_asked(body: dict[str, Any]) -> int:
    """How many outputs a request asks for."""
    for name in ("num_images", "n", "max_images"):
        count = body.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return min(count, MOST_OUTPUTS)
    return 1


def seconds_asked(body: dict[str, Any]) -> float:
    """How long a clip is to be, in seconds; 5 when the request leaves it open."""
    duration = body.get("duration")
    if isinstance(duration, int | float) and not isinstance(duration, bool) and duration > 0:
        return min(float(duration), 60.0)
    return 5.0


def charge(body: dict[str, Any], *, catalog: str = "article") -> int:
    """Micro-dollars for one request."""
    model = body.get("model")
    if catalog == "live" and model in LIVE:
        return LIVE[model].price(body)
    if model in _PER_IMAGE:
        return _PER_IMAGE[model] * outputs_asked(body)
    if model in _PER_SECOND:
        return round(_PER_SECOND[model] * seconds_asked(body) * outputs_asked(body))
    return _OTHERS * outputs_asked(body)
