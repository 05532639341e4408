"""What a folder's ledger says was bought, or may have been, by model and day."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from asyncpipe.jobs import JobState
from asyncpipe.ledger import AttemptRow, LedgerReader, Where, reading, rows_of
from asyncpipe.pricing import Bill, BilledDay

NEAR_MIDNIGHT = timedelta(minutes=5)
"""So close to it, the provider's clock may say another day than ours."""


@dataclass(slots=True, kw_only=True)
class Entries:
    """What the ledger says of one model on one day (UTC, of the submit); micro-dollars.

    ``unknown_cost`` is what the unknown ones cost if they were bought, without a margin. Counts of
    attempts: ``delivered``; ``unknown`` and ``open`` (in flight, expired) are reserved;
    ``returned`` failed at the provider and cost nothing; ``given_up`` are charged without anybody
    knowing whether they were bought; ``assumed`` were priced by something their job did not say,
    ``estimated`` by the provider's own estimate.
    """

    charged: int = 0
    reserved: int = 0
    delivered: int = 0
    unknown: int = 0
    unknown_cost: int = 0
    open: int = 0
    returned: int = 0
    returned_later: int = 0
    given_up: int = 0
    failed_charged: int = 0
    assumed: int = 0
    estimated: int = 0
    near_midnight: int = 0
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def attempts(self) -> int:
        """How many of them may be on the bill."""
        return self.delivered + self.unknown + self.open + self.given_up + self.failed_charged

    def add(self, other: Entries) -> None:
        """Count ``other`` in."""
        for name in self.__slots__:
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(getattr(other, name))
            else:
                setattr(self, name, mine + getattr(other, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledgered:
    """A ledger's entries by model and day, and the days the bill is to be asked for.

    Those are the days of the submits, and the day after where a prediction ended on it: money
    of failed ones is returned then, and token-billed ones are charged. ``settled_free`` counts, by
    model, lost answers that somebody said were not charged.
    """

    entries: Mapping[tuple[str, date], Entries]
    days: frozenset[date]
    settled_free: Mapping[str, int] = field(default_factory=dict)


def read_entries(folder: Where) -> Ledgered:
    """Read what a folder's ledger says was bought of its provider, or may have been.

    What its jobs fell back to at others is on their bills. Raises LedgerError.
    """
    entries: defaultdict[tuple[str, date], Entries] = defaultdict(Entries)
    days: set[date] = set()
    with reading(folder) as ledger, rows_of("an attempt"):
        for row in _of_its_provider(ledger):
            # One that surely bought nothing reserves nothing, cost nothing and has no prediction.
            if row["settled"] not in (None, "charged") and row["prediction_id"] is None:
                continue
            entry, at, ended = _entry(row)
            entries[row["bought_as"] or row["model"], at.date()].add(entry)
            days.add(at.date())
            if ended is not None and ended.date() > at.date():
                days.add(at.date() + timedelta(days=1))
        free: Counter[str] = Counter()
        for part in ledger.sums().money:
            free[part["model"]] += part["free"]
    return Ledgered(entries=dict(entries), days=frozenset(days), settled_free=+free)


def _of_its_provider(ledger: LedgerReader) -> Iterator[AttemptRow]:
    origin = ledger.origin()
    own = ("", origin.provider) if origin is not None else ("",)
    return (row for row in ledger.attempts() if row["provider"] in own)


def read_predictions(folder: Where) -> dict[str, tuple[str, date]]:
    """The predictions of a folder's provider that have ended, each with its model and day.

    Raises LedgerError.
    """
    with reading(folder) as ledger, rows_of("an attempt"):
        return {
            row["prediction_id"]: (
                row["bought_as"] or row["model"],
                _utc(row["submitted_at"] or row["intended_at"]).date(),
            )
            for row in _of_its_provider(ledger)
            if row["prediction_id"]
        }


def bill_of(told: Mapping[str, Decimal], predictions: Mapping[str, tuple[str, date]]) -> Bill:
    """The bill that follows from what single predictions were charged; pure.

    A day is partial as long as one of its predictions is not told of.
    """
    amounts: dict[date, dict[str, Decimal]] = {}
    partial: set[date] = set()
    for name, (model, day) in predictions.items():
        of_day = amounts.setdefault(day, {})
        of_day[model] = of_day.get(model, Decimal(0)) + told.get(name, Decimal(0))
        if name not in told:
            partial.add(day)
    days = {
        day: BilledDay(day=day, amounts=of_day, partial=day in partial)
        for day, of_day in amounts.items()
    }
    return Bill(days=days)


def _entry(row: AttemptRow) -> tuple[Entries, datetime, datetime | None]:
    at = _utc(row["submitted_at"] or row["intended_at"])
    ended = _utc(row["ended_at"]) if row["ended_at"] else None
    into_day = at - datetime(at.year, at.month, at.day, tzinfo=UTC)
    state, earlier, bought = JobState(row["state"]), row["earlier"], bool(row["prediction_id"])
    entry = Entries(charged=row["charged"], reserved=row["reserved"])
    if row["settled"] is None:
        unknown = bool(earlier) or state is JobState.UNKNOWN
        entry.unknown, entry.open = int(unknown), int(not unknown)
        entry.unknown_cost = row["booked"] if unknown else 0
    elif row["settled"] == "charged":
        failed = bool(earlier) or state is JobState.FAILED
        entry.given_up = int(failed and not bought)
        entry.failed_charged = int(failed and bought)
        entry.delivered = int(not failed)
    else:
        entry.returned = 1
        entry.returned_later = int(ended is not None and ended.date() > at.date())
    entry.near_midnight = int(min(into_day, timedelta(days=1) - into_day) < NEAR_MIDNIGHT)
    if not entry.returned:
        entry.assumed, entry.estimated = int(bool(row["assumed"])), row["estimated"]
        entry.sources[row["price_source"]] += 1
    return entry, at, ended


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
