"""What fal says of money: prices of units, estimates, the balance, the bill; literal answers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from asyncpipe import Job
from asyncpipe.errors import KeyRefused, PollFailed, ProviderError, RateLimited, Rejected
from asyncpipe.http import HttpAnswer
from asyncpipe.providers.fal.money import (
    UnitPrice,
    batches,
    quote_by_unit,
    read_balance,
    read_bills,
    read_estimate,
    read_prices,
    units_asked,
)

AT = datetime(2026, 11, 28, tzinfo=UTC)


def answer(document: Any, status: int = 200, **headers: str) -> HttpAnswer:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return HttpAnswer(status=status, headers=headers, body=body)


def job(**params: Any) -> Job:
    return Job(model="fal-ai/flux/dev", prompt="a mug", type="image", params=params)  # type: ignore[arg-type]


def test_prices_are_read_exactly() -> None:
    rows = [
        {"endpoint_id": "a/b", "unit_price": 0.025, "unit": "megapixels", "currency": "USD"},
        {"endpoint_id": "c/d", "unit_price": "0.0024075", "unit": "Seconds", "currency": "usd"},
        {"endpoint_id": "e/f", "unit_price": 1, "unit": "images", "currency": "EUR"},
        {"endpoint_id": "g/h", "unit_price": None, "unit": "images"},
        {"endpoint_id": "i/j", "unit_price": -1, "unit": "images"},
        "odd",
    ]
    assert read_prices(answer({"prices": rows, "next_cursor": None})) == {
        "a/b": UnitPrice(amount=Decimal("0.025"), unit="megapixel"),
        "c/d": UnitPrice(amount=Decimal("0.0024075"), unit="second"),
    }


@pytest.mark.parametrize(
    ("unit", "params", "units"),
    [
        ("image", {}, "1"),
        ("image", {"num_images": 4}, "4"),
        ("video", {"duration": 10}, "1"),
        ("request", {}, "1"),
        ("megapixel", {"image_size": {"width": 2000, "height": 1000}, "num_images": 2}, "4"),
        ("megapixel", {"image_size": "square_hd"}, "1.048576"),
        ("megapixel", {"width": 64, "height": 64}, "1"),
        ("megapixel", {}, None),
        ("megapixel", {"image_size": "auto"}, None),
        ("megapixel", {"image_size": {"width": "1", "height": 2}}, None),
        ("second", {"duration": 5}, "5"),
        ("second", {"duration": "8s", "num_videos": 2}, "16"),
        ("second", {"duration": "auto"}, None),
        ("second", {}, None),
        ("minute", {"duration": 30}, "0.5"),
        ("1000 character", {"text": "x" * 495}, "0.5"),
        ("character", {"text": "x" * 495}, "500"),
        ("compute second", {"duration": 5}, None),
        ("unit", {}, None),
    ],
)
def test_how_many_units_a_job_asks_for(
    unit: str, params: dict[str, Any], units: str | None
) -> None:
    """None where only the result will tell."""
    asked = units_asked(job(**params), unit)
    assert asked == (None if units is None else Decimal(units))


def test_a_quote_is_an_estimate() -> None:
    """A price of 0 says of itself not what it means."""
    price = UnitPrice(amount=Decimal("0.025"), unit="image")
    quote = quote_by_unit(job(num_images=2), price, at=AT)
    assert quote is not None
    assert (quote.amount, quote.estimated) == (Decimal("0.05"), True)
    assert quote_by_unit(job(), UnitPrice(amount=Decimal(1), unit="unit"), at=AT) is None
    with pytest.raises(Rejected, match="per_job: 0"):
        quote_by_unit(job(), UnitPrice(amount=Decimal(0), unit="image"), at=AT)


def test_what_calls_have_cost_is_an_estimate_too() -> None:
    document = {"estimate_type": "historical_api_price", "total_cost": 0.153, "currency": "USD"}
    quote = read_estimate(answer(document), at=AT)
    assert (quote.amount, quote.estimated) == (Decimal("0.153"), True)
    for wrong in ({"total_cost": 0}, {"total_cost": 1, "currency": "EUR"}, {"total_cost": "x"}):
        with pytest.raises(Rejected, match="no amount"):
            read_estimate(answer(wrong), at=AT)


@pytest.mark.parametrize(
    ("credits", "usd"),
    [
        ({"current_balance": 8.54, "currency": "USD"}, "8.54"),
        ({"current_balance": -0.18}, "0"),
        ({"current_balance": 0}, "0"),
        ({"current_balance": 1, "currency": "EUR"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_balance(credits: Any, usd: str | None) -> None:
    """An account may owe some: then nothing is left."""
    if usd is None:
        with pytest.raises(ProviderError, match="no amount"):
            read_balance(answer({"credits": credits}))
    else:
        assert read_balance(answer({"credits": credits})) == Decimal(usd)


def test_the_bill_by_request() -> None:
    """Rows of one request are added up; a row that cannot be read makes the bill none."""
    row = {
        "request_id": "r-1",
        "endpoint_id": "a/b",
        "timestamp": "2026-11-28T00:00:08Z",
        "output_units": 2,
        "unit_price": 0.025,
        "percent_discount": 10,
        "cost_subtotal": 0.05,
        "cost_discount": 0.005,
        "cost_total": 0.045,
        "cost_estimate_nano_usd": 45000000,
    }
    rows = [row, {**row, "cost_total": 0.01}, {**row, "request_id": "r-2", "cost_total": 0}]
    page = read_bills(answer({"billing_events": rows, "next_cursor": "n", "has_more": True}))
    assert page.charged == {"r-1": Decimal("0.055"), "r-2": Decimal(0)}
    assert page.cursor == "n"
    for wrong in ({"billing_events": [{"request_id": "r-1"}]}, {"billing_events": None}):
        with pytest.raises(ProviderError):
            read_bills(answer(wrong))
    with pytest.raises(ProviderError, match="not where"):
        read_bills(answer({"billing_events": [], "has_more": True}))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, KeyRefused, "refuses the key"),
        (403, ProviderError, "ADMIN keys only"),
        (404, Rejected, "does not tell"),
        (422, Rejected, "does not tell"),
        (429, RateLimited, "does not tell"),
        (500, ProviderError, "does not tell"),
    ],
)
def test_an_answer_without_money(status: int, kind: type[ProviderError], words: str) -> None:
    for read in (read_prices, read_balance, read_bills):
        with pytest.raises(ProviderError, match=words) as caught:
            read(answer({"detail": "no"}, status))
        assert type(caught.value) is kind
    with pytest.raises(PollFailed, match="not JSON"):
        read_balance(answer(b"<html>"))


def test_fifty_are_asked_about_at_once() -> None:
    assert [len(batch) for batch in batches([f"r-{n}" for n in range(101)] * 2)] == [50, 50, 1]
