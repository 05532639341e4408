"""Rows for spreadsheets (CSV) and programs (JSON Lines), one per job: streamed from the ledger."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from asyncpipe._fs import whole_file
from asyncpipe._text import json_text
from asyncpipe.errors import DiskError, UsageError
from asyncpipe.jobs import Links, now
from asyncpipe.ledger import (
    AttemptRow,
    LedgerReader,
    ResultRow,
    SharedPlace,
    Where,
    reading,
    resolved,
    rows_of,
)
from asyncpipe.pricing import from_micro, to_micro
from asyncpipe.report.links import Linker
from asyncpipe.report.manifest import head_of, money
from asyncpipe.report.results import Outcome, Result, result_of, source_of

FORMATS = ("csv", "jsonl")

COLUMNS = (
    *("name", "key", "type", "model", "prompt", "params", "status", "outcome"),
    *("charged_usd", "reserved_usd", "cost_source", "prediction_id", "request_id"),
    *("attempts_charged", "estimated", "overrun_usd", "lost_answers"),
    *("attempts", "polls", "submitted_at", "completed_at", "error", "notes"),
    *("reason", "error_code"),
    *("asset", "asset_bytes", "asset_sha256", "assets", "store", "asset_url"),
)
"""Of every row, in order. ``asset`` is the first asset's path, ``assets`` are all of them;
``store`` names the place that the first lies in, ``asset_url`` leads to it, where there is a link.
Paths are relative to the output place, times UTC, and empty or null is what has not happened."""

LABEL = "label_"
"""What the columns of labels begin with, after which comes the label's own name: so none is like
one of ``COLUMNS``."""

BOM = b"\xef\xbb\xbf"
"""By which spreadsheets know UTF-8; without it they spoil Chinese."""

MOST_LABEL_COLUMNS = 1000
"""Columns of labels at most; JSON Lines hold the others, too."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def export_file(
    folder: Where, path: Path, form: str, *, rows: str = "jobs", links: Links | None = None
) -> int:
    """Write ``path`` in ``form``, whole or not at all; return the number of rows.

    ``rows`` is ``jobs``, or ``attempts``: what each submit cost, for comparing with an invoice.
    Without ``links`` those are made that the manifest has.

    Raises LedgerError without a ledger, UsageError for a place where no file can be, DiskError
    when it cannot be written; an old file stands then.
    """
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"cannot be: there is no folder {path.parent}"
        raise UsageError(f"{path} {why}; name a file with --output")
    where = resolved(folder)
    linker = _linker(where, links)
    with reading(where) as ledger:
        try:
            with whole_file(path) as file:
                if form == "csv":
                    file.write(BOM)
                return write_rows(ledger, file, form, rows=rows, linker=linker)
        except OSError as exc:
            raise DiskError(
                f"{path} cannot be written ({exc.strerror or exc}): make room or make it writable"
            ) from exc


def export_stream(
    folder: Where, stream: BinaryIO, form: str, *, rows: str = "jobs", links: Links | None = None
) -> int:
    """Write to ``stream`` in ``form``, without BOM; raises LedgerError, and OSError as it comes."""
    where = resolved(folder)
    linker = _linker(where, links)
    with reading(where) as ledger:
        return write_rows(ledger, stream, form, rows=rows, linker=linker)


def export_rows(
    folder: Where, *, rows: str = "jobs", links: Links | None = None
) -> list[dict[str, Any]]:
    """The rows themselves, amounts as Decimal; raises LedgerError."""
    where = resolved(folder)
    linker = _linker(where, links)
    with reading(where) as ledger:
        return [*(job_rows(ledger, linker) if rows == "jobs" else attempt_rows(ledger))]


def _linker(where: Path | SharedPlace, links: Links | None) -> Linker:
    return Linker(links or Links.again(head_of(where).get("links")), where, now())


def write_rows(
    ledger: LedgerReader, file: BinaryIO, form: str, *, linker: Linker, rows: str = "jobs"
) -> int:
    """Write one moment of a ledger; return the number of rows. Memory is that of one row."""
    read: Callable[[LedgerReader], Iterator[dict[str, Any]]] = attempt_rows
    names: Sequence[str] = ATTEMPT_COLUMNS
    if rows == "jobs":
        read, names = partial(job_rows, linker=linker), COLUMNS
    if form == "jsonl":
        return sum(1 for row in read(ledger) if file.write(_json_line(row)))
    writer = csv.writer(_Encoded(file), lineterminator="\r\n")
    labels = ledger.label_names(MOST_LABEL_COLUMNS) if rows == "jobs" else []
    writer.writerow([*names, *(cell(f"{LABEL}{label}") for label in labels)])
    lines = (
        [*(cell(row[name]) for name in names), *(cell(row["labels"].get(k)) for k in labels)]
        for row in read(ledger)
    )
    return sum(1 for line in lines if writer.writerow(line))


def job_rows(ledger: LedgerReader, linker: Linker) -> Iterator[dict[str, Any]]:
    """Every job the manifest speaks of, never-started ones too, in job-file order."""
    for row in ledger.results(started=False):
        with rows_of(f"job {row['id']}"):
            yield _job_row(row, linker)


