"""Prices by resolution, sound and size."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from asyncpipe import Job, Rate, UsageError
from asyncpipe.pricing.price import Unpriced, price
from asyncpipe.pricing.rates import PriceBook, Tier
from asyncpipe.providers.atlas.prices import built_in

VEO = "google/veo3.1/text-to-video"
D = Decimal
TODAY = Rate(
    per_second=D("0.20"),
    tiers=(
        Tier(rate=Rate(per_second=D("0.60")), resolution="4k", audio=True),
        Tier(rate=Rate(per_second=D("0.40")), resolution="4k", audio=False),
        Tier(rate=Rate(per_second=D("0.40")), audio=True),
    ),
)


"""Veo 3.1 as it was quoted on 2026-09-29."""


def cost(rate: Rate, **params: Any) -> tuple[str, tuple[str, ...]]:
    book = PriceBook(rates={VEO: rate}, source="test")
    found = price(Job(model=VEO, prompt="p", params=params), [book, built_in()])
    return str(found.amount.normalize()), found.assumed


@pytest.mark.parametrize(
    ("params", "usd"),
    [
        ({"generate_audio": False}, "1.6"),
        ({"generate_audio": True}, "3.2"),
        ({"generate_audio": True, "resolution": "1080p"}, "3.2"),
        ({"audio": False, "resolution": "4K"}, "3.2"),
        ({"sound": "on", "resolution": " 4k"}, "4.8"),
        ({"with_audio": True, "resolution": "4k", "num_images": 2}, "9.6"),
    ],
)
def test_the_first_tier_that_fits_decides(params: dict[str, Any], usd: str) -> None:
    """However models spell sound, and whatever the case of a resolution."""
    resolution = {"resolution": "720p", **params}
    assert cost(TODAY, duration=8, **resolution) == (usd, ())


def test_what_a_job_leaves_open_is_priced_at_its_dearest_and_said() -> None:
    """Sound is on by default at some models: a reservation must not be too small."""
    assert cost(TODAY, duration=8) == ("4.8", ("resolution 4k", "audio true"))
    assert cost(TODAY, duration=8, resolution="720p") == ("3.2", ("audio true",))
    assert cost(TODAY, duration=8, resolution="4k") == ("4.8", ("audio true",))
    assert cost(TODAY, duration=8, generate_audio=False) == ("3.2", ("resolution 4k",))


SIZES = Rate(
    tiers=(
        Tier(rate=Rate(per_job=D("0.02")), size="512x512"),
        Tier(rate=Rate(per_job=D("0.08")), size="1024*1024"),
    )
)


@pytest.mark.parametrize(
    ("params", "usd"),
    [
        ({"size": "512x512"}, "0.02"),
        ({"size": "1024*1024"}, "0.08"),
        ({"size": "1024X1024"}, "0.08"),
        ({"width": 512, "height": 512}, "0.02"),
    ],
)
def test_sizes_are_compared_as_width_and_height(params: dict[str, Any], usd: str) -> None:
    assert cost(SIZES, **params) == (usd, ())


def test_the_dearest_counts_wherever_it_stands() -> None:
    """A size that nobody names may be the last one listed."""
    assert cost(SIZES) == ("0.08", ("size 1024x1024",))


def test_a_job_no_tier_fits_is_refused_not_priced_by_an_older_table() -> None:
    """The built-in table knows Veo; its price would be that of another resolution."""
    with pytest.raises(Unpriced, match=r"no tier for size 2048x2048 in the test: add one, or a"):
        cost(SIZES, size="2048x2048", duration=8)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Rate, "exactly one of"),
        (lambda: Rate(per_job=D(1), per_image=D(1), tiers=TODAY.tiers), "exactly one of"),
        (lambda: Tier(rate=Rate(per_job=D(1))), "at least one of"),
        (lambda: Tier(rate=TODAY, audio=True), "no tiers of its own"),
        (lambda: Tier(rate=Rate(per_job=D(1)), size="big"), "width x height"),
    ],
)
def test_tiers_that_mean_nothing_cannot_be_made(make: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make()
