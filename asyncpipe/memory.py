"""What runs learn and keep for the next one: small JSON documents in the user's cache folder."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from asyncpipe._fs import cache_folder, safe_stem, whole_file

STALE = timedelta(days=30)
"""What was learned longer ago says nothing of an API today."""

_FORMAT = 1


class Memory:
    """One kind of learned things (``subject``) about one account at one API, by model.

    ``account`` is an opaque word that tells accounts apart and is not the key itself. Reading and
    writing never raise: what is lost is learned again. Writing replaces the whole file, so of two
    runs that end together the later one's lessons stay.
    """

    def __init__(self, subject: str, *, origin: str, account: str) -> None:
        folder = cache_folder()
        name = f"{subject}-{safe_stem(origin)}-{safe_stem(account)}.json"
        self._path = folder / "asyncpipe" / name if folder else None

    def load(self, *, today: datetime | None = None) -> dict[str, Any]:
        """What is known by model; entries older than STALE, or damaged, are missing."""
        entries = self._kept(today or datetime.now(UTC))
        return {model: entry["learned"] for model, entry in entries.items()}

    def save(self, learned: dict[str, Any], *, today: datetime | None = None) -> None:
        """Keep ``learned`` by model, beside what is kept of models it does not name."""
        if self._path is None or not learned:
            return
        now = today or datetime.now(UTC)
        at = now.isoformat()
        models = self._kept(now) | {m: {"at": at, "learned": entry} for m, entry in learned.items()}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path) as file:
                file.write(orjson.dumps({"format": _FORMAT, "models": models}))

    def _kept(self, now: datetime) -> dict[str, Any]:
        """The entries that can be believed; a damaged one does not spoil the others."""
        try:
            kept = orjson.loads(self._path.read_bytes()) if self._path else {}
            models = kept["models"].items() if kept["format"] == _FORMAT else ()
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        return {model: entry for model, entry in models if _is_fresh(entry, now)}


def _is_fresh(entry: Any, now: datetime) -> bool:
    try:
        at = datetime.fromisoformat(entry["at"])
        return "learned" in entry and timedelta() <= now - at <= STALE
    except (ValueError, TypeError, KeyError):
        return False
