"""The catalogue: reading it, finding models, reading schemas, judging request bodies."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from asyncpipe.providers.catalog.models import CatalogModel, Lookup, look_up, read_models
from tests.support.catalog import IMAGEN, MODELS, ROW, VEO


def test_a_row_is_read_as_the_api_writes_it() -> None:
    """The price after the discount, as the decimal it is; the type in lower case."""
    assert read_models([ROW]) == (
        CatalogModel(
            id=VEO,
            type="video",
            name="Veo 3.1 Text-to-Video",
            base_price=Decimal("0.16"),
            schema_url="https://static.example/veo.json",
        ),
    )


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        ({"actual": {"base_price": ""}, "origin": {"base_price": "0.2"}}, "0.2"),
        ({"basePrice": 0.07}, "0.07"),
        ({"actual": "free"}, None),
        ({"actual": {"base_price": "NaN"}}, None),
        ({"actual": {"base_price": "-1"}}, None),
        ({"actual": {"base_price": True}}, None),
        ({"actual": {"base_price": "9" * 999}}, None),
        (None, None),
    ],
)
def test_prices_are_exact_or_unknown(price: Any, usd: str | None) -> None:
    (model,) = read_models([{**ROW, "price": price}])
    assert model.base_price == (Decimal(usd) if usd else None)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("generation", "generation"), ("second", "second"), ("Seconds", "second"),
        ("per_image", "image"), ("minute", "minute"), ("1k_chars", "1k_chars"),
        ("parsec", None), ("", None), (7, None), (None, None),
    ],
)  # fmt: skip
def test_what_a_price_is_for(unit: Any, expected: str | None) -> None:
    """A word that is not known makes no price of it; a row's other fields do no harm."""
    more = {"supported_protocols": ["http"], "input_modalities": ["text"], "output_modalities": 3}
    actual = {"base_price": "0.05", "unit": unit, "minDuration": "4"}
    (model,) = read_models([{**ROW, **more, "price": {"actual": actual}}])
    assert (model.unit, model.least_s) == (expected, Decimal(4))
    assert model.base_price == Decimal("0.05")


@pytest.mark.parametrize("least", [None, 0, -1, "", "soon", True, "NaN", [4]])
def test_a_least_duration_that_is_none(least: Any) -> None:
    """It costs only itself."""
    price = {"actual": {"base_price": "0.05", "unit": "second", "minDuration": least}}
    (model,) = read_models([{**ROW, "price": price}])
    assert (model.unit, model.least_s) == ("second", None)
    (elsewhere,) = read_models([{**ROW, "price": price, "minDuration": 6}])
    assert elsewhere.least_s == 6


def test_rows_that_are_none_are_left_out() -> None:
    """No id, no row; an id twice is one model; hidden ones are marked."""
    rows: list[Any] = [None, [], {}, {"model": 7}, {"model": "x" * 9999}, ROW, ROW]
    hidden = {"model": "a/b", "display_console": False, "type": None, "schema": 5}
    assert [model.id for model in read_models([*rows, hidden])] == [VEO, "a/b"]
    assert read_models([hidden])[0] == CatalogModel(id="a/b", type="", name="a/b", shown=False)
    assert read_models({"model": VEO}) == ()


def one(wrong: str, models: list[CatalogModel] = MODELS) -> Lookup:
    return look_up([wrong], models)[wrong]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("google/imagen4-ultra/text-to-image", IMAGEN),
        ("openai/sora-v2/text-to-video", "openai/sora-2/text-to-video"),
        ("Google/Veo3.1/text-to-video", VEO),
        ("z-image/turbo/text-to-image", "z-image/turbo"),
    ],
)
def test_the_articles_ids_lead_to_the_real_ones(wrong: str, right: str) -> None:
    """Spelled differently, and surely one model."""
    lookup = one(wrong)
    assert (lookup.model, lookup.near) == (None, (right,))
    assert lookup.sure is not None
    assert lookup.sure.id == right


def test_slips_of_the_keyboard_are_near_and_not_sure() -> None:
    assert one("google/imagen4-ultar").near[0] == IMAGEN
    assert one("google/imagen4-ultar").sure is None
    assert one("gogle/veo3.1/text-to-video").near[0] == VEO


def test_what_is_unlike_suggests_nothing() -> None:
    """That two ids end in the same task makes them no more alike; nor are pictures clips."""
    gone = [model for model in MODELS if "sora" not in model.id]
    assert one("openai/sora-v2/text-to-video", gone).near == ()
    assert one("google/imagen4-ultra/text-to-video").near == ()


def test_hidden_models_are_known_and_never_suggested() -> None:
    assert one("google/imagen4-secret").model is not None
    assert "google/imagen4-secret" not in one("google/imagen4-secrets").near
