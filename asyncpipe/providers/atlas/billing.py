"""Atlas Cloud's bill and balance: ``/public/v1``, asked page by page, read exactly.

The bill is daily and aggregated: it says per model and day what was charged, never per job
(atlas-api §5). Reading is pure; only ``read_bill`` asks.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

from asyncpipe._tasks import Retries, once_more, retrying
from asyncpipe.errors import KeyRefused, PollFailed, ProviderError
from asyncpipe.http import HttpAnswer, header, retry_after_s
from asyncpipe.pricing import Bill, BilledDay
from asyncpipe.providers.atlas.fields import identifier, number
from asyncpipe.providers.texts import clean, read_json

LONGEST_RANGE = timedelta(days=180)
"""The most days one request may ask for."""

ROWS_PER_PAGE = 1000

RETRIES = Retries(attempts=5, initial_s=1.0)
"""How often one page is asked for when the API is busy or failing."""

LONGEST_WAIT_S = 60.0
"""The longest Retry-After that is waited for; beyond it the user is told to come back."""

_MOST_PAGES = 10_000

_MOST_USD = Decimal(10) ** 12

_SMALLEST_EXPONENT = -30

_BUSY = frozenset({429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

_ACCOUNT_IDS = ("id", "account_id", "accountId")

_COUNTS = ("requests", "request_count", "num_requests", "num_model_requests", "count")

_MODEL_NAMES = ("model", "model_id", "model_name", "id", "name")


@dataclass(frozen=True, kw_only=True, slots=True)
class BillPage:
    """One answer: some days, and the page that follows, or None."""

    days: tuple[BilledDay, ...]
    next_page: str | None


class Account(Protocol):
    """What is asked: AtlasCloud, or a test's stand-in."""

    async def ask_account(self, path: str) -> HttpAnswer:
        """Ask ``/public/v1`` once."""


async def read_bill(account: Account, days: Iterable[date]) -> Bill:
    """Ask for the bill of ``days`` (UTC) for the account's key, following every page.

    And how many requests are counted, where that is told. Raises KeyRefused, or ProviderError when
    the bill cannot be had or makes no sense.
    """
    days = sorted(set(days))
    amounts: defaultdict[date, defaultdict[str, Decimal]] = defaultdict(
        lambda: defaultdict(Decimal)
    )
    told: dict[date, BilledDay] = {}
    for first, end in ranges(days):
        async for day in _days(account, first, end):
            if not first <= day.day < end:
                raise _nonsense(f"it was asked for {first} to {end} and answers {day.day}")
            for model, amount in day.amounts.items():
                amounts[day.day][model] += amount
            told[day.day] = _both(told.get(day.day), day)
    return Bill(
        days={
            at: BilledDay(
                day=at,
                amounts=dict(amounts[at]),
                covered_until=day.covered_until,
                partial=day.partial,
            )
            for at, day in sorted(told.items())
        },
        requests=await _requests(account, days),
    )


async def _requests(account: Account, days: Iterable[date]) -> dict[str, int] | None:
    """How many requests of each model are counted on ``days``; None where nobody says."""
    counted: defaultdict[str, int] = defaultdict(int)
    wanted = set(days)
    try:
        for first, end in ranges(wanted):
            async for day in _days(account, first, end, USAGE):
                for model, count in day.amounts.items() if day.day in wanted else ():
                    counted[model] += int(count)
    except ProviderError:  # an older API has none; the bill speaks for itself
        return None
    return dict(counted)


def ranges(days: Iterable[date]) -> Iterator[tuple[date, date]]:
    """Cover ``days`` with few ranges of at most 180 days, each (first, end exclusive)."""
    left = sorted(set(days))
    while left:
        first = left[0]
        inside = [day for day in left if day - first < LONGEST_RANGE]
        yield first, inside[-1] + timedelta(days=1)
        left = left[len(inside) :]


COSTS, USAGE = "/model-costs", "/model-usage"
"""What is told by day: money, and requests."""


