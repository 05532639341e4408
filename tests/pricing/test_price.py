"""Prices: the article's figures, what is assumed, and what is refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.errors import UsageError
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.pricing.money import from_micro, to_micro
from asyncpipe.pricing.price import Price, Prices, Unpriced, price
from asyncpipe.pricing.rates import PriceBook, Rate
from asyncpipe.providers.atlas.prices import built_in

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
SEEDANCE = "bytedance/seedance-v1.5-pro/text-to-video"
VEO = "google/veo3.1/text-to-video"


def cost(model: str, rate: Rate | None = None, /, **params: Any) -> Price:
    job_type = None if "-to-" in model else JobType.VIDEO
    job = Job(model=model, prompt="p", type=job_type, params=params)
    books = [PriceBook(rates={model: rate}, source="job file")] if rate else []
    return price(job, [*books, built_in()])


@pytest.mark.parametrize(
    ("model", "params", "usd"),
    [
        (FLUX, {}, "0.04"),
        ("google/imagen4-ultra/text-to-image", {"width": 2048}, "0.06"),
        (SEEDANCE, {"duration": 10}, "0.22"),
        (VEO, {"duration": 8}, "0.24"),
        ("openai/sora-v2/text-to-video", {"duration": 8}, "1.20"),
    ],
)
def test_the_built_in_table_is_the_articles(model: str, params: dict[str, Any], usd: str) -> None:
    """Five models, the article's figures, and the date that says how old they are."""
    found = cost(model, **params)
    assert found.amount == Decimal(usd)
    assert found.micro == to_micro(Decimal(usd))
    assert found.source == "built-in table of 2026-02-28"
    assert found.assumed == ()


@pytest.mark.parametrize("duration", [None, "auto", -1, 0, True, "long", "-5", [8], float("nan")])
def test_a_video_without_seconds_counts_as_five_and_says_so(duration: Any) -> None:
    """Automatic and missing durations are priced as 5 s, marked as assumed."""
    found = cost(SEEDANCE, **({} if duration is None else {"duration": duration}))
    assert found.amount == Decimal("0.11")
    assert found.assumed == ("duration 5 s",)


@pytest.mark.parametrize(("duration", "usd"), [(2.5, "0.055"), ("8", "0.176"), ("8s", "0.176")])
def test_seconds_count_however_they_are_written(duration: Any, usd: str) -> None:
    """Fractions are exact; models that take seconds as text are priced like the others."""
    assert cost(SEEDANCE, duration=duration).amount == Decimal(usd)


@pytest.mark.parametrize("name", ["num_images", "n", "max_images"])
def test_every_output_is_paid_for(name: str) -> None:
    """The price is multiplied by the count the job asks for, whatever the unit."""
    assert cost(FLUX, **{name: 4}).amount == Decimal("0.16")
    assert cost(SEEDANCE, duration=5, **{name: 2}).amount == Decimal("0.22")
    assert cost(VEO, Rate(per_job=Decimal("0.5")), **{name: 3}).amount == Decimal("1.5")


def test_of_several_counts_the_largest_is_reserved() -> None:
    """A reservation is never too small."""
    assert cost(FLUX, n=2, max_images=5).amount == Decimal("0.20")


@pytest.mark.parametrize("count", [0, -1, "many", 1.5, True, None])
def test_a_count_nobody_understands_is_one_and_says_so(count: Any) -> None:
    """What is no positive whole number is priced as one output, marked as assumed."""
    found = cost(FLUX, num_images=count)
    assert found.amount == Decimal("0.04")
    assert found.assumed == ("num_images 1",)


