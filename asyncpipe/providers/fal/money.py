"""What fal says things cost: unit prices, estimates, the balance, a bill by request; pure.

A price is so much for a unit (an image, a megapixel, a second …), so how many units a job will be
billed for is reckoned here, and what it was billed for comes with its result.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from asyncpipe.errors import KeyRefused, PollFailed, ProviderError, RateLimited, Rejected
from asyncpipe.http import HttpAnswer, retry_after_s
from asyncpipe.jobs import Job
from asyncpipe.pricing import MOST_USD, Quote, outputs_asked
from asyncpipe.providers.fal.answer import FalAnswer, open_answer
from asyncpipe.providers.fal.reader import KEY_REFUSED
from asyncpipe.providers.texts import clean

MOST_IDS = 50
"""So many requests, or endpoints, are asked about at once."""

ADMIN_ONLY = (
    "fal tells it to ADMIN keys only, and this one is none: make one with that scope at "
    "fal.ai/dashboard/keys"
)

_LONGEST_AMOUNT = 40

_MEGA = Decimal(1_000_000)

_SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""fal's names for sizes of pictures, as its documents have them."""

_EACH = frozenset({"image", "video", "request", "generation", "call", "run", "song", "file"})
"""Units of which an output is one."""

_TIMES = {"second": Decimal(1), "sec": Decimal(1), "minute": Decimal(60), "min": Decimal(60)}

_CHARACTERS = re.compile(r"(?:(?P<thousand>1k|1,?000|thousand) )?character")

_SECONDS = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*s?\s*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitPrice:
    """USD for one ``unit``, which is fal's own word in lower case and singular."""

    amount: Decimal
    unit: str


def read_prices(answer: HttpAnswer) -> Mapping[str, UnitPrice]:
    """Read a list of prices: by endpoint, those in USD that are amounts.

    Raises as ``refusal_of`` does.
    """
    rows = _document(answer, "prices").get("prices")
    found: dict[str, UnitPrice] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        name, unit, usd = row.get("endpoint_id"), row.get("unit"), _amount(row.get("unit_price"))
        in_usd = str(row.get("currency", "USD")).strip().lower() == "usd"
        if isinstance(name, str) and isinstance(unit, str) and usd is not None and in_usd:
            found[name] = UnitPrice(amount=usd, unit=_singular(clean(unit, 40).lower()))
    return found


def quote_by_unit(job: Job, price: UnitPrice, *, at: datetime) -> Quote | None:
    """What a job will cost by the price of a unit; None where nobody can say how many there are.

    It is an estimate: only the result tells the units. Raises Rejected for a price of 0, which
    says of itself not what it means.
    """
    if price.amount == 0:
        raise Rejected(
            f"fal says that a {price.unit} costs 0 USD; if the model is free, write per_job: 0 in "
            "prices:"
        )
    units = units_asked(job, price.unit)
    if units is None:
        return None
    return Quote(amount=price.amount * units, asked_at=at, estimated=True)


def read_estimate(answer: HttpAnswer, *, at: datetime) -> Quote:
    """Read what one call has cost on average. Raises as ``refusal_of`` does, Rejected for none."""
    document = _document(answer, "an estimate")
    usd = _amount(document.get("total_cost"))
    if usd is None or usd == 0 or str(document.get("currency", "USD")).strip().lower() != "usd":
        raise Rejected("fal's estimate is no amount of USD above 0", status=answer.status)
    return Quote(amount=usd, asked_at=at, estimated=True)


def units_asked(job: Job, unit: str) -> Decimal | None:
    """How many units a job asks for; None where it does not say, or the unit is another one."""
    outputs = Decimal(outputs_asked(job) or 1)
    if unit in _EACH:
        return outputs
    if unit in ("megapixel", "mp"):
        pixels = _pixels(job)
        return None if pixels is None else outputs * max(pixels / _MEGA, Decimal(1))
    if unit in _TIMES:
        seconds = _seconds(job.params.get("duration"))
        return None if seconds is None else outputs * seconds / _TIMES[unit]
    if (told := _CHARACTERS.fullmatch(unit)) is not None:
        return Decimal(_length(job)) / (1000 if told["thousand"] else 1)
    return None


def _singular(unit: str) -> str:
    return unit[:-1] if unit.endswith("s") else unit


def _pixels(job: Job) -> Decimal | None:
    size = job.params.get("image_size")
    if isinstance(size, str):
        sides: tuple[Any, Any] = _SIZES.get(size, (None, None))
    else:
        place = size if isinstance(size, Mapping) else job.params
        sides = place.get("width"), place.get("height")
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in sides):
        return None
    width, height = sides
    return Decimal(width * height) if width > 0 and height > 0 else None