def page_path(what: str, first: date, end: date, page: str | None = None) -> str:
    """The path and query of one page.

    Models are not filtered by the API: what it spells otherwise than the run did would vanish.
    """
    query: list[tuple[str, str]] = [
        ("start_date", first.isoformat()),
        ("end_date", end.isoformat()),
        ("scope", "self"),
        ("group_by[]", "model"),
        ("limit", str(ROWS_PER_PAGE)),
    ]
    return f"{what}?{urlencode([*query, *([('page', page)] if page else [])])}"


async def _days(
    account: Account, first: date, end: date, what: str = COSTS
) -> AsyncIterator[BilledDay]:
    page: str | None = None
    seen: set[str] = set()
    for _ in range(_MOST_PAGES):
        path = page_path(what, first, end, page)
        found = await once_more(partial(_page, account, path, what), pause_s=1.0)
        for day in found.days:
            yield day
        page = found.next_page
        if page is None:
            return
        if page in seen:
            raise _nonsense("its pages go in circles")
        seen.add(page)
    raise _nonsense(f"it has more than {_MOST_PAGES} pages")


async def _page(account: Account, path: str, what: str) -> BillPage:
    return read_page(await _ask(account, path), what)


class _Busy(PollFailed):
    """The API answered that it cannot now."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(f"HTTP {answer.status}", retry_after_s=retry_after_s(answer.headers))
        self.answer = answer


async def _ask(account: Account, path: str) -> HttpAnswer:
    """Ask for one page; wait and ask again while the API is busy. A GET costs nothing."""

    async def once() -> HttpAnswer:
        answer = await account.ask_account(path)
        if answer.status in _BUSY:
            raise _Busy(answer)
        return answer

    try:
        return await retrying(once, RETRIES, on=PollFailed, again=_soon)
    except _Busy as exc:
        raise _refusal(exc.answer, exc.retry_after_s) from None
    except PollFailed as exc:
        raise ProviderError(f"the bill cannot be read: {exc}") from None


def _soon(error: PollFailed) -> bool:
    return (error.retry_after_s or 0.0) <= LONGEST_WAIT_S


def read_page(answer: HttpAnswer, what: str = COSTS) -> BillPage:
    """Read one answer; raises KeyRefused or ProviderError for anything but a page of a bill.

    Of USAGE the amounts are numbers of requests.
    """
    if not 200 <= answer.status < 300:
        raise _refusal(answer, None)
    try:
        document = json.loads(answer.body.decode("utf-8-sig"), parse_float=Decimal)
        if not isinstance(document, dict) or not isinstance(document.get("data"), list):
            raise _nonsense("it holds no list of days")
        tell = _cost if what == COSTS else _count
        days = tuple(_day(bucket, tell) for bucket in document["data"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise _nonsense(f"{type(exc).__name__}: {clean(str(exc), 120)}") from None
    page = document.get("next_page")
    if document.get("has_more") and page in (None, ""):
        raise _nonsense("it says there is more and not where")
    more = page not in (None, "") and document.get("has_more", True)
    return BillPage(days=days, next_page=str(page) if more else None)


def read_balance(answer: HttpAnswer) -> Decimal:
    """USD available, from the answer to ``GET /public/v1/balance``.

    Raises KeyRefused or ProviderError for anything but a balance.
    """
    if not 200 <= answer.status < 300:
        raise _refusal(answer, None, what="the balance")
    try:
        document = json.loads(answer.body.decode("utf-8-sig"), parse_float=Decimal)
        return _amount(document["available"], what="balance")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        why = f"{type(exc).__name__}: {clean(str(exc), 120)}"
    raise ProviderError(f"the balance cannot be read: {why}")


def read_account(answer: HttpAnswer) -> str:
    """The id of the account that a balance is of, from the same answer.

    Raises KeyRefused or ProviderError where it is not told.
    """
    if not 200 <= answer.status < 300:
        raise _refusal(answer, None, what="the account")
    document = read_json(answer.body) or {}
    for layer in (document.get("data"), document):
        account = layer.get("account") if isinstance(layer, dict) else None
        if isinstance(account, dict) and (name := identifier(account, _ACCOUNT_IDS)):
            return name
    raise ProviderError("the balance names no account", status=answer.status)


def _cost(row: Mapping[str, Any]) -> Decimal:
    return _amount(row["amount"])


def _count(row: Mapping[str, Any]) -> Decimal:
    told = (number(str(row.get(name)).removesuffix(".0")) for name in _COUNTS)
    count = next((each for each in told if each is not None and each >= 0), None)
    if count is None:
        raise _nonsense("a row tells no number of requests")
    return Decimal(count)


def _day(bucket: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], Decimal]) -> BilledDay:
    at = str(bucket.get("date") or bucket["start_at"])
    amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in bucket["results"]:
        amounts[_model(row)] += tell(row)
    covered = bucket.get("covered_until")
    return BilledDay(
        day=date.fromisoformat(at[:10]),
        amounts=dict(amounts),
        covered_until=_time(covered) if covered else None,
        partial=bool(bucket.get("partial")),
    )


def _time(text: Any) -> datetime:
    time = datetime.fromisoformat(str(text))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _model(row: Mapping[str, Any]) -> str:
    """The row's model; "" if it names none. How the row names it is not documented exactly."""
    for name in _MODEL_NAMES[:3]:
        value = row.get(name)
        if isinstance(value, dict):
            value = next((value[key] for key in _MODEL_NAMES[1:] if value.get(key)), None)
        if isinstance(value, str) and value:
            return value
    return ""