def test_the_first_book_that_knows_the_model_decides() -> None:
    """A job file's price goes before the built-in one, and the price says so."""
    found = cost(FLUX, Rate(per_image=Decimal("0.03")))
    assert (found.amount, found.source) == (Decimal("0.03"), "job file")
    dated = PriceBook(rates={}, source="prices.yaml", as_of=date(2026, 11, 1))
    assert dated.title == "prices.yaml of 2026-11-01"


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("new/model/text-to-image", "  new/model/text-to-image: {per_image: 0.04}"),
        ("new/model/text-to-video", "  new/model/text-to-video: {per_second: 0.10}"),
        ("é: x-to-video", '  "\\u00e9: x-to-video": {per_second: 0.10}'),
    ],
)
def test_an_unknown_model_is_refused_with_lines_to_paste(model: str, line: str) -> None:
    """The remedy is a prices: block for exactly this model."""
    with pytest.raises(Unpriced) as caught:
        cost(model)
    assert str(caught.value).splitlines()[1:] == ["prices:", line]


def test_an_unknown_model_names_the_known_one_it_resembles() -> None:
    """A slip in a model id is told by its neighbour; its price is never taken."""
    with pytest.raises(Unpriced, match=r"a price is known for 'google/veo3.1/text-to-video'"):
        cost("google/veo3.2/text-to-video")


def test_rates_that_do_not_fit_the_job_are_refused() -> None:
    """per_image prices images only; per_second needs seconds, or a video to assume them for."""
    with pytest.raises(UsageError, match="per_second or per_job"):
        cost(VEO, Rate(per_image=Decimal("0.1")), duration=8)
    with pytest.raises(UsageError, match="per_image or per_job"):
        cost(FLUX, Rate(per_second=Decimal("0.1")))
    assert cost(FLUX, Rate(per_second=Decimal("0.1")), duration=5).amount == Decimal("0.5")
    assert cost(FLUX, Rate(per_job=Decimal("0.1"))).amount == Decimal("0.1")


@pytest.mark.parametrize(
    ("kind", "rate", "params", "lacks"),
    [
        (JobType.VIDEO, "per_image", {"duration": 5}, True),
        (JobType.AUDIO, "per_image", {}, True),
        (JobType.IMAGE, "per_second", {}, True),
        (JobType.AUDIO, "per_second", {"text": "你好"}, True),
        (JobType.AUDIO, "per_second", {"duration": 3}, False),
        (JobType.IMAGE, "per_image", {}, False),
        (JobType.VIDEO, "per_second", {}, False),
        (JobType.AUDIO, "per_job", {}, False),
    ],
)
def test_where_a_rate_does_not_fit_the_provider_is_asked(
    kind: JobType, rate: str, params: dict[str, Any], *, lacks: bool
) -> None:
    """Its quote prices a film of a model that a table knows for images."""
    said = {FLUX: Rate(**{rate: Decimal("0.1")})}  # type: ignore[arg-type]
    book = PriceBook(rates=said, source="job file")
    job = Job(model=FLUX, prompt="p", type=kind, params=params)
    assert Prices(books=(book,)).lacks(job) is lacks


def test_an_absurd_price_is_refused() -> None:
    """A duration of ages must not overflow the ledger's integers."""
    with pytest.raises(UsageError, match="more than 1000000000 USD"):
        cost(SEEDANCE, duration=1e300)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"per_image": Decimal(1), "per_job": Decimal(1)},
        {"per_image": Decimal(-1)},
        {"per_image": Decimal("NaN")},
        {"per_image": 0.04},
        {"per_second": True},
    ],
)
def test_a_rate_is_exactly_one_exact_amount(fields: dict[str, Any]) -> None:
    """None, two, negative, not finite or not Decimal: refused."""
    with pytest.raises(UsageError):
        Rate(**fields)


def test_micro_dollars_round_halves_up() -> None:
    """Half a micro-dollar is one; the amount of a price is what was rounded."""
    assert to_micro(Decimal("0.0000005")) == 1
    assert to_micro(Decimal("0.00000049")) == 0
    found = cost(VEO, Rate(per_second=Decimal("0.0000003")), duration=5)
    assert (found.micro, found.amount) == (2, Decimal("0.000002"))


@given(st.integers(min_value=0, max_value=10**15))
def test_micro_dollars_and_usd_are_the_same_money(micro: int) -> None:
    """There and back again nothing is lost."""
    assert to_micro(from_micro(micro)) == micro
