"""The price of one job."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Job, JobType
from asyncpipe.pricing.money import MOST_USD, from_micro, to_micro
from asyncpipe.pricing.quotes import Quote, QuoteBook, price_key
from asyncpipe.pricing.rates import PriceBook, Rate, features_of

ASSUMED_DURATION_S = 5
"""Seconds a video is priced as when its job does not say: what the article's program asked for."""

OUTPUT_COUNTS = ("num_images", "n", "num_outputs", "max_images")
"""Fields that ask for several outputs, by model; each output is paid for."""

EXACT_COUNTS = ("num_images", "n", "num_outputs", "num_videos")
"""Fields that say how many there will be, and not at most."""

_SECONDS = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*s?\s*", re.ASCII)

_PLAIN_KEY = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)


class Unpriced(UsageError):
    """No price book can price the job: without a price no cost can be told and no budget held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What one job costs; ``amount`` in USD, ``micro`` the same in micro-dollars.

    ``source`` names the price book; ``assumed`` what the job did not say, e.g. ``duration 5 s``.
    ``estimated``: the provider itself only estimates it, so ``margin`` micro-dollars more are
    reserved; what is booked for a delivered prediction is ``micro`` all the same.
    """

    amount: Decimal
    micro: int
    source: str
    assumed: tuple[str, ...] = ()
    estimated: bool = False
    margin: int = 0

    @property
    def to_reserve(self) -> int:
        """Micro-dollars to keep back before the submit."""
        return self.micro + self.margin


def price(job: Job, books: Sequence[PriceBook]) -> Price:
    """Price ``job`` by the first of ``books`` that knows its model.

    A video without a duration in seconds counts as 5 s, which ``assumed`` then says. Whatever the
    unit, the price is multiplied by ``num_images``, ``n`` or ``max_images``: each output is paid
    for. Of several the largest counts, and of several tiers that a job leaves open the dearest, so
    that a reservation is never too small.

    Raises Unpriced for a model no book knows, and for a job no tier or no rate fits (``per_image``
    for a video; ``per_second`` for an image without duration): a quote may still price it.
    """
    for book in books:
        rate = book.rates.get(job.model)
        if rate is not None:
            return _of_book(job, rate, book)
    raise Unpriced(_no_price(job, books))


def _of_book(job: Job, rate: Rate, book: PriceBook) -> Price:
    found = [_priced(job, each, book.title, unsaid) for each, unsaid in _fitting(job, rate)]
    if not found:
        raise Unpriced(_no_tier(job, book))
    return max(found, key=lambda each: each.micro)


def _fitting(job: Job, rate: Rate) -> Iterator[tuple[Rate, tuple[str, ...]]]:
    """The rates that may hold for a job, up to the first that does, with what it leaves open."""
    features = features_of(job.params)
    for tier in rate.tiers:
        unsaid = tier.open_conditions(features)
        if unsaid is not None:
            yield tier.rate, unsaid
        if unsaid == ():
            return
    if rate.unit is not None:
        yield rate, ()


def _priced(job: Job, rate: Rate, source: str, unsaid: tuple[str, ...]) -> Price:
    outputs, assumed_outputs = _outputs(job)
    seconds, assumed_seconds = _seconds(job, rate)
    amount = rate.amount
    if amount * seconds * outputs > MOST_USD:
        raise UsageError(
            f"model {job.model!r}: {rate.amount} USD {rate.unit} x {seconds} x {outputs} is more "
            f"than {MOST_USD} USD for one job: check the price, the duration and the count"
        )
    micro = to_micro(amount * seconds * outputs)
    return Price(
        amount=from_micro(micro),
        micro=micro,
        source=source,
        assumed=(*assumed_seconds, *assumed_outputs, *unsaid),
    )


def _outputs(job: Job) -> tuple[int, tuple[str, ...]]:
    """How many outputs the job asks for, and what had to be assumed to say so."""
    given = {name: job.params[name] for name in OUTPUT_COUNTS if name in job.params}
    counts = [count for value in given.values() if (count := _count(value)) is not None]
    if counts or not given:
        return max(counts, default=1), ()
    return 1, (f"{next(iter(given))} 1",)


def outputs_asked(job: Job) -> int | None:
    """How many outputs a job asks for; None where it says none, or only at most how many."""
    exact = [count for name in EXACT_COUNTS if (count := _count(job.params.get(name))) is not None]
    return max(exact, default=None)


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and value > 0 else None


