"""What the simulated provider knows: predictions, charges, polls, downloads."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS predictions(
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, model TEXT NOT NULL,
  body TEXT NOT NULL, created_at REAL NOT NULL, ready_at REAL NOT NULL, outcome TEXT NOT NULL,
  price INTEGER NOT NULL, outputs INTEGER NOT NULL, hidden_polls INTEGER NOT NULL,
  polls INTEGER NOT NULL DEFAULT 0, downloads INTEGER NOT NULL DEFAULT 0,
  account TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS poll_pasts(
  id TEXT PRIMARY KEY, row INTEGER NOT NULL, total INTEGER NOT NULL, hung INTEGER NOT NULL,
  empty INTEGER NOT NULL, told INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS fetches(
  id TEXT NOT NULL, output INTEGER NOT NULL, old INTEGER NOT NULL, fetched INTEGER NOT NULL,
  PRIMARY KEY(id, output));
CREATE TABLE IF NOT EXISTS submit_keys(
  account TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL, id TEXT NOT NULL,
  PRIMARY KEY(account, key));
CREATE TABLE IF NOT EXISTS cancelled(id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS uploads(
  number INTEGER PRIMARY KEY, id TEXT UNIQUE, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
  expired INTEGER NOT NULL DEFAULT 0);
"""

