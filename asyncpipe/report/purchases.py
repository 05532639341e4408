"""What a folder's ledger says was bought, or may have been, by model and day."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncpipe.jobs import JobState
from asyncpipe.ledger import reading, rows_of

GIVEN_UP_FREE = "given up: submitted, and the answer was lost; it was not charged"
"""The error of a job that was given up because the bill has it not."""

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


def read_entries(folder: Path) -> Ledgered:
    """Read what a folder's ledger says was bought, or may have been; raises LedgerError."""
    entries: defaultdict[tuple[str, date], Entries] = defaultdict(Entries)
    days: set[date] = set()
    with reading(folder) as connection, rows_of("an attempt"):
        for row in connection.execute(_ATTEMPTS):
            entry, at, ended = _entry(row)
            entries[row[0], at.date()].add(entry)
            days.add(at.date())
            if ended is not None and ended.date() > at.date():
                days.add(at.date() + timedelta(days=1))
        settled = dict(connection.execute(_SETTLED_FREE, (f"%{GIVEN_UP_FREE}%",)))
    return Ledgered(entries=dict(entries), days=frozenset(days), settled_free=settled)


_SETTLED_FREE = (
    "SELECT j.model, count(*) FROM events e JOIN jobs j ON j.id=e.job_id"
    " WHERE (e.kind='LostSettled' AND e.fields LIKE '%\"charged\":false%')"
    " OR (e.kind='Failed' AND e.fields LIKE ?) GROUP BY 1"
)

# Attempts that surely bought nothing reserve nothing, cost nothing and have no prediction.
_ATTEMPTS = (
    "SELECT j.model, j.state, a.n<=j.used, a.charged, a.reserved, a.price_source, a.assumed,"
    " a.prediction_id IS NOT NULL, coalesce(a.submitted_at, a.intended_at), a.ended_at,"
    " a.settled, a.estimated AND a.told IS NULL, a.booked"
    " FROM attempts a JOIN jobs j ON j.id=a.job_id"
    " WHERE a.settled IS NOT 'released' OR a.prediction_id IS NOT NULL"
)


def _entry(row: Sequence[Any]) -> tuple[Entries, datetime, datetime | None]:
    _, state, earlier, charged, reserved, source, assumed, bought, at_text, ended_text = row[:10]
    settled, estimated, booked = row[10:]
    at = datetime.fromisoformat(at_text).astimezone(UTC)
    ended = datetime.fromisoformat(ended_text).astimezone(UTC) if ended_text else None
    midnight = datetime(at.year, at.month, at.day, tzinfo=UTC)
    into_day = at - midnight
    entry = Entries(charged=int(charged), reserved=int(reserved))
    if settled is None:
        unknown = bool(earlier) or JobState(state) is JobState.UNKNOWN
        entry.unknown, entry.open = int(unknown), int(not unknown)
        entry.unknown_cost = int(booked) if unknown else 0
    elif settled == "charged":
        failed = bool(earlier) or JobState(state) is JobState.FAILED
        entry.given_up = int(failed and not bought)
        entry.failed_charged = int(failed and bool(bought))
        entry.delivered = int(not failed)
    else:
        entry.returned = 1
        entry.returned_later = int(ended is not None and ended.date() > at.date())
    entry.assumed = int(bool(assumed) and not entry.returned)
    entry.estimated = int(bool(estimated) and not entry.returned)
    entry.near_midnight = int(min(into_day, timedelta(days=1) - into_day) < NEAR_MIDNIGHT)
    if not entry.returned:
        entry.sources[source] += 1
    return entry, at, ended
