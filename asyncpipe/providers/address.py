"""Where an API is, as a user may say it, and a prediction's id as a part of its paths."""

from __future__ import annotations

import re
from urllib.parse import quote

from yarl import URL

from asyncpipe.errors import PredictionGone, UsageError
from asyncpipe.http import is_loopback

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def base_of(text: str, *, example: str, simulated: bool) -> URL:
    """Read an API's base URL, without a slash at its end; ``example`` is one as it should be.

    Raises UsageError for what is no address, for one to which a key would go in the clear, and for
    a simulator that is not on this machine.
    """
    text = text.strip()
    try:
        url = URL(text.rstrip("/"))
        port = url.port
    except ValueError:
        raise UsageError(f"the base URL is not a URL: write it like {example}") from None
    host = url.raw_host or ""
    if not host or port is None or url.scheme not in ("http", "https"):
        raise UsageError(f"the base URL must be whole, like {example}")
    if url.user is not None or url.password is not None:
        raise UsageError(f"the base URL for {host} contains a user or password: take it out")
    if url.query_string or url.fragment or re.search(r"\s", text):
        raise UsageError(f"the base URL for {host} must end with its path, like {example}")
    if not is_loopback(host) and (simulated or url.scheme != "https"):
        what = "a simulator runs on this machine" if simulated else "the key is sent over https"
        raise UsageError(f"the base URL for {host} cannot be used: {what} only")
    return url


def segment(prediction_id: str) -> str:
    """Encode an id as one segment of a path. Raises PredictionGone for what no id can be.

    Servers resolve dot segments even when they are encoded, so those are never sent.
    """
    if _PLAIN.fullmatch(prediction_id):
        return prediction_id
    if not prediction_id or {".", ".."} & set(re.split(r"[/\\]", prediction_id)):
        raise PredictionGone(f"{prediction_id!r} is not a prediction's id")
    return quote(prediction_id, safe="", errors="replace")