def _seconds(job: Job, rate: Rate) -> tuple[Decimal, tuple[str, ...]]:
    """What the rate is multiplied by on account of time, and what had to be assumed."""
    if rate.unit == "per_image" and job.kind is not JobType.IMAGE:
        raise Unpriced(
            f"model {job.model!r} has a price per_image, but the job makes {_a(job.kind)}: "
            "give it per_second or per_job"
        )
    if rate.unit != "per_second":
        return Decimal(1), ()
    least = rate.least_s or Decimal(0)
    seconds = _duration(job.params.get("duration"))
    if seconds is not None:
        return max(seconds, least), ()
    if job.kind is not JobType.VIDEO:
        raise Unpriced(
            f"model {job.model!r} has a price per_second, but the job makes {_a(job.kind)} "
            f"and has no duration: {_REMEDIES[job.kind]}"
        )
    assumed = max(Decimal(ASSUMED_DURATION_S), least)
    return assumed, (f"duration {assumed} s",)


def _a(kind: JobType) -> str:
    return {JobType.IMAGE: "an image", JobType.VIDEO: "a video"}.get(kind, "audio")


# How long speech or a song becomes, nobody can assume: a reservation would be a guess.
_REMEDIES = {
    JobType.IMAGE: "give it per_image or per_job",
    JobType.AUDIO: "give it per_job, or the job a duration in seconds",
}


_USUAL_UNITS = {JobType.IMAGE: "per_image", JobType.VIDEO: "per_second"}
"""Units that price every job of a type, whatever it says."""


def _duration(value: Any) -> Decimal | None:
    """The seconds that ``value`` says, or None: absent, ``auto``, -1 (automatic), nonsense."""
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value)
        value = match[1] if match else None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    seconds = Decimal(str(value))
    return seconds if seconds.is_finite() and seconds > 0 else None


def _no_price(job: Job, books: Sequence[PriceBook]) -> str:
    model = job.model if _PLAIN_KEY.fullmatch(job.model) else json.dumps(job.model)
    rates = {JobType.IMAGE: "per_image: 0.04", JobType.VIDEO: "per_second: 0.10"}
    rate = rates.get(job.kind, "per_job: 0.15")
    known = [name for book in books for name in book.rates]
    meant = difflib.get_close_matches(job.model, known, n=1, cutoff=0.75)
    hint = f" (a price is known for {meant[0]!r})" if meant else ""
    return (
        f"model {job.model!r} has no known price{hint}. Look it up at your provider and add it, "
        f"in USD, to the job file:\nprices:\n  {model}: {{{rate}}}"
    )


def _no_tier(job: Job, book: PriceBook) -> str:
    says = str(features_of(job.params)) or "no resolution, audio or size"
    return (
        f"model {job.model!r} has no tier for {says} in the {book.title}: add one, or a rate "
        "beside tiers: for all others"
    )


ESTIMATE_FACTOR = Decimal("1.25")
"""How many times an estimated quote is reserved unless the user says otherwise."""

MOST_FACTOR = 100

_MOST_KEPT = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Price jobs by the provider's quote where there is one, else by the first book that can.

    At last by what the provider lists for the model.

    Of a quote that the provider itself calls an estimate, ``estimate_factor`` times as much is
    reserved. Raises UsageError for a factor that is no Decimal of 1 or more.
    """

    books: tuple[PriceBook, ...]
    quotes: QuoteBook = field(default_factory=QuoteBook)
    estimate_factor: Decimal = ESTIMATE_FACTOR
    _known: dict[bytes, Price] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        factor: object = self.estimate_factor
        if not isinstance(factor, Decimal) or not (
            factor.is_finite() and 1 <= factor <= MOST_FACTOR
        ):
            raise UsageError(
                f"estimate_factor: {factor!r} must be a Decimal from 1 to {MOST_FACTOR}, "
                'e.g. Decimal("1.25")'
            )

    def of(self, job: Job) -> Price:
        """Price one job; raises Unpriced and UsageError as ``price`` does.

        Jobs of one price key cost the same by tables, too: a million rows are priced a few times.
        """
        key = price_key(job)
        quote = self.quotes.by_key(key)
        if quote is not None and not quote.listed:
            return self._quoted(quote)
        try:
            return self._by_table(key, job)
        except Unpriced:
            if quote is None:
                raise
            return self._quoted(quote)

    def _by_table(self, key: bytes, job: Job) -> Price:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            known = self._known[key] = price(job, self.books)
        return known

    def lacks(self, job: Job) -> bool:
        """Whether only a quote could price a job."""
        rates = [book.rates[job.model] for book in self.books if job.model in book.rates]
        if rates and rates[0].unit in ("per_job", _USUAL_UNITS.get(job.kind)):
            return False  # at once, for a million rows: it holds where no tier does
        try:
            self._by_table(price_key(job), job)
        except Unpriced:
            return True
        return False

    def _quoted(self, quote: Quote) -> Price:
        micro = to_micro(quote.amount)
        margin = Decimal(0)
        if quote.estimated:
            margin = (micro * (self.estimate_factor - 1)).to_integral_value(rounding=ROUND_CEILING)
        what = "list price" if quote.listed else "quote"
        return Price(
            amount=from_micro(micro),
            micro=micro,
            source=f"provider {what} of {quote.asked_at.date()}",
            estimated=quote.estimated,
            margin=int(margin),
        )
