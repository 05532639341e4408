"""What runs learn and keep for the next one: small JSON documents in the user's cache folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson

from asyncpipe._fs import cache_folder, safe_stem, whole_file
from asyncpipe.flow.learned import Latency, Learned, policy_of
from asyncpipe.flow.polling import PollPolicy
from asyncpipe.jobs import Polling

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


LATENCY = "latency"
"""The subject of the memory that holds them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """One run's policy of polling, and the memory that what it learns goes to."""

    polls: PollPolicy
    memory: Memory | None

    def keep(self) -> None:
        """Keep what was learned for the next run; never raises."""
        if self.memory is not None and isinstance(self.polls, Learned):
            self.memory.save(self.polls.lessons())

    def of(self, model: str) -> Latency | None:
        """How long a prediction of ``model`` takes; None where too little is known."""
        return self.polls.latency(model, {}) if isinstance(self.polls, Learned) else None


def latencies_of(
    polling: Polling, memory: Memory | None, rng: Random, *, tail: Callable[[], bool]
) -> Latencies:
    """The policy that ``polling`` names, with what earlier runs learned.

    ``tail`` says whether nothing waits to be submitted.
    """
    kept = memory.load() if memory else None
    return Latencies(polls=policy_of(polling, rng, tail=tail, kept=kept), memory=memory)


def recall(memory: Memory | None) -> Callable[[str, Mapping[str, Any]], Latency | None]:
    """What a memory holds: a model and a job's parameters to its times."""
    kept = memory.load() if memory else {}
    return Learned(Polling(policy="learned"), Random(), bool, kept).latency
