"""Where webhooks may go: out into the world over https, or to this machine where that is said."""

from __future__ import annotations

from urllib.parse import urlsplit

from asyncpipe.errors import DownloadError, UsageError
from asyncpipe.http import check_host, is_loopback, on_loopback

LONGEST_URL = 1024
"""Characters of a URL to call back."""


def callback_url(url: str | None, *, origin: str) -> str | None:
    """Return the URL that a provider at ``origin`` is to call back; raises UsageError.

    It must be https and public; a provider on this machine can call this machine.
    """
    if url is None:
        return None
    if len(url) > LONGEST_URL or not url.isascii():
        raise UsageError(f"webhook_url: at most {LONGEST_URL} plain characters, not {len(url)}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"webhook_url: {url[:100]!r} is no URL") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError("webhook_url: leave user and password out, deliveries are signed")
    if parts.scheme in ("http", "https") and is_loopback(host) and on_loopback(origin):
        return url
    if parts.scheme != "https" or not is_public_host(host):
        raise UsageError(
            f"webhook_url: {parts.scheme}://{host} cannot be called from outside: give an https "
            "URL on a public host that leads to asyncpipe's receiver"
        )
    return url


def is_public_host(host: str) -> bool:
    """Whether a host may be out in the world, by how it is written."""
    try:
        check_host(host)
    except DownloadError:
        return False
    return True
