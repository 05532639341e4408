"""A small catalogue, and a schema as its models have them."""

from __future__ import annotations

from typing import Any

from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.models import CatalogModel
from asyncpipe.providers.catalog.schema import read_schema

VEO = "google/veo3.1/text-to-video"
IMAGEN = "google/imagen4-ultra"
ROW = {
    "model": VEO,
    "type": "Video",
    "displayName": "Veo 3.1 Text-to-Video",
    "display_console": True,
    "schema": "https://static.example/veo.json",
    "price": {"discount": "80", "actual": {"base_price": "0.16"}, "origin": {"base_price": "0.2"}},
}
FIELDS: dict[str, Any] = {
    "model": {"type": "string"},
    "prompt": {"type": "string", "maxLength": 20},
    "duration": {"type": "integer", "enum": [4, 6, 8]},
    "seed": {"type": "integer", "minimum": -1, "maximum": 99},
    "aspect_ratio": {"type": "string", "enum": ["16:9", "9:16"]},
    "scale": {"type": "number", "exclusiveMinimum": 0},
    "images": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
}


def api(body: Any) -> dict[str, Any]:
    return {"openapi": "3.0.0", "components": {"schemas": {"Input": body}}}


def check(**changes: Any) -> BodyCheck:
    schema = read_schema(api({"type": "object", "properties": FIELDS, **changes}))
    assert schema is not None
    return BodyCheck(schema)


def listed(*ids: str, kind: str = "", shown: bool = True) -> list[CatalogModel]:
    return [CatalogModel(id=each, type=kind, name=each, shown=shown) for each in ids]


MODELS = [
    *listed(IMAGEN, "google/imagen4", "z-image/turbo", kind="image"),
    *listed(VEO, "google/veo3.1-fast/text-to-video", "openai/sora-2/text-to-video", kind="video"),
    *listed("google/imagen4-secret", kind="image", shown=False),
]
