"""Rows of the catalogue, as today's API and as older ones spell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

LONGEST_ID = 300

LONGEST_NAME = 200

LONGEST_URL = 2000

MOST_MODELS = 20_000
"""Rows that are read at most; the largest catalogue seen had 490."""

_MOST_USD = Decimal(10**6)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogModel:
    """One model of the catalogue.

    ``type`` is ``image``, ``video``, ``audio``, ``text`` or the provider's own word, in lower case.
    ``base_price`` in USD is a headline: per image, second or generation, or the cheapest tier; only
    a quote tells the charge. ``shown`` is False for models the provider hides in its console.
    """

    id: str
    type: str
    name: str
    base_price: Decimal | None = None
    schema_url: str | None = None
    shown: bool = True


def read_models(rows: Any) -> tuple[CatalogModel, ...]:
    """Read what ``data`` of ``GET /models`` holds; rows that are none are left out, ids come once.

    Whatever is wrong with a price or an address costs only that field.
    """
    found: dict[str, CatalogModel] = {}
    for row in rows[:MOST_MODELS] if isinstance(rows, list) else []:
        model = _model(row)
        if model is not None:
            found.setdefault(model.id, model)
    return tuple(found.values())


def _model(row: Any) -> CatalogModel | None:
    if not isinstance(row, Mapping):
        return None
    model_id = _text(row.get("model"), LONGEST_ID)
    if not model_id:
        return None
    return CatalogModel(
        id=model_id,
        type=_text(row.get("type"), 40).lower(),
        name=_text(row.get("displayName"), LONGEST_NAME) or model_id,
        base_price=_base_price(row),
        schema_url=_text(row.get("schema"), LONGEST_URL) or None,
        shown=row.get("display_console") is not False,
    )


def _text(value: Any, longest: int) -> str:
    """One line of text that UTF-8 can say; "" for anything else, and for what is too long."""
    if not isinstance(value, str) or len(value) > 4 * longest:
        return ""
    line = " ".join(value.encode("utf-8", "replace").decode().split())
    return line if len(line) <= longest else ""


def _base_price(row: Mapping[str, Any]) -> Decimal | None:
    price = row.get("price")
    layers = [price.get("actual"), price.get("origin"), price] if isinstance(price, Mapping) else []
    for layer in [*layers, row]:
        if not isinstance(layer, Mapping):
            continue
        for name in ("base_price", "basePrice"):  # the second is what older rows have
            usd = _usd(layer.get(name))
            if usd is not None:
                return usd
    return None


def _usd(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    try:
        usd = Decimal(text) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    return usd if usd is not None and usd.is_finite() and 0 <= usd <= _MOST_USD else None
