"""Rows of the catalogue, as today's API and as older ones spell them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from asyncpipe.jobs import type_of_model

LONGEST_ID = 300

LONGEST_NAME = 200

LONGEST_URL = 2000

MOST_MODELS = 20_000
"""Rows that are read at most; the largest catalogue seen had 490."""

_MOST_USD = Decimal(10**6)


UNITS = ("generation", "image", "second", "minute", "1k_chars")
"""What a price is for."""

_UNITS = {f"{before}{unit}{after}": unit for unit in UNITS for before in ("", "per_", "per ", "/")
          for after in ("", "s")}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogModel:
    """One model of the catalogue.

    ``type`` is ``image``, ``video``, ``audio``, ``text`` or the provider's own word, in lower case.
    ``base_price`` in USD is a headline, the cheapest tier at worst; only a quote tells the charge.
    It is for one ``unit`` (one of UNITS; None: not told), and at least ``least_s`` seconds are
    billed. ``shown`` is False for models the provider hides in its console.
    """

    id: str
    type: str
    name: str
    base_price: Decimal | None = None
    unit: str | None = None
    least_s: Decimal | None = None
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
        unit=_unit(row),
        least_s=_least_s(row),
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
    for layer in _layers(row):
        for name in ("base_price", "basePrice"):  # the second is what older rows have
            usd = _usd(layer.get(name))
            if usd is not None:
                return usd
    return None


def _layers(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where a row tells its price, what is paid before what is listed."""
    price = row.get("price")
    layers = [price.get("actual"), price.get("origin"), price] if isinstance(price, Mapping) else []
    return [layer for layer in [*layers, row] if isinstance(layer, Mapping)]


def _unit(row: Mapping[str, Any]) -> str | None:
    words = [_text(layer.get("unit"), 40).lower() for layer in _layers(row)]
    return next((_UNITS[word] for word in words if word in _UNITS), None)


def _least_s(row: Mapping[str, Any]) -> Decimal | None:
    names = ("minDuration", "min_duration")
    told = (_usd(layer.get(name)) for layer in _layers(row) for name in names)
    return next((seconds for seconds in told if seconds is not None and seconds > 0), None)


def _usd(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    try:
        usd = Decimal(text) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    return usd if usd is not None and usd.is_finite() and 0 <= usd <= _MOST_USD else None


BUILT_IN_AS_OF = date(2026, 9, 29)
"""The newest of the notes this list was made from."""

BUILT_IN = (
    CatalogModel(
        id="black-forest-labs/flux-2-pro/text-to-image",
        type="image",
        name="FLUX.2 Pro",
        base_price=Decimal("0.04"),
    ),
    CatalogModel(
        id="google/imagen4-ultra",
        type="image",
        name="Imagen 4 Ultra",
        base_price=Decimal("0.06"),
    ),
    CatalogModel(
        id="bytedance/seedance-v1.5-pro/text-to-video",
        type="video",
        name="Seedance v1.5 Pro",
        base_price=Decimal("0.022"),
    ),
    CatalogModel(
        id="google/veo3.1/text-to-video",
        type="video",
        name="Veo 3.1",
        base_price=Decimal("0.20"),
    ),
    CatalogModel(
        id="openai/sora-2/text-to-video",
        type="video",
        name="Sora 2",
        base_price=Decimal("0.15"),
    ),
)
"""The article's five models by their real ids; never used to refuse a job."""

MOST_NEAR = 3
"""Ids that are suggested at most."""

_TASK = re.compile(r"/(?:text|image|reference|video)-to-(?:image|video|audio)$")

_VERSION = re.compile(r"(?<=[^a-z0-9])v(?=[0-9])")

_CUTOFF = 0.72


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """What the catalogue says of one id.

    ``model`` is there when it is known; else ``near`` are ids that may be meant, best first, and
    ``sure`` the one model that the id is only another spelling of.
    """

    id: str
    model: CatalogModel | None = None
    near: tuple[str, ...] = ()
    sure: CatalogModel | None = None


def look_up(ids: Iterable[str], models: Sequence[CatalogModel]) -> dict[str, Lookup]:
    """Look each id up; hidden models are known, but never suggested."""
    known = {model.id: model for model in models}
    return {
        each: Lookup(id=each, model=known[each]) if each in known else _near(each, models)
        for each in dict.fromkeys(ids)
    }


def _near(wrong: str, models: Sequence[CatalogModel]) -> Lookup:
    kind = type_of_model(wrong)
    fitting = [m for m in models if m.shown and (kind is None or m.type in (kind.value, ""))]
    for spelled in (_spelled, lambda text: _spelled(_TASK.sub("", text))):
        same = [m for m in fitting if spelled(m.id) == spelled(wrong)]
        if same:
            sure = same[0] if len(same) == 1 else None
            return Lookup(id=wrong, near=tuple(m.id for m in same[:MOST_NEAR]), sure=sure)
    return Lookup(id=wrong, near=_alike(wrong, [m.id for m in fitting]))


def _spelled(model_id: str) -> str:
    """An id without what people write one way or the other: case, ``v2`` for ``2``, dashes."""
    return re.sub(r"[^a-z0-9/]", "", _VERSION.sub("", model_id.lower()))


def _alike(wrong: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Ids alike in what is their own: that two end in text-to-video makes them no likelier."""
    own: dict[str, list[str]] = {}
    for each in ids:
        own.setdefault(_TASK.sub("", each.lower()), []).append(each)
    stem = _TASK.sub("", wrong.lower())
    close = difflib.get_close_matches(stem, list(own), n=MOST_NEAR, cutoff=_CUTOFF)
    return tuple(each for key in close for each in own[key])[:MOST_NEAR]
