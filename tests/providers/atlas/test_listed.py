"""What a model's listed price makes of a job, where the API quotes nothing; prices of nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from asyncpipe.errors import ProviderError, Rejected
from asyncpipe.jobs import Job
from asyncpipe.pricing import Price, PriceBook, Prices, Quote, Quotes, Rate, Unpriced, price_key
from asyncpipe.pricing.quotes import QuoteBook
from asyncpipe.providers.atlas.client import AtlasCloud
from asyncpipe.providers.atlas.listed import listed_quote
from asyncpipe.providers.catalog import CatalogModel
from tests.support.servers import serving

AT = datetime(2026, 11, 28, tzinfo=UTC)


def job(kind: str = "video", prompt: str = "p", **params: Any) -> Job:
    fields: Any = {"type": kind, "model": f"m/to-{kind}", "prompt": prompt, "params": params}
    return Job(**fields)


def model(unit: str | None, usd: str | None = "0.06", least_s: str | None = None) -> CatalogModel:
    return CatalogModel(
        id="m/to-video",
        type="video",
        name="M",
        base_price=None if usd is None else Decimal(usd),
        unit=unit,
        least_s=None if least_s is None else Decimal(least_s),
    )


@pytest.mark.parametrize(
    ("asked", "listed", "usd"),
    [
        (job(duration=8), model("second"), "0.48"),
        (job(duration=3), model("second", least_s="5"), "0.30"),
        (job(duration="8s"), model("second", least_s="5"), "0.48"),
        (job(), model("second", least_s="8"), "0.48"),
        (job(duration=30), model("minute"), "0.03"),
        (job(duration=3), model("minute", least_s="10"), "0.01"),
        (job(duration=8), model("generation"), "0.06"),
        (job("image", num_images=3), model("image"), "0.18"),
        (job("image"), model("generation"), "0.06"),
        (job("audio", prompt="x" * 1000), model("1k_chars"), "0.06"),
        (job("audio", prompt="字" * 1001), model("1k_chars"), "0.12"),
        (job("audio", prompt="x", text="y" * 2000), model("1k_chars"), "0.18"),
        (job("audio", duration=10), model("second"), "0.60"),
    ],
)
def test_every_unit(asked: Job, listed: CatalogModel, usd: str) -> None:
    """Never too small a reservation: at least the least duration, whole thousands."""
    found = listed_quote(asked, listed, at=AT, why="no")
    assert found is not None
    assert (found.amount, found.estimated, found.listed) == (Decimal(usd), True, True)


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        (job(duration=8), model(None)),
        (job(duration=8), model("second", usd=None)),
        (job("audio"), model("second")),
    ],
)
def test_what_nobody_can_reckon_is_no_price(asked: Job, listed: CatalogModel) -> None:
    """A headline without a unit may be anything; how long speech becomes nobody knows."""
    assert listed_quote(asked, listed, at=AT, why="no") is None


def test_a_users_price_goes_before_a_listed_one() -> None:
    """And a quote before both."""
    asked, quotes = job(duration=8), QuoteBook()
    own = PriceBook(rates={asked.model: Rate(per_job=Decimal(1))}, source="job file")
    listed = listed_quote(asked, model("second"), at=AT, why="no")
    assert listed is not None
    quotes.add(price_key(asked), listed)
    assert Prices(books=(own,), quotes=quotes).of(asked).source == "job file"
    alone = Prices(books=(), quotes=quotes).of(asked)
    assert alone.source == "provider list price of 2026-11-28"
    assert (alone.micro, alone.to_reserve, alone.estimated) == (480_000, 600_000, True)
    quotes.add(price_key(asked), Quote(amount=Decimal(2), asked_at=AT))
    assert Prices(books=(own,), quotes=quotes).of(asked).source == "provider quote of 2026-11-28"


class Lists:
    """An API that quotes ``price`` and lists ``rows``; it counts how often it is asked for them."""

    def __init__(
        self, price: Any, rows: list[dict[str, Any]] | None, status: int | None = None
    ) -> None:
        self.price, self.rows, self.status = price, rows, status
        self.asked = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/calculate"):
            answer = {"code": self.status or 0, "data": self.price}
            return web.json_response(answer, status=self.status or 200)
        self.asked += 1
        if self.rows is None:
            return web.json_response({"code": 500}, status=500)
        return web.json_response({"code": "200", "data": self.rows})


def ask(api: Lists, *jobs: Job) -> list[Quote | ProviderError]:
    """Ask an API for quotes."""

    async def main() -> list[Quote | ProviderError]:
        async with serving(api) as base, AtlasCloud("apikey-1", base_url=f"{base}/api/v1") as atlas:
            found: list[Quote | ProviderError] = []
            for each in jobs:
                try:
                    found.append(await atlas.quote(each))
                except ProviderError as exc:
                    found.append(exc)
            return found

    return asyncio.run(main())


def row(name: str, **actual: Any) -> dict[str, Any]:
    return {"model": name, "type": "Video", "price": {"actual": actual}}


def test_where_nothing_is_quoted_the_catalogue_is_asked_once() -> None:
    """However many jobs there are; what it lists for their model is an estimate."""
    rows = [row("m/to-video", base_price="0.06", unit="second", minDuration=5)]
    api = Lists(None, rows, status=404)
    found = ask(api, job(duration=3), job(duration=8), job("image"))
    assert [isinstance(each, Quote) and each.amount for each in found] == [
        Decimal("0.30"), Decimal("0.48"), False,
    ]  # fmt: skip
    assert api.asked == 1


def test_nothing_is_a_price_where_the_catalogue_says_so_too() -> None:
    """A model that is listed at 0 is free; one that is not, or not listed, has no known price."""
    rows = [row("m/to-video", base_price="0", unit="generation"), row("m/to-image", base_price="1")]
    free, priced, unlisted = ask(Lists({"price": 0}, rows), job(), job("image"), job("audio"))
    assert isinstance(free, Quote)
    assert (free.amount, free.free, free.listed) == (Decimal(0), True, False)
    for refused in (priced, unlisted):
        assert isinstance(refused, Rejected)
        assert "per_job: 0" in str(refused)
    (without,) = ask(Lists({"price": 0}, None), job())
    assert isinstance(without, Rejected)


@pytest.mark.parametrize("free", [False, True])
def test_a_quote_of_nothing_is_one_only_if_it_is_meant(free: bool) -> None:
    """Whoever makes the provider: of a nonsense a budget would leak."""

    class Zero:
        async def quote(self, job: Job) -> Quote:
            return Quote(amount=Decimal(0), asked_at=AT, free=free)

    async def main() -> Prices:
        quoting = Quotes(Zero(), tell=lambda line: None)
        quoting.want(job())
        await quoting.fill()
        return Prices(books=(), quotes=quoting.quotes)

    prices = asyncio.run(main())
    if free:
        assert prices.of(job()).micro == 0
    else:
        with pytest.raises(Unpriced):
            prices.of(job())


def test_a_quote_of_yesterday_tells_more_than_a_list() -> None:
    """And why there is none today is told, where it is priced by a list."""
    said: list[str] = []

    answers = [
        Quote(amount=Decimal(2), asked_at=AT),
        Quote(amount=Decimal(1), asked_at=AT, unquoted="400: no such duration"),
    ]

    class Failing:
        async def quote(self, asked: Job) -> Quote:
            return answers[int(asked.params["n"])]

    async def main() -> list[Price]:
        quoting = Quotes(Failing(), tell=said.append)
        first, other = job(n=0), job(n=1)
        for each in (first, other):
            quoting.want(each)
        await quoting.fill()
        answers[0] = answers[1]
        quoting._due.clear()
        quoting.want(first)
        await quoting.fill()
        return [Prices(books=(), quotes=quoting.quotes).of(each) for each in (first, other)]

    quoted, listed = asyncio.run(main())
    assert (quoted.micro, listed.micro) == (2_000_000, 1_000_000)
    (line,) = said
    assert "400: no such duration" in line
