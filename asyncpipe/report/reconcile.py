"""Compare a folder's ledger with the provider's bill: pure.

The bill is daily and per model, so no job can be found in it: whether the sums agree can be
said, and if not, what may be the cause. Models are judged over all days together, since a
prediction near midnight may be booked a day apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from asyncpipe.pricing import Bill, from_micro
from asyncpipe.report.purchases import Entries, Ledgered

_ROUNDING = Decimal("0.0000005")


class Verdict(StrEnum):
    """What came of comparing one model."""

    EQUAL = "equal"
    RESERVED = "explained by what is reserved"
    DIFFERENT = "different"


class CauseKind(StrEnum):
    """Words for programs."""

    UNKNOWN = "unknown"
    OPEN = "open"
    NOT_COVERED = "not_covered"
    COUNT = "count"
    PRICE = "price"
    ESTIMATED = "estimated"
    ASSUMED = "assumed"
    FOREIGN = "foreign"
    GIVEN_UP = "given_up"
    SETTLED_FREE = "settled_free"
    FAILED_CHARGED = "failed_charged"
    RETURNED = "returned"
    MIDNIGHT = "midnight"
    OTHER_KEY = "other_key"
    OTHER_NAME = "other_name"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """What a difference may come from."""

    kind: CauseKind
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """Ledger against bill, in USD; ``billed`` None: the bill says nothing of that day."""

    charged: Decimal
    reserved: Decimal
    billed: Decimal | None

    @property
    def difference(self) -> Decimal:
        """What was billed beyond what the ledger has as charged; negative: less was."""
        return (self.billed or Decimal(0)) - self.charged


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCompared:
    """One model, over all days and day by day; likeliest causes first.

    ``requests`` is how many the provider counts (None: not told), ``predictions`` how many the
    ledger has, failed ones too.
    """

    model: str
    total: Compared
    days: Mapping[date, Compared]
    verdict: Verdict
    causes: tuple[Cause, ...]
    requests: int | None = None
    predictions: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciled:
    """The whole comparison. ``others``: USD of models on the same days that are not the run's."""

    models: tuple[ModelCompared, ...]
    not_covered: tuple[date, ...]
    others: Mapping[str, Decimal]

    @property
    def agrees(self) -> bool:
        """Whether nothing is left to explain."""
        return all(check.verdict is not Verdict.DIFFERENT for check in self.models)


def compare(ledgered: Ledgered, bill: Bill) -> Reconciled:
    """Compare per model; the bill counts on the ledger's days only."""
    days = sorted(ledgered.days)
    not_covered = tuple(d for d in days if d not in bill.days or bill.days[d].partial)
    ours = sorted({model for model, _ in ledgered.entries})
    others: defaultdict[str, Decimal] = defaultdict(Decimal)
    for day in days:
        for model, amount in bill.days[day].amounts.items() if day in bill.days else ():
            if model not in ours:
                others[model] += amount
    named = {model: amount for model, amount in sorted(others.items()) if amount}
    checks = [_check(model, ledgered, bill, not_covered, named) for model in ours]
    return Reconciled(models=tuple(checks), not_covered=not_covered, others=named)


def _check(
    model: str,
    ledgered: Ledgered,
    bill: Bill,
    not_covered: Sequence[date],
    others: Mapping[str, Decimal],
) -> ModelCompared:
    total, per_day = Entries(), {}
    for day in sorted(ledgered.days):
        entry = ledgered.entries.get((model, day), Entries())
        billed = bill.days[day].amounts.get(model, Decimal(0)) if day in bill.days else None
        total.add(entry)
        if billed or entry.attempts or entry.returned:
            per_day[day] = _compared(entry, billed)
    compared = _compared(total, sum((d.billed or Decimal(0) for d in per_day.values()), Decimal(0)))
    rounding = _ROUNDING * (total.attempts + len(per_day))
    verdict = _verdict(compared, rounding)
    if verdict is Verdict.EQUAL:
        causes = tuple(_not_billed(total, not_covered))
    else:
        causes = tuple(_causes(total, compared, verdict, not_covered, others))
        if verdict is Verdict.DIFFERENT and compared.difference > 0:
            causes = (*_settled_free(ledgered.settled_free.get(model, 0)), *causes)
    requests = None if bill.requests is None else bill.requests.get(model, 0)
    if requests is not None and verdict is Verdict.DIFFERENT:
        more = requests > total.attempts + total.returned
        said = tuple(_counts(total, requests))
        causes = (*said, *causes) if more else (*causes, *said)
    return ModelCompared(
        model=model,
        total=compared,
        days=per_day,
        verdict=verdict,
        causes=causes,
        requests=requests,
        predictions=total.attempts + total.returned,
    )


def _compared(entry: Entries, billed: Decimal | None) -> Compared:
    return Compared(
        charged=from_micro(entry.charged), reserved=from_micro(entry.reserved), billed=billed
    )


def _verdict(compared: Compared, rounding: Decimal) -> Verdict:
    """Equal but for rounding; or between what is charged and what is reserved on top of it."""
    if abs(compared.difference) <= rounding:
        return Verdict.EQUAL
    if 0 < compared.difference <= compared.reserved + rounding:
        return Verdict.RESERVED
    return Verdict.DIFFERENT