def _job_row(row: ResultRow, linker: Linker) -> dict[str, Any]:
    spec = orjson.loads(row["spec"])
    head = {"name": row["name"], "key": row["key"], "type": row["type"], "model": row["model"]}
    head |= {"prompt": spec["prompt"], "params": spec["params"], "labels": spec.get("labels", {})}
    told = _NEVER if row["n"] is None else _told(result_of(row, None), linker)
    return {**dict.fromkeys(COLUMNS), **head, **told}


_NEVER: dict[str, Any] = {
    "status": "pending",
    "outcome": Outcome.PENDING.value,
    "charged_usd": Decimal(0),
    "reserved_usd": Decimal(0),
    "attempts_charged": 0,
    "estimated": False,
    "overrun_usd": Decimal(0),
    "lost_answers": 0,
    "attempts": 0,
    "polls": 0,
    "error": "not submitted yet",
    "notes": {},
    "assets": [],
}


def _told(result: Result, linker: Linker) -> dict[str, Any]:
    first = result.assets[0] if result.assets else None
    return {
        "status": result.status,
        "outcome": result.outcome.value,
        "charged_usd": result.cost,
        "reserved_usd": result.reserved,
        "attempts_charged": result.attempts_charged,
        "estimated": result.estimated,
        "overrun_usd": result.overrun,
        "lost_answers": result.lost_answers,
        "cost_source": result.cost_source,
        "prediction_id": result.prediction_id,
        "request_id": result.request_id,
        "attempts": result.attempts,
        "polls": result.polls,
        "submitted_at": _iso(result.submitted_at),
        "completed_at": _iso(result.completed_at),
        "error": result.error,
        "notes": result.notes,
        "reason": result.reason,
        "error_code": result.error_code,
        "asset": first.name if first else None,
        "asset_bytes": first.size if first else None,
        "asset_sha256": first.sha256 if first else None,
        "assets": [asset.name for asset in result.assets],
        "store": first.store or None if first else None,
        "asset_url": linker.of([first])[0] if first else None,
    }


def _iso(time: datetime | None) -> str | None:
    return time.isoformat(timespec="milliseconds") if time else None


class _Encoded:
    """What csv.writer writes to: text in, UTF-8 out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def cell(value: Any) -> str:
    """Write one value as a cell that no spreadsheet takes for a formula.

    Line breaks and tabs stay, other control characters go; objects become JSON, lists of paths
    are joined by ``;``, which no path holds.
    """
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, int):
        return str(value).upper() if isinstance(value, bool) else str(value)
    if isinstance(value, list):
        value = ";".join(value)
    elif isinstance(value, dict):
        value = orjson.dumps(value).decode() if value else ""
    text = _CONTROLS.sub("", value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json_line(row: dict[str, Any]) -> bytes:
    line = orjson.dumps(row, default=_number, option=orjson.OPT_APPEND_NEWLINE)
    return json_text(line).encode()


def _number(usd: Any) -> orjson.Fragment:
    return money(to_micro(usd))


ATTEMPT_COLUMNS = (
    *("name", "key", "type", "model", "attempt", "money"),
    *("charged_usd", "reserved_usd", "price_usd", "estimated", "overrun_usd", "cost_source"),
    *("prediction_id", "request_id", "intended_at", "submitted_at", "ended_at", "error", "notes"),
    *("provider", "bought_as"),
)
"""Of every row, in order. ``money`` is what became of it: ``charged``; ``reserved`` while the
provider works on it; ``unknown``, reserved too, where its answer was lost; ``released``, bought and
returned; ``not bought``. ``price_usd`` is what it was to cost by ``cost_source``, bought from
``provider`` as the model ``bought_as``."""


def attempt_rows(ledger: LedgerReader) -> Iterator[dict[str, Any]]:
    """Every attempt of every job, in job-file order; one that surely bought nothing, too."""
    for row in ledger.attempts():
        with rows_of(f"an attempt of job {row['id']}"):
            yield _attempt_row(row)


def _attempt_row(row: AttemptRow) -> dict[str, Any]:
    return {
        "name": row["name"],
        "key": row["key"],
        "type": row["type"],
        "model": row["model"],
        "attempt": row["n"],
        "money": _money(row),
        "charged_usd": from_micro(row["charged"]),
        "reserved_usd": from_micro(row["reserved"]),
        "price_usd": from_micro(row["booked"]),
        "estimated": bool(row["estimated"]),
        "overrun_usd": from_micro(row["overrun"]),
        "cost_source": source_of(row),
        "prediction_id": row["prediction_id"],
        "request_id": row["request_id"],
        "intended_at": _time(row["intended_at"]),
        "submitted_at": _time(row["submitted_at"]),
        "ended_at": _time(row["ended_at"]),
        "error": row["error"],
        "notes": orjson.loads(row["notes"]) if row["notes"] else {},
        "provider": row["provider"],
        "bought_as": row["bought_as"],
    }


def _time(text: str | None) -> str | None:
    return datetime.fromisoformat(text).isoformat(timespec="milliseconds") if text else None


def _money(row: AttemptRow) -> str:
    if row["settled"] is None:
        return "unknown" if row["earlier"] or row["state"] == "unknown" else "reserved"
    if row["settled"] == "charged":
        return "charged"
    return "not bought" if row["prediction_id"] is None else "released"
