"""Today's models, as the notes of 2026-09 have them: ids, fields, prices; for ``catalog=live``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TEXT = {"type": "string"}

_SEED = {"type": "integer", "minimum": -1, "maximum": 2**31 - 1}

_FLAG = {"type": "boolean"}

RESULT = "/api/v1/model/prediction/{id}"
"""Where a prediction is asked for."""

_RESULT = {
    "parameters": [
        {"name": "request_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ],
    "responses": {"200": {"description": "the prediction"}},
}

_RATIOS = ["1:1", "16:9", "9:16", "4:3", "3:4"]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}


def _one_of(*values: Any) -> dict[str, Any]:
    return {"type": "integer" if isinstance(values[0], int) else "string", "enum": list(values)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveModel:
    """One of today's models; ``base`` and what ``price`` returns are micro-dollars.

    ``discount`` is the percentage of the list price that is paid; ``tokens`` are the estimated ones
    of a request to a token-billed model, whose quotes are estimates. ``fields`` are JSON Schemas
    by name, besides ``model`` and ``prompt``, which every one takes.
    """

    kind: str
    name: str
    base: int
    price: Callable[[dict[str, Any]], int]
    fields: dict[str, dict[str, Any]]
    discount: int = 100
    tokens: Callable[[dict[str, Any]], int] | None = None

    def quote(self, body: dict[str, Any]) -> dict[str, Any]:
        """What a quote says of a request besides its price."""
        told: dict[str, Any] = {"discount": str(self.discount), "estimated": bool(self.tokens)}
        return {**told, "estimated_tokens": self.tokens(body)} if self.tokens else told

    def document(self) -> dict[str, Any]:
        """The model's OpenAPI document."""
        body = {
            "type": "object",
            "properties": {"model": _TEXT, "prompt": _TEXT, **self.fields},
            "required": ["model", "prompt"],
            "additionalProperties": False,
            "x-order-properties": ["prompt", *self.fields],
        }
        reference = {"schema": {"$ref": "#/components/schemas/Input"}}
        submit = {"requestBody": {"content": {"application/json": reference}}}
        return {
            "openapi": "3.0.0",
            "info": {"title": self.name, "version": "1"},
            "paths": {
                f"/api/v1/model/generate{self.kind.title()}": {"post": submit},
                RESULT.replace("{id}", "{request_id}"): {"get": _RESULT},
            },
            "components": {"schemas": {"Input": body}},
        }


def refused_live(body: dict[str, Any]) -> tuple[int, str] | None:
    """Status and text of the refusal of a body; None if it is sold. The field is not named."""
    model = LIVE.get(str(body.get("model")))
    if model is None:
        return 404, "model not found"
    fields = {**model.fields, "model": _TEXT, "prompt": _TEXT, "webhook_url": _TEXT}
    if "prompt" in body and all(
        name in fields and _fits(value, fields[name]) for name, value in body.items()
    ):
        return None
    return 400, "Invalid request parameters"


def _fits(value: Any, field: dict[str, Any]) -> bool:
    if not isinstance(value, _TYPES[field["type"]]):
        return False
    if isinstance(value, bool) and field["type"] != "boolean":
        return False
    if "enum" in field:
        return value in field["enum"]
    return "minimum" not in field or field["minimum"] <= value <= field["maximum"]


def _fixed(micro: int) -> Callable[[dict[str, Any]], int]:
    return lambda body: micro


def _tokens(body: dict[str, Any]) -> int:
    return 21_780 * int(body.get("duration", 5))


def _seedance2(body: dict[str, Any]) -> int:
    return 195_200 * int(body.get("duration", 5))


def _veo(body: dict[str, Any]) -> int:
    per_second = 200_000 if body.get("generate_audio", True) is False else 400_000
    if body.get("resolution") == "4k":
        per_second += 200_000
    return per_second * int(body.get("duration", 8))


LIVE: dict[str, LiveModel] = {
    "black-forest-labs/flux-2-pro/text-to-image": LiveModel(
        kind="image",
        name="FLUX.2 Pro Text-to-Image",
        base=40_000,
        price=_fixed(40_000),
        fields={
            "size": _TEXT,
            "output_format": _one_of("jpeg", "png"),
            "safety_tolerance": {"type": "integer", "minimum": 0, "maximum": 5},
            "seed": _SEED,
            "enable_base64_output": _FLAG,
        },
    ),
    "google/imagen4-ultra": LiveModel(
        kind="image",
        name="Imagen 4 Ultra",
        base=60_000,
        price=_fixed(60_000),
        fields={
            "aspect_ratio": _one_of(*_RATIOS),
            "negative_prompt": _TEXT,
            "seed": _SEED,
            "enable_base64_output": _FLAG,
        },
    ),
    "z-image/turbo": LiveModel(
        kind="image",
        name="Z-Image Turbo",
        base=10_000,
        price=_fixed(10_000),
        fields={"size": _TEXT, "seed": _SEED, "enable_base64_output": _FLAG},
    ),
    "bytedance/seedance-v1.5-pro/text-to-video": LiveModel(
        kind="video",
        name="Seedance v1.5 Pro Text-to-Video",
        base=222_000,
        price=_fixed(222_000),
        fields={
            "duration": {"type": "integer", "minimum": 4, "maximum": 12},
            "aspect_ratio": _one_of(*_RATIOS, "21:9"),
            "resolution": _one_of("480p", "720p"),
            "camera_fixed": _FLAG,
            "generate_audio": _FLAG,
            "seed": _SEED,
        },
    ),
    "bytedance/seedance-2.0/text-to-video": LiveModel(
        kind="video",
        name="Seedance 2.0 Text-to-Video",
        base=195_200,
        price=_seedance2,
        fields={
            "duration": {"type": "integer", "minimum": 4, "maximum": 12},
            "aspect_ratio": _one_of(*_RATIOS, "21:9"),
            "resolution": _one_of("720p"),
            "generate_audio": _FLAG,
            "seed": _SEED,
        },
        discount=80,
        tokens=_tokens,
    ),
    "google/veo3.1/text-to-video": LiveModel(
        kind="video",
        name="Veo 3.1 Text-to-Video",
        base=200_000,
        price=_veo,
        fields={
            "duration": _one_of(4, 6, 8),
            "aspect_ratio": _one_of("16:9", "9:16"),
            "resolution": _one_of("720p", "1080p", "4k"),
            "negative_prompt": _TEXT,
            "generate_audio": _FLAG,
            "seed": _SEED,
        },
    ),
}

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
