"""How assets are linked to in manifest and export, as a user says it: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from asyncpipe.errors import UsageError

LONGEST = timedelta(days=7)
"""No store signs for longer."""

_SPAN = re.compile(r"(\d{1,4})\s*([smhd])")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """How assets are linked to: ``public_url`` is a URL with {path} in it, ``presign`` a time.

    One of both, or none. Raises UsageError.
    """

    public_url: str | None = None
    presign: timedelta | None = None

    @classmethod
    def of(cls, public_url: str | None, presign: str | None) -> Self | None:
        """Read what a user says; None: nothing. Raises UsageError."""
        if public_url is None and presign is None:
            return None
        if public_url is not None and presign is not None:
            raise UsageError("public_url and presign exclude each other: say either")
        if public_url is not None:
            return cls(public_url=checked_template(public_url))
        return cls(presign=span_of(presign or ""))

    @property
    def told(self) -> dict[str, Any]:
        """What a manifest says of them, by which the next one is written alike."""
        if self.presign is not None:
            return {"presign_s": int(self.presign.total_seconds())}
        return {"public_url": self.public_url}

    @classmethod
    def again(cls, told: Any) -> Self | None:
        """What ``told`` was of; None for anything else."""
        match told:
            case {"public_url": str(text)}:
                return cls(public_url=text)
            case {"presign_s": int(seconds)}:
                return cls(presign=timedelta(seconds=min(seconds, 604_800)))
        return None


def checked_template(text: str) -> str:
    """Return a template of URLs; raises UsageError for what makes none."""
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.netloc or text.count("{path}") != 1:
        raise UsageError(
            f"public_url {text[:200]!r}: write a URL with {{path}} where each file's path belongs, "
            "as https://cdn.example.com/{path}"
        )
    if "@" in parts.netloc:
        raise UsageError("public_url: everybody will read it, leave user and password out")
    return text


def span_of(text: str) -> timedelta:
    """Read a time such as 7d, 12h or 30m; raises UsageError."""
    found = _SPAN.fullmatch(text.strip().lower())
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < span <= LONGEST:
        raise UsageError(
            f"presign {text[:40]!r}: write how long links are to live, as 12h or 7d; stores sign "
            "for 7 days at most"
        )
    return span
