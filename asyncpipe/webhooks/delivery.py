"""What a delivery is, and the checks that no signature can make: pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from asyncpipe.errors import WebhookRefused

LARGEST_BODY = 1024 * 1024
"""Bytes of a body; what says more is no delivery."""

WINDOW_S = 300
"""A delivery is signed at most so many seconds before or after it is looked at."""

STALE, TOO_LARGE, MALFORMED, FORGED, REPLAYED = 400, 413, 400, 401, 409

RawHeaders = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""A request's headers as frameworks have them: a mapping, or pairs of text or of bytes."""

_SECONDS = re.compile(r"[0-9]{1,12}")

_NOT_PLAIN = re.compile(r"[\s\x00-\x1f\x7f]")

_STANDARD = re.compile(r"[A-Za-z0-9+/]+={0,2}")

_URL_SAFE = re.compile(r"[A-Za-z0-9_-]+={0,2}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One webhook whose signature is right.

    ``prediction_id`` is what it is about, ``also`` other ids of the same; ``status`` is the
    sender's own word, for people; ``payload`` the body as JSON. ``delivery_id`` stays the same when
    it is delivered again; ``at`` is when it was signed. What it says of money or outputs is not to
    be believed before a poll has said the same.
    """

    prediction_id: str
    status: str
    payload: Mapping[str, Any]
    delivery_id: str
    at: datetime
    also: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """What a delivery's headers claim: that ``text`` was signed at ``at``, in Unix seconds."""

    text: bytes
    at: int


class Headers:
    """A request's headers by their names, in whatever case they came."""

    def __init__(self, raw: RawHeaders) -> None:
        pairs = raw.items() if isinstance(raw, Mapping) else raw
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(_text(name).lower(), []).append(_text(value))

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def one(self, name: str) -> str:
        """The one value of a header that is signed; raises WebhookRefused for anything else.

        Two values, or blanks in one, may be read otherwise by whoever signed or passed it on.
        """
        values = self._values.get(name.lower(), [])
        if len(values) != 1:
            said = "is missing" if not values else "is there more than once"
            raise WebhookRefused(f"the header {name} {said}", "malformed", MALFORMED)
        if not values[0] or _NOT_PLAIN.search(values[0]):
            raise WebhookRefused(f"the header {name} has blanks in it", "malformed", MALFORMED)
        return values[0]

    def words(self, name: str) -> list[str]:
        """The words of a header that is a list, each between single blanks."""
        values = self._values.get(name.lower(), [])
        words = values[0].split(" ") if len(values) == 1 else []
        if not words or not all(words) or _NOT_PLAIN.search("".join(words)):
            raise WebhookRefused(f"the header {name} is no list", "malformed", MALFORMED)
        return words

    def seconds(self, name: str) -> int:
        """A header that is a time, in Unix seconds."""
        text = self.one(name)
        if not _SECONDS.fullmatch(text):
            raise WebhookRefused(f"the header {name} is no time", "malformed", MALFORMED)
        return int(text)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def check_body(body: object) -> bytes:
    """Return the raw body; raises TypeError for what is parsed already, or WebhookRefused."""
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError("a signature is of the raw bytes of a body: give them as they came")
    body = bytes(body)
    if len(body) > LARGEST_BODY:
        raise WebhookRefused(f"a body of {len(body)} bytes is refused", "too large", TOO_LARGE)
    return body


def check_window(at: int, now: datetime) -> None:
    """Raise WebhookRefused for what was not signed within WINDOW_S of ``now``."""
    away = timedelta(seconds=at) - (now - _EPOCH)
    if abs(away) > timedelta(seconds=WINDOW_S):
        word = "old" if away < timedelta() else "new"
        raise WebhookRefused(
            f"it was signed {abs(away).total_seconds():.0f} s away from now: too {word}",
            "stale",
            STALE,
        )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at_of(seconds: int) -> datetime:
    """A time in Unix seconds."""
    return _EPOCH + timedelta(seconds=seconds)


def payload_of(body: bytes) -> dict[str, Any]:
    """The body as JSON; raises WebhookRefused where it is no JSON object."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        raise WebhookRefused("the body is no JSON object", "malformed", MALFORMED)
    return payload


def id_in(payload: Mapping[str, Any], *names: str) -> str:
    """The first of ``names`` that is an id; raises WebhookRefused where none is."""
    for name in names:
        if isinstance(value := payload.get(name), str) and value and len(value) <= 256:
            return value
    raise WebhookRefused(f"the body has no {names[0]}", "malformed", MALFORMED)


def word_in(payload: Any, *names: str) -> str:
    """The first of ``names`` that is a word; empty where none is."""
    said = [payload.get(name) for name in names] if isinstance(payload, Mapping) else []
    return next((word[:100] for word in said if isinstance(word, str) and word), "")


def from_base64(text: str, *, url_safe: bool = False) -> bytes | None:
    """What ``text`` encodes, padded or not; None for what is not of that alphabet.

    Python's own decoder passes over what it does not know.
    """
    if not (_URL_SAFE if url_safe else _STANDARD).fullmatch(text):
        return None
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), b"-_" if url_safe else None)
    except ValueError:
        return None


def from_hex(text: str) -> bytes | None:
    """What ``text`` encodes; None for what is no hexadecimal number."""
    return bytes.fromhex(text) if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text) else None