def _seconds(value: Any) -> Decimal | None:
    """A duration, as a number or as text: 5, "5", "5s"; None for "auto" and the like."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    told = _SECONDS.fullmatch(str(value))
    return Decimal(told[1]) if told and Decimal(told[1]) > 0 else None


def _length(job: Job) -> int:
    text = job.params.get("text")
    return max(len(job.prompt) + (len(text) if isinstance(text, str) else 0), 1)


# -- the account --------------------------------------------------------------------------------


def read_balance(answer: HttpAnswer) -> Decimal:
    """USD the account has left, 0 where it owes some. Raises as ``refusal_of`` does."""
    credits = _document(answer, "the balance").get("credits")
    told = credits if isinstance(credits, dict) else {}
    usd = _amount(told.get("current_balance"), owed=True)
    if usd is None or str(told.get("currency", "USD")).strip().lower() != "usd":
        raise ProviderError("fal's balance is no amount of USD", status=answer.status)
    return max(usd, Decimal(0))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChargesPage:
    """One answer: USD by request, and where the next page is, or None."""

    charged: Mapping[str, Decimal]
    cursor: str | None


def read_bills(answer: HttpAnswer) -> ChargesPage:
    """Read one page of billing events. Raises as ``refusal_of`` does."""
    document = _document(answer, "the bill")
    rows = document.get("billing_events")
    if not isinstance(rows, list):
        raise ProviderError("fal's bill holds no list of charges", status=answer.status)
    charged: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        name = row.get("request_id") if isinstance(row, dict) else None
        usd = _amount(row.get("cost_total"), owed=True) if isinstance(row, dict) else None
        if not isinstance(name, str) or usd is None:
            raise ProviderError(
                "a row of fal's bill names no request or no amount", status=answer.status
            )
        charged[name] += usd
    return ChargesPage(charged=dict(charged), cursor=cursor_in(document))


def cursor_in(document: Mapping[str, Any]) -> str | None:
    """Where the next page of a list is; None after the last one.

    Raises ProviderError where it says there is more and not where.
    """
    cursor, more = document.get("next_cursor"), document.get("has_more")
    if isinstance(cursor, str) and cursor and more is not False:
        return cursor
    if more:
        raise ProviderError("a list of fal's says that there is more of it, and not where")
    return None


def refusal_of(answer: FalAnswer, what: str) -> ProviderError:
    """What an answer that holds no money comes down to.

    KeyRefused, Rejected where fal has none of this, RateLimited, or ProviderError.
    """
    said = f": {answer.said}" if answer.said else ""
    text = clean(f"fal does not tell {what} ({answer.status}{said})")
    told: dict[str, Any] = {"status": answer.status, "request_id": answer.request_id}
    if answer.status == 401:
        return KeyRefused(clean(f"{KEY_REFUSED} (401{said})"), **told)
    if answer.status == 403:
        return ProviderError(f"{text}; {ADMIN_ONLY}", **told)
    if answer.status == 429:
        wish_s = retry_after_s(answer.headers)
        return RateLimited(text, request_id=answer.request_id, retry_after_s=wish_s)
    if 400 <= answer.status < 500 and answer.status != 408:
        return Rejected(text, **told)
    return ProviderError(text, **told)


def _document(answer: HttpAnswer, what: str) -> Mapping[str, Any]:
    """The JSON of an answer, its numbers as they were written. Raises as ``refusal_of`` does."""
    if not 200 <= answer.status < 300:
        raise refusal_of(open_answer(answer.status, answer.headers, answer.body), what)
    try:
        document = json.loads(answer.body.decode("utf-8-sig", "replace"), parse_float=Decimal)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise PollFailed(f"{what} cannot be read: it is not JSON", status=answer.status)
    return document


def _amount(value: Any, *, owed: bool = False) -> Decimal | None:
    """An amount of USD, spelled as a number or as text; ``owed``: it may be below 0."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        text = str(value).strip()
        amount = Decimal(text) if len(text) <= _LONGEST_AMOUNT else None
    except (InvalidOperation, ValueError):  # ValueError: an integer of thousands of digits
        return None
    if amount is None or not amount.is_finite() or abs(amount) > MOST_USD:
        return None
    return amount if owed or amount >= 0 else None


def batches(ids: Collection[str]) -> list[list[str]]:
    """``ids``, each once, as many at a time as may be asked about."""
    each = sorted(set(ids))
    return [each[start : start + MOST_IDS] for start in range(0, len(each), MOST_IDS)]
