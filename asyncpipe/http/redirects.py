"""Redirects, followed by us: each hop is judged like the first, and none carries credentials."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from asyncpipe._text import shown_url
from asyncpipe.errors import DownloadError

_MOVED = frozenset({301, 302, 303, 307, 308})


async def follow(
    session: aiohttp.ClientSession,
    url: str,
    *,
    way: Callable[[str], str | None],
    hops: int,
    what: str,
    headers: Mapping[str, str] | None = None,
    head_s: float | None = None,
) -> aiohttp.ClientResponse:
    """Ask for ``url`` and return the first answer that is no redirect; the caller closes it.

    ``way`` is asked before each hop: it returns the hop's proxy or None, and raises for an address
    that is not to be asked. At most ``hops`` redirects are followed. ``what`` is fetched, as
    messages name it; the head of each answer must be there within ``head_s`` seconds (None: no
    limit). Raises DownloadError for a redirect to nowhere, and what aiohttp raises.
    """
    for _ in range(hops + 1):
        asking = session.get(as_given(url), headers=headers, proxy=way(url), allow_redirects=False)
        async with asyncio.timeout(head_s):  # headers may trickle, too
            response = await asking
        if response.status not in _MOVED:
            return response
        response.release()
        url = _target(url, response, what)
    raise DownloadError(f"{what} was redirected too often, at last to {shown_url(url)}")


def as_given(url: str) -> URL:
    """An http or https URL whose path and query are requested byte for byte as they are.

    Only what may not stand in a request line is quoted: spaces, controls, and what is no ASCII.
    Raises ValueError for what is no URL.
    """
    parts = urlsplit(url.strip())
    place = URL(f"{parts.scheme}://{parts.netloc}/")  # quotes and checks the host alone
    rest = url.strip().partition("#")[0].partition("//")[2]
    start = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    line = rest[start:]
    if not line.startswith("/"):
        line = f"/{line}"
    quoted = _UNSENDABLE.sub(_quoted, line)
    return URL(f"{place.scheme}://{place.raw_authority}{quoted}", encoded=True)


_UNSENDABLE = re.compile(r"[^!-~]+")


def _quoted(found: re.Match[str]) -> str:
    # A header's bytes that are no UTF-8 come as surrogates.
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _target(url: str, response: aiohttp.ClientResponse, what: str) -> str:
    location = response.headers.get("Location")
    if not location:
        raise DownloadError(f"{shown_url(url)} answers {response.status} and does not say where to")
    location = location.strip()
    # What is whole is not taken apart: signatures are over its very bytes.
    parts = urlsplit(location)
    target = location if parts.scheme and parts.netloc else urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise DownloadError(f"{what} was redirected to {shown_url(target)[:80]!r}")
    return target
