"""Atlas Cloud's quotes: what ``POST /model/calculate`` answers, read exactly; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from asyncpipe.errors import BalanceExhausted, KeyRefused, ProviderError, RateLimited, Rejected
from asyncpipe.http import retry_after_s
from asyncpipe.pricing import MOST_USD, Quote
from asyncpipe.providers.atlas.answer import ApiAnswer, open_answer
from asyncpipe.providers.texts import clean

_AMOUNTS = ("price", "origin_price")

_LONGEST_AMOUNT = 40


class QuotedNothing(Rejected):
    """A quote of 0 USD: it would hold no budget, and says of itself not what it means."""


def read_quote(
    status: int, headers: Mapping[str, str], body: bytes, *, at: datetime, free: bool = False
) -> Quote:
    """Read the answer to a request for a quote, made ``at``.

    Raises Rejected when the API has no quote for this very request, KeyRefused or
    BalanceExhausted when it will have none at all, RateLimited, or ProviderError for an answer
    that is none. A price of 0 raises QuotedNothing, unless the model is known to be ``free``.
    """
    answer = open_answer(status, headers, body)
    if answer.code != 200:
        raise _refusal(answer)
    fields = _fields(body)
    currency = fields.get("currency", "usd")
    if not isinstance(currency, str) or currency.strip().lower() != "usd":
        raise _none(answer, f"it is in {clean(str(currency), 20)!r}, not in USD")
    amount = _amount(fields.get("price"))
    if amount is None:
        raise _none(answer, _no_amount(fields.get("price")))
    if amount == 0 and not free:
        why = "it says 0 USD; if the model is free, write per_job: 0 in prices:"
        raise _none(answer, why, QuotedNothing)
    return Quote(
        amount=amount,
        free=amount == 0,
        asked_at=at,
        # Anything but a plain no: an estimate taken for a price is a budget that leaks.
        estimated=fields.get("estimated", False) not in (False, None, "false", 0),
        list_amount=_amount(fields.get("origin_price")),
    )


def _fields(body: bytes) -> Mapping[str, Any]:
    """The object under ``data``, or the answer itself; its numbers are as they were written."""
    try:
        document = json.loads(body.decode("utf-8-sig", "replace"), parse_float=Decimal)
    except (ValueError, RecursionError):
        return {}
    inner = document.get("data") if isinstance(document, dict) else None
    found = inner if isinstance(inner, dict) else document
    return found if isinstance(found, dict) else {}


def _amount(value: Any) -> Decimal | None:
    """An amount of USD, spelled as a number or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        text = str(value).strip()
        amount = Decimal(text) if len(text) <= _LONGEST_AMOUNT else None
    except (InvalidOperation, ValueError):  # ValueError: an integer of thousands of digits
        return None
    return amount if amount is not None and amount.is_finite() and 0 <= amount <= MOST_USD else None


def _no_amount(value: Any) -> str:
    if value is None:
        return "it names no price"
    spelled = isinstance(value, str | int | Decimal) and not isinstance(value, bool)
    return (
        f"its price {clean(str(value), 40)!r} is no amount" if spelled else "its price is no amount"
    )


def _none(answer: ApiAnswer, why: str, kind: type[Rejected] = Rejected) -> Rejected:
    return kind(
        f"the API's quote is none: {why}", status=answer.status, request_id=answer.request_id
    )


def _refusal(answer: ApiAnswer) -> ProviderError:
    said = f": {answer.said}" if answer.said else ""
    shown = f"HTTP {answer.status}"
    if answer.code != answer.status:
        shown += f", code {answer.code}"
    text = clean(f"the API gives no quote ({shown}{said})")
    kind: type[ProviderError] = ProviderError
    if answer.code == 401:
        kind = KeyRefused
        text = clean(
            f"the API gives no quote: it refuses the key, or the base URL is wrong ({shown}{said})"
        )
    elif answer.code == 402:
        kind = BalanceExhausted
    elif answer.code == 429:
        wish_s = retry_after_s(answer.headers)
        return RateLimited(text, request_id=answer.request_id, retry_after_s=wish_s)
    elif 400 <= answer.code < 500 and answer.code != 408 and answer.document is not None:
        kind = Rejected
    return kind(text, status=answer.status, request_id=answer.request_id)
