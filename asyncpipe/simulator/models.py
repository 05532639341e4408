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
    by name, besides ``model`` and what it ``asks`` for. ``unit`` is what ``base`` is for,
    ``least_s`` the seconds that are billed at least, ``makes`` the kind of its outputs.
    """

    kind: str
    name: str
    base: int
    price: Callable[[dict[str, Any]], int]
    fields: dict[str, dict[str, Any]]
    discount: int = 100
    tokens: Callable[[dict[str, Any]], int] | None = None
    asks: str = "prompt"
    unit: str = "generation"
    least_s: int | None = None
    makes: str = ""

    @property
    def listed(self) -> dict[str, Any]:
        """What the catalogue says of it besides its names and its price."""
        taken = "audio" if self.asks == "audio" else "text"
        made = self.makes or self.kind
        return {
            "categories": [f"{taken}-to-{made}".upper()],
            "supported_protocols": ["http"],
            "input_modalities": [taken],
            "output_modalities": [made],
        }

    def quote(self, body: dict[str, Any]) -> dict[str, Any]:
        """What a quote says of a request besides its price."""
        told: dict[str, Any] = {"discount": str(self.discount), "estimated": bool(self.tokens)}
        return {**told, "estimated_tokens": self.tokens(body)} if self.tokens else told

    def document(self) -> dict[str, Any]:
        """The model's OpenAPI document."""
        body = {
            "type": "object",
            "properties": {"model": _TEXT, self.asks: _TEXT, **self.fields},
            "required": ["model", self.asks],
            "additionalProperties": False,
            "x-order-properties": [self.asks, *self.fields],
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
    fields = {**model.fields, "model": _TEXT, model.asks: _TEXT, "webhook_url": _TEXT}
    if model.asks in body and all(
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


def _speech(body: dict[str, Any]) -> int:
    return 60_000 * -(-len(str(body.get("prompt", ""))) // 1000)


def _lasting(per_second: int, least_s: int) -> Callable[[dict[str, Any]], int]:
    return lambda body: per_second * max(int(body.get("duration", least_s)), least_s)


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
        unit="image",
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
        unit="image",
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
        unit="image",
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
        unit="second",
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
        unit="second",
    ),
    "minimax/speech-2.6-hd/text-to-speech": LiveModel(
        kind="audio",
        name="MiniMax Speech 2.6 HD",
        base=60_000,
        price=_speech,
        fields={"voice_id": _TEXT, "format": _one_of("mp3", "wav")},
        unit="1k_chars",
    ),
    "minimax/music-2.0/text-to-music": LiveModel(
        kind="audio",
        name="MiniMax Music 2.0",
        base=2_000,
        price=_lasting(2_000, 30),
        fields={"lyrics": _TEXT, "duration": {"type": "integer", "minimum": 5, "maximum": 240}},
        unit="second",
        least_s=30,
    ),
    "openai/whisper-v3/speech-to-text": LiveModel(
        kind="audio",
        name="Whisper V3 Speech-to-Text",
        base=6_000,
        price=_fixed(6_000),
        fields={"language": _TEXT},
        asks="audio",
        makes="text",
    ),
    "tencent/hunyuan3d-v3/text-to-3d": LiveModel(
        kind="image",
        name="Hunyuan3D V3 Text-to-3D",
        base=250_000,
        price=_fixed(250_000),
        fields={"seed": _SEED},
        makes="3d",
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


def kind_of(model: str) -> str:
    """What a model makes, by its id: image, video or audio."""
    kinds = {"video": "video", "audio": "audio", "speech": "audio", "music": "audio"}
    return next((kind for word, kind in kinds.items() if f"to-{word}" in model), "image")


def medium(kind: str, model: str) -> str:
    """What a prediction's outputs are: its type, or ``model``, of three dimensions."""
    return "model" if kind == "image" and model.endswith("-to-3d") else kind


MOST_OUTPUTS = 15


def outputs_asked(body: dict[str, Any]) -> int:
    """How many outputs a request asks for."""
    for name in ("num_images", "n", "num_outputs", "max_images"):
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