def _amount(amount: Mapping[str, Any], *, what: str = "bill the API sent") -> Decimal:
    currency = str(amount.get("currency", "usd"))
    if currency.lower() != "usd":
        raise _nonsense(f"it is in {clean(currency, 20)}, not in USD", what)
    try:
        value = Decimal(str(amount["value"]))
    except InvalidOperation:
        raise _nonsense(f"{clean(str(amount['value']), 40)!r} is no amount", what) from None
    exponent = value.as_tuple().exponent
    small = not isinstance(exponent, int) or exponent < _SMALLEST_EXPONENT
    if not value.is_finite() or abs(value) > _MOST_USD or small:
        raise _nonsense(f"{clean(str(amount['value']), 40)!r} is no amount", what)
    return value


def _both(one: BilledDay | None, other: BilledDay) -> BilledDay:
    """What two parts of one day say of how far the bill knows it: the less certain of each."""
    if one is None:
        return other
    known = [at for at in (one.covered_until, other.covered_until) if at is not None]
    return BilledDay(
        day=one.day,
        amounts={},
        covered_until=min(known, default=None),
        partial=one.partial or other.partial,
    )


def _nonsense(why: str, what: str = "bill the API sent") -> ProviderError:
    return ProviderError(f"the {what} cannot be read: {why}")


_WORDS = {
    400: "it does not take the request",
    402: "the account's balance or plan is used up",
    403: "this key may not read it",
    404: "there is no billing API at this base URL",
    429: "it has had too many requests",
}


def _refusal(answer: HttpAnswer, wish_s: float | None, *, what: str = "the bill") -> ProviderError:
    """What an answer that is no page comes down to, in the API's own words where it has any."""
    said, trace = _envelope(answer)
    if answer.status == 401:
        return KeyRefused(
            "the billing API refuses the key, or the base URL is wrong: it answers 401 to both"
            + said,
            status=401,
            request_id=trace,
        )
    why = _WORDS.get(answer.status, "it fails" if answer.status >= 500 else "it refuses")
    later = f"; come back in {wish_s:.0f} s" if wish_s and wish_s > LONGEST_WAIT_S else ""
    text = f"{what} cannot be read: {why} (HTTP {answer.status}{said}){later}"
    return ProviderError(text, status=answer.status, request_id=trace)


def _envelope(answer: HttpAnswer) -> tuple[str, str | None]:
    """What ``/public/v1`` says of an error, as ``: words``, and its trace id."""
    document = read_json(answer.body) or {}
    error = document.get("error")
    said = ""
    if isinstance(error, dict):
        words = [error.get("message") or error.get("code") or error.get("type")]
        words += [f"parameter {error['param']}"] if error.get("param") else []
        said = clean(", ".join(str(word) for word in words if word))
    else:
        said = clean(str(document.get("msg") or document.get("message") or ""))
    trace = header(answer.headers, "X-Request-ID") or str(document.get("request_id") or "")
    trace = re.sub(r"\s", "", clean(trace, 200))
    return (f": {said}" if said else ""), trace or None
