"""What the catalogue's price of a model makes of a job, where the API quotes nothing; pure."""

from __future__ import annotations

from datetime import datetime

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Job, JobType
from asyncpipe.pricing import PriceBook, Prices, Quote, Rate
from asyncpipe.providers.catalog import CatalogModel

_CHARACTERS = 1000


def listed_quote(job: Job, model: CatalogModel, *, at: datetime, why: str) -> Quote | None:
    """An estimate by the unit that the catalogue tells; None where it tells none that fits.

    The catalogue's price may be that of the cheapest tier. ``why`` is why there is no quote.
    """
    rate = _rate(job, model)
    if rate is None:
        return None
    try:
        book = PriceBook(rates={job.model: rate}, source="catalogue")
        found = Prices(books=(book,)).of(job)
    except UsageError:  # so much a second, and nobody says how many there will be
        return None
    return Quote(
        amount=found.amount, asked_at=at, estimated=True, unquoted=why, free=model.base_price == 0
    )


def _rate(job: Job, model: CatalogModel) -> Rate | None:
    usd, unit = model.base_price, model.unit
    if usd is None or unit is None:
        return None
    if unit in ("second", "minute"):
        per_second = usd if unit == "second" else usd / 60
        return Rate(per_second=per_second, least_s=model.least_s)
    if unit == "1k_chars":
        return Rate(per_job=usd * -(-_length(job) // _CHARACTERS))
    if unit == "image" and job.kind is JobType.IMAGE:
        return Rate(per_image=usd)
    return Rate(per_job=usd)  # for a generation; a model of three dimensions makes no image, either


def _length(job: Job) -> int:
    """How many characters are to be spoken, at least 1."""
    spoken = job.params.get("text")
    texts = [job.prompt, spoken if isinstance(spoken, str) else ""]
    return max(sum(map(len, texts)), 1)