def _causes(
    entry: Entries,
    compared: Compared,
    verdict: Verdict,
    not_covered: Sequence[date],
    others: Mapping[str, Decimal],
) -> Iterator[Cause]:
    yield from _reserved(entry, compared, not_covered)
    if verdict is Verdict.RESERVED:
        return
    if not_covered:
        days = ", ".join(map(str, not_covered))
        yield Cause(
            kind=CauseKind.NOT_COVERED,
            text=f"the bill does not fully cover {days} yet: ask again a day later",
        )
    if compared.difference < 0:
        yield from _less(entry, compared, others)
    else:
        yield from _more(entry, compared)
    if entry.near_midnight:
        yield Cause(
            kind=CauseKind.MIDNIGHT,
            text=f"{entry.near_midnight} were submitted within 5 minutes of midnight UTC: the "
            "provider may have booked them on a day that was not asked for",
        )


def _counts(entry: Entries, requests: int) -> Iterator[Cause]:
    """What the number of requests tells: whether more was bought, or at another price.

    Whether the provider counts those that failed nobody has written down.
    """
    ours = entry.attempts + entry.returned
    text = f"the provider counts {requests} requests on these days, the ledger {ours} predictions"
    if requests > ours:
        text += ": others were sent with the same key"
    elif requests >= entry.attempts:
        text += ": it is the price that differs"
    yield Cause(kind=CauseKind.COUNT, text=text)


def _settled_free(count: int) -> Iterator[Cause]:
    if count:
        yield Cause(
            kind=CauseKind.SETTLED_FREE,
            text=f"{count} lost answers were settled as free: they may have been bought after all",
        )


def _not_billed(entry: Entries, not_covered: Sequence[date]) -> Iterator[Cause]:
    """What a bill that agrees says of unknown ones: it has none of them."""
    if entry.unknown_cost and not entry.open:
        yield Cause(
            kind=CauseKind.UNKNOWN,
            text=f"{entry.unknown} unknown: the bill has none of them{_so_far(not_covered)}; "
            "asyncpipe resolve FOLDER --lost-free releases their money",
        )


def _so_far(not_covered: Sequence[date]) -> str:
    return ", so far" if not_covered else ""


def _reserved(entry: Entries, compared: Compared, not_covered: Sequence[date]) -> Iterator[Cause]:
    if entry.unknown:
        text = f"{entry.unknown} unknown: their submits lost the answer, each may be on the bill"
        if not entry.open and compared.difference == from_micro(entry.unknown_cost):
            text += (
                f"; the difference is what all of them cost{_so_far(not_covered)}: "
                "asyncpipe resolve FOLDER --lost-charged charges them"
            )
        yield Cause(kind=CauseKind.UNKNOWN, text=text)
    if entry.open:
        yield Cause(
            kind=CauseKind.OPEN,
            text=f"{entry.open} in flight or expired: the provider charges at submit and returns "
            "the money of those that fail",
        )


def _more(entry: Entries, compared: Compared) -> Iterator[Cause]:
    """What makes a bill larger than the ledger."""
    foreign = Cause(
        kind=CauseKind.FOREIGN,
        text="somebody else may use the same key: another folder, machine or program",
    )
    price = [*_price(entry, compared)]
    # Whole predictions fewer than ours were: more likely bought elsewhere than priced otherwise.
    elsewhere = _whole_predictions(entry, compared) and not entry.estimated
    yield from [foreign, *price] if elsewhere else [*price, foreign]
    if entry.returned:
        later = f", {entry.returned_later} of them on a later day" if entry.returned_later else ""
        yield Cause(
            kind=CauseKind.RETURNED,
            text=f"{entry.returned} failed at the provider{later}: their money may be returned "
            "on another day than it was charged",
        )


def _whole_predictions(entry: Entries, compared: Compared) -> bool:
    if not entry.delivered or not entry.charged:
        return False
    each = compared.charged / (entry.delivered + entry.given_up + entry.failed_charged)
    count, rest = divmod(compared.difference, each)
    return rest == 0 and count < entry.delivered


def _less(entry: Entries, compared: Compared, others: Mapping[str, Decimal]) -> Iterator[Cause]:
    """What makes a bill smaller than the ledger."""
    if entry.given_up:
        yield Cause(
            kind=CauseKind.GIVEN_UP,
            text=f"{entry.given_up} unknown were given up and counted as charged: they may never "
            "have been bought",
        )
    if entry.failed_charged:
        yield Cause(
            kind=CauseKind.FAILED_CHARGED,
            text=f"{entry.failed_charged} failed and are counted as charged: the provider may "
            "have returned their money",
        )
    if not compared.billed:
        yield Cause(
            kind=CauseKind.OTHER_KEY,
            text="the bill is that of this key: they may have been bought with another",
        )
        if others:
            names = ", ".join([*others][:3])
            yield Cause(
                kind=CauseKind.OTHER_NAME,
                text=f"the bill may name the model otherwise; it names also {names}",
            )
        return
    yield from _price(entry, compared)


def _price(entry: Entries, compared: Compared) -> Iterator[Cause]:
    if entry.estimated:
        yield Cause(
            kind=CauseKind.ESTIMATED,
            text=f"{entry.estimated} have an estimated price: what token-billed models cost is "
            "known only when they are done, and the bill has that",
        )
    if compared.charged and compared.billed:
        times = f"{compared.billed / compared.charged:.4f}".rstrip("0").rstrip(".")
        discount = ", or the account has a discount" if compared.difference < 0 else ""
        sources = ", ".join(sorted(entry.sources))
        yield Cause(
            kind=CauseKind.PRICE,
            text=f"the prices the ledger charged by ({sources}) may be wrong{discount}: "
            f"the bill is {times} times the ledger's sum",
        )
    if entry.assumed:
        yield Cause(
            kind=CauseKind.ASSUMED,
            text=f"{entry.assumed} were priced by what their jobs do not say, e.g. the duration",
        )