ACCOUNT = "acct-simulated"
"""The account of every key that the settings give no other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BookedPrediction:
    """One sold prediction; times are wall time in seconds, ``price`` micro-dollars.

    ``outcome`` is how it ends: completed, failed, moderated, refused, or charged (it fails, and its
    money is kept). ``hidden_polls`` of its first polls
    are answered as if it did not exist.
    """

    number: int
    id: str
    type: str
    model: str
    body: dict[str, Any]
    created_at: float
    ready_at: float
    outcome: str
    price: int
    outputs: int
    hidden_polls: int
    polls: int = 0
    downloads: int = 0
    account: str = ACCOUNT


@dataclass(frozen=True, kw_only=True, slots=True)
class PollPast:
    """What polls of a prediction were answered with, as far as faults depend on it.

    ``row`` and ``total`` faulty answers, of which ``hung`` were held; ``empty`` completed ones
    without outputs; ``told`` ones with them.
    """

    row: int = 0
    total: int = 0
    hung: int = 0
    empty: int = 0
    told: int = 0


class Books:
    """The books in a SQLite file, or in memory without one; they survive a killed process.

    Nothing is synced to disk: only the end of a process is to be survived, not that of the machine.
    """

    def __init__(
        self, path: Path | None = None, *, clock: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock or time.time
        self._connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        if path is not None:
            self._connection.execute("PRAGMA journal_mode=WAL").close()
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def sell(self, prediction: BookedPrediction) -> None:
        """Enter a prediction, charged from now on."""
        self._connection.execute(
            "INSERT INTO predictions VALUES(?,?,?,?,?,?,?,?,?,?,?,0,0,?)",
            (
                prediction.number,
                prediction.id,
                prediction.type,
                prediction.model,
                json.dumps(prediction.body, ensure_ascii=False),
                prediction.created_at,
                prediction.ready_at,
                prediction.outcome,
                prediction.price,
                prediction.outputs,
                prediction.hidden_polls,
                prediction.account,
            ),
        )
        now = prediction.created_at
        self._raise(
            "peak_in_flight", self._one("count(*)", "created_at<=? AND ready_at>?", now, now)
        )

    def note_key(self, account: str, key: str, request: str, prediction_id: str) -> None:
        """Keep what a key bought, and with which request."""
        self._connection.execute(
            "INSERT INTO submit_keys VALUES(?,?,?,?)", (account, key, request, prediction_id)
        )

    def bought_with(self, account: str, key: str) -> tuple[str, str] | None:
        """The request that came with a key, and the id of what it bought; None for a new one."""
        query = "SELECT request, id FROM submit_keys WHERE account=? AND key=?"
        row = self._connection.execute(query, (account, key)).fetchone()
        return (row[0], row[1]) if row else None

    def cancel(self, prediction_id: str, *, charged: bool = False) -> None:
        """End a prediction now; what it cost is returned, unless it is ``charged``."""
        self._connection.execute("INSERT OR IGNORE INTO cancelled VALUES(?)", (prediction_id,))
        self._connection.execute(
            "UPDATE predictions SET outcome=?, ready_at=? WHERE id=?",
            ("charged" if charged else "failed", self._clock(), prediction_id),
        )

    def is_cancelled(self, prediction_id: str) -> bool:
        """Whether a prediction was cancelled before its end."""
        query = "SELECT 1 FROM cancelled WHERE id=?"
        return self._connection.execute(query, (prediction_id,)).fetchone() is not None

    def next_number(self) -> int:
        """The number of the next prediction."""
        return int(self._one("coalesce(max(number), 0)")) + 1

    def find(self, prediction_id: str) -> BookedPrediction | None:
        """The prediction with this id."""
        query = "SELECT * FROM predictions WHERE id=?"
        row = self._connection.execute(query, (prediction_id,)).fetchone()
        return _booked(row) if row else None

    def listed(
        self, account: str, *, model: str, prediction_id: str, status: str
    ) -> list[tuple[str, float]]:
        """Ids and times of an account's predictions, newest first; "" filters nothing."""
        now = self._clock()
        rows = self._connection.execute(
            "SELECT id, created_at FROM predictions WHERE account=? AND ? IN ('', model)"
            " AND ? IN ('', id) AND ? IN ('', CASE WHEN ready_at>? THEN 'processing'"
            " WHEN outcome='completed' THEN 'completed' ELSE 'failed' END)"
            " ORDER BY created_at DESC, number DESC",
            (account, model, prediction_id, status, now),
        )
        return rows.fetchall()

    def before(self, number: int) -> BookedPrediction | None:
        """The prediction that was sold before the one with this number."""
        query = "SELECT * FROM predictions WHERE number<? ORDER BY number DESC LIMIT 1"
        row = self._connection.execute(query, (number,)).fetchone()
        return _booked(row) if row else None

    def note_poll(self, prediction_id: str) -> None:
        """Count one poll of a prediction."""
        self._connection.execute(
            "UPDATE predictions SET polls=polls+1 WHERE id=?", (prediction_id,)
        )

    def note_download(self, prediction_id: str) -> None:
        """Count one download of a prediction's media."""
        self._connection.execute(
            "UPDATE predictions SET downloads=downloads+1 WHERE id=?", (prediction_id,)
        )

    def poll_past(self, prediction_id: str) -> PollPast:
        """What faults a prediction's polls have met."""
        query = "SELECT row, total, hung, empty, told FROM poll_pasts WHERE id=?"
        row = self._connection.execute(query, (prediction_id,)).fetchone()
        return PollPast(**dict(zip(PollPast.__slots__, row, strict=True))) if row else PollPast()

    def note_poll_past(self, prediction_id: str, past: PollPast) -> None:
        """Keep what faults a prediction's polls have met."""
        self._connection.execute(
            "INSERT OR REPLACE INTO poll_pasts VALUES(?,?,?,?,?,?)",
            (prediction_id, past.row, past.total, past.hung, past.empty, past.told),
        )

    def fetches(self, prediction_id: str, output: int) -> tuple[int, int]:
        """How often an output was asked for: at its old URL, and where it is."""
        query = "SELECT old, fetched FROM fetches WHERE id=? AND output=?"
        row = self._connection.execute(query, (prediction_id, output)).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    def note_fetch(self, prediction_id: str, output: int, *, old: bool = False) -> None:
        """Count one request for an output, at its old URL or where it is."""
        self._connection.execute(
            "INSERT INTO fetches VALUES(?,?,?,?) ON CONFLICT DO UPDATE"
            " SET old=old+excluded.old, fetched=fetched+excluded.fetched",
            (prediction_id, output, int(old), int(not old)),
        )

    def note_upload(self, sha256: str, size: int) -> int:
        """Enter an uploaded file; returns its number."""
        cursor = self._connection.execute(
            "INSERT INTO uploads(sha256, size) VALUES(?,?)", (sha256, size)
        )
        return int(cursor.lastrowid or 0)

    def name_upload(self, number: int, upload_id: str) -> None:
        """Give an upload the id its URL has."""
        self._connection.execute("UPDATE uploads SET id=? WHERE number=?", (upload_id, number))

    def upload_digest(self, upload_id: str) -> str | None:
        """The sha256 of an upload that can still be had, or None."""
        query = "SELECT sha256 FROM uploads WHERE id=? AND NOT expired"
        row = self._connection.execute(query, (upload_id,)).fetchone()
        return str(row[0]) if row else None

    def expire_uploads(self, upload_id: str | None = None) -> None:
        """Let one upload, or all there are, be cleaned up."""
        where, values = ("WHERE id=?", (upload_id,)) if upload_id else ("", ())
        self._connection.execute(f"UPDATE uploads SET expired=1 {where}", values)

    def uploads(self) -> dict[str, int]:
        """How often each file was uploaded, by sha256."""
        rows = self._connection.execute("SELECT sha256, count(*) FROM uploads GROUP BY sha256")
        return dict(rows.fetchall())

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self._connection.execute(
            "INSERT INTO counts VALUES(?,1) ON CONFLICT DO UPDATE SET value=value+1", (name,)
        )

    def counter(self, name: str) -> int:
        """What a counter stands at; 0 if it was never raised."""
        row = self._connection.execute("SELECT value FROM counts WHERE name=?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def reset(self, name: str) -> None:
        """Put a counter back to 0."""
        self._connection.execute("DELETE FROM counts WHERE name=?", (name,))

    def predictions(self) -> list[BookedPrediction]:
        """Everything sold, in order."""
        rows = self._connection.execute("SELECT * FROM predictions ORDER BY number")
        return [_booked(row) for row in rows]

    def bookings(self, account: str, since: float, until: float) -> list[tuple[str, str, str, int]]:
        """What the bill shows: (day, model, type, micro-dollars) from ``since`` to ``until``.

        A prediction is charged when it is sold; a failed one's money comes back when it fails.
        """
        rows = self._connection.execute(
            "SELECT date(at, 'unixepoch'), model, type, sum(amount) FROM ("
            " SELECT created_at AS at, model, type, price AS amount, account FROM predictions"
            " UNION ALL SELECT ready_at, model, type, -price, account FROM predictions"
            "  WHERE outcome NOT IN ('completed', 'charged') AND ready_at<=?)"
            " WHERE account=? AND at>=? AND at<? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            (self._clock(), account, since, until),
        )
        return [(day, model, kind, int(amount)) for day, model, kind, amount in rows]

    def requests(self, account: str, since: float, until: float) -> list[tuple[str, str, str, int]]:
        """What was asked for: (day, model, type, how often), failed ones too."""
        rows = self._connection.execute(
            "SELECT date(created_at, 'unixepoch'), model, type, count(*) FROM predictions"
            " WHERE account=? AND created_at>=? AND created_at<? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            (account, since, until),
        )
        return [(day, model, kind, int(count)) for day, model, kind, count in rows]

    def sell_to_somebody(self, model: str, price: int, *, at: float | None = None) -> None:
        """Sell a prediction that no run asked for: somebody else has the same key."""
        number = self.next_number()
        now = self._clock() if at is None else at
        self.sell(
            BookedPrediction(
                number=number,
                id=f"somebody-{number}",
                type="image",
                model=model,
                body={"model": model, "prompt": "somebody else's"},
                created_at=now,
                ready_at=now,
                outcome="completed",
                price=price,
                outputs=1,
                hidden_polls=0,
            )
        )

    def reprice(self, model: str, factor: Decimal) -> None:
        """Charge ``factor`` times as much for what was sold of ``model``, since ever."""
        self._connection.execute(
            "UPDATE predictions SET price=CAST(round(price*?) AS INTEGER) WHERE model=?",
            (float(factor), model),
        )

    def charged(self, account: str = "") -> Decimal:
        """USD charged and not returned, to an account or in all.

        A failed prediction's money is returned when it fails.
        """
        kept = "(outcome IN ('completed', 'charged') OR ready_at>?) AND ? IN ('', account)"
        micro = self._one("coalesce(sum(price), 0)", kept, self._clock(), account)
        return Decimal(micro).scaleb(-6)

    def submits(self) -> int:
        """Submits that arrived, refused ones too."""
        return self.counter("submits")

    def polls(self) -> int:
        """Polls of known predictions."""
        return self._one("coalesce(sum(polls), 0)")

    def in_flight(self, model: str, now: float) -> int:
        """How many predictions of ``model`` are being worked on."""
        return self._one("count(*)", "model=? AND created_at<=? AND ready_at>?", model, now, now)

    def peak_in_flight(self) -> int:
        """The most predictions that were worked on at once."""
        return self.counter("peak_in_flight")

    def media_credentials(self) -> int:
        """Media requests that carried an Authorization header or a cookie; must stay 0."""
        return self.counter("media_credentials")

    def summary(self) -> dict[str, Any]:
        """The books in figures, for JSON."""
        return {
            "predictions": self._one("count(*)"),
            "charged_usd": str(self.charged()),
            "submits": self.submits(),
            "quotes": self.counter("quotes"),
            "polls": self.polls(),
            "downloads": self._one("coalesce(sum(downloads), 0)"),
            "peak_in_flight": self.peak_in_flight(),
            "uploads": sum(self.uploads().values()),
            "media_credentials": self.media_credentials(),
        }

    def _one(self, what: str, where: str = "1", *values: float | str) -> int:
        query = f"SELECT {what} FROM predictions WHERE {where}"
        return int(self._connection.execute(query, values).fetchone()[0])

    def _raise(self, name: str, value: int) -> None:
        self._connection.execute(
            "INSERT INTO counts VALUES(?,?) ON CONFLICT DO UPDATE SET value=max(value, ?)",
            (name, value, value),
        )


def _booked(row: tuple[Any, ...]) -> BookedPrediction:
    names = BookedPrediction.__slots__
    fields = dict(zip(names, row, strict=True))
    return BookedPrediction(**{**fields, "body": json.loads(fields["body"])})
