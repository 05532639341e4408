"""One row per attempt, for whoever compares with an invoice: every one that may be on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from asyncpipe.ledger.errors import rows_of
from asyncpipe.pricing.money import from_micro
from asyncpipe.results import TOLD

ATTEMPT_COLUMNS = (
    *("name", "key", "type", "model", "attempt", "money"),
    *("charged_usd", "reserved_usd", "price_usd", "estimated", "overrun_usd", "cost_source"),
    *("prediction_id", "request_id", "intended_at", "submitted_at", "ended_at", "error"),
)
"""Of every row, in order. ``money`` is what became of it: ``charged``; ``reserved`` while the
provider works on it; ``unknown``, reserved too, where its answer was lost; ``released``, bought and
returned; ``not bought``. ``price_usd`` is what it was to cost by ``cost_source``."""

_ATTEMPTS = (
    "SELECT j.id, j.state, a.n<=j.used, a.settled, a.prediction_id IS NOT NULL,"
    " a.estimated AND a.told IS NULL AND a.settled IS NOT 'released', a.told IS NOT NULL,"
    " a.price_source, a.assumed,"
    " coalesce(a.booked, a.charged + a.reserved), a.charged, a.reserved, a.overrun,"
    " j.name, j.key, j.type, j.model, a.n,"
    " a.prediction_id, a.request_id, a.intended_at, a.submitted_at, a.ended_at, a.error"
    " FROM attempts a JOIN jobs j ON j.id=a.job_id ORDER BY j.seen_run DESC, j.position, a.n"
)


def attempt_rows(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Every attempt of every job, in job-file order; one that surely bought nothing, too."""
    for row in connection.execute(_ATTEMPTS):
        with rows_of(f"an attempt of job {row[0]}"):
            yield _attempt_row(row)


def _attempt_row(row: Sequence[Any]) -> dict[str, Any]:
    _, state, earlier, settled, bought, estimated, told, source, assumed = row[:9]
    price, charged, reserved, overrun = (from_micro(micro) for micro in row[9:13])
    source = f"{source} ({assumed} assumed)" if assumed else source
    head = dict(zip(ATTEMPT_COLUMNS[:5], row[13:18], strict=True))
    return {
        **head,
        "money": _money(settled, bought=bool(bought), lost=bool(earlier) or state == "unknown"),
        "charged_usd": charged,
        "reserved_usd": reserved,
        "price_usd": price,
        "estimated": bool(estimated),
        "overrun_usd": overrun,
        "cost_source": TOLD if told else source,
        "prediction_id": row[18],
        "request_id": row[19],
        **dict(zip(ATTEMPT_COLUMNS[14:17], map(_time, row[20:23]), strict=True)),
        "error": row[23],
    }


def _time(text: str | None) -> str | None:
    return datetime.fromisoformat(text).isoformat(timespec="milliseconds") if text else None


def _money(settled: str | None, *, bought: bool, lost: bool) -> str:
    if settled is None:
        return "unknown" if lost else "reserved"
    return "not bought" if settled == "released" and not bought else settled
