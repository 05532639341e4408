"""What is left of a body, how to ask for the rest, and whether an answer is that rest: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from multidict import CIMultiDict, CIMultiDictProxy

_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.I)


def validator(headers: Mapping[str, str], now: datetime) -> str | None:
    """Return what If-Range may carry: a strong ETag, else a strong Last-Modified, else None.

    A date is strong when the file was at least a second old as it was served (RFC 9110, 8.8.2.2):
    a younger one may change again within the same date. ``now`` stands in for a missing Date.
    """
    etag = headers.get("ETag", "").strip()
    if len(etag) > 2 and etag[0] == etag[-1] == '"':
        return etag
    changed = http_date(headers.get("Last-Modified", ""))
    served = http_date(headers.get("Date", "")) or now
    if changed is None or served - changed < timedelta(seconds=1):
        return None
    return headers["Last-Modified"].strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """One state of one file on a server: bytes of it may be joined, of two of them never.

    ``source`` is its URL without the query (which holds a signature), ``validator`` a strong ETag
    or the date of Last-Modified, ``total`` its size in bytes or None where the server did not say.
    """

    source: str
    validator: str
    total: int | None
    content_type: str

    @property
    def portable(self) -> bool:
        """Whether it can be known again at another place: by a strong ETag and its size."""
        return self.total is not None and self.validator.startswith('"')


def source_of(url: str) -> str:
    """A URL without its query, which may hold a signature, and without its fragment."""
    return url.partition("#")[0].partition("?")[0]


def ask_for_rest(entity: Entity, have: int) -> dict[str, str]:
    """Headers that ask for what is missing of ``entity``, or for all of whatever is there now."""
    return {"Range": f"bytes={have}-", "If-Range": entity.validator}


def is_rest(headers: Mapping[str, str], entity: Entity, have: int) -> bool:
    """Whether a 206 brings the bytes of ``entity`` from ``have`` on.

    Not trusted to have looked at If-Range: a validator it carries must be ours, and an ETag may
    not be left out (RFC 9110, 15.3.7; Last-Modified may).
    """
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is None:
        return False
    start, end = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if start != have or end < start or (total is not None and end >= total):
        return False
    if entity.total is not None and total not in (None, entity.total):
        return False
    if entity.validator.startswith('"'):
        return headers.get("ETag", "").strip() == entity.validator
    return headers.get("Last-Modified", entity.validator).strip() == entity.validator


def told_total(headers: Mapping[str, str]) -> int | None:
    """The whole size that a 206 tells in Content-Range, or None."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    return int(found[3]) if found and found[3] != "*" else None


LONGEST_WAIT_S = 3600.0
"""The most a ``Retry-After`` is believed; a slip of the provider must not park a run for days."""


def header(headers: Mapping[str, str], name: str) -> str:
    """Return a header's value, however its name is cased; "" if it is not there."""
    if isinstance(headers, CIMultiDict | CIMultiDictProxy):  # finds it by itself
        return headers.get(name, "")
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, seconds or an HTTP date, as seconds from now; None if there is none.

    A date counts from the answer's own ``Date``, so that a clock that is off does no harm.
    """
    wish = header(headers, "Retry-After").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", wish):
        return min(float(wish), LONGEST_WAIT_S)
    until = http_date(wish)
    if until is None:
        return None
    since = http_date(header(headers, "Date")) or datetime.now(UTC)
    return min(max((until - since).total_seconds(), 0.0), LONGEST_WAIT_S)


def http_date(text: str) -> datetime | None:
    """Read a date as HTTP has them, in UTC; None for what is none."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None
