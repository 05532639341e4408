"""Redirects, followed by us: each hop is judged like the first, and none carries credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urljoin, urlsplit

import aiohttp

from asyncpipe.errors import DownloadError
from asyncpipe.http.headers import source_of

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
        asking = session.get(url, headers=headers, proxy=way(url), allow_redirects=False)
        async with asyncio.timeout(head_s):  # headers may trickle, too
            response = await asking
        if response.status not in _MOVED:
            return response
        response.release()
        url = _target(url, response, what)
    raise DownloadError(f"{what} was redirected too often, at last to {_shown(url)}")


def _target(url: str, response: aiohttp.ClientResponse, what: str) -> str:
    location = response.headers.get("Location")
    if not location:
        raise DownloadError(f"{_shown(url)} answers {response.status} and does not say where to")
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise DownloadError(f"{what} was redirected to {target[:80]!r}")
    return target


def _shown(url: str) -> str:
    return source_of(url)[:200]
