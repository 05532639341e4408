"""Fetch the schemas of models: from foreign hosts, without credentials, and never at any price."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import anyio

from asyncpipe.errors import DownloadError, UsageError
from asyncpipe.http.client import USER_AGENT
from asyncpipe.http.hosts import check_host, connector_options, is_loopback, proxy_for

logger = logging.getLogger("asyncpipe.schemas")

LARGEST_SCHEMA = 2 * 1024 * 1024
"""Bytes of a schema that are read at most."""

PATIENCE_S = 30.0
"""How long all of them together may take, in seconds."""

_ONE_S = 15.0

_AT_ONCE = 8

_HOPS = 3

_MOVED = frozenset({301, 302, 303, 307, 308})


async def fetch_schemas(
    urls: Iterable[str], *, loopback: bool, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Return the JSON document behind each URL; those that cannot be had are missing.

    Only https is asked, and only public hosts; with ``loopback`` (the API is on this machine) this
    machine too. Nothing is raised: a schema is a help, and no run waits long for it.
    """
    found: dict[str, Any] = {}
    limiter = anyio.Semaphore(_AT_ONCE)
    async with _session(loopback=loopback) as session:

        async def fetch(url: str) -> None:
            async with limiter:
                document = await _fetch(session, url, loopback=loopback)
            if document is not None:
                found[url] = document

        with anyio.move_on_after(patience_s):
            async with anyio.create_task_group() as tasks:
                for url in dict.fromkeys(urls):
                    tasks.start_soon(fetch, url, name="asyncpipe schema")
    return found


def _session(*, loopback: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_AT_ONCE, **connector_options(guarded=not loopback)),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=_ONE_S),
        auto_decompress=False,
        trust_env=False,
    )


async def _fetch(session: aiohttp.ClientSession, url: str, *, loopback: bool) -> Any:
    """The document, or None."""
    with suppress(RecursionError):
        try:
            for _ in range(_HOPS):
                check_address(url, loopback=loopback)
                async with session.get(url, allow_redirects=False, proxy=proxy_for(url)) as answer:
                    if answer.status in _MOVED:
                        url = urljoin(url, answer.headers.get("Location", ""))
                        continue
                    if answer.status != 200:
                        return None
                    return json.loads(await _bounded(answer))
        except (aiohttp.ClientError, OSError, ValueError, DownloadError, UsageError) as exc:
            logger.info("a schema is not to be had: %s", exc, extra={"action": "schema.failed"})
    return None


def check_address(url: str, *, loopback: bool) -> None:
    """Raise DownloadError for an address no schema is fetched from, ValueError for none at all."""
    parts = urlsplit(url)
    if loopback and parts.scheme in ("http", "https") and is_loopback(parts.hostname or ""):
        return
    if parts.scheme != "https" or parts.username or parts.password:
        raise DownloadError("a schema must be at a plain https address")
    check_host(parts.hostname)


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = answer.content_length or 0
    read = 0
    while size <= LARGEST_SCHEMA and read <= LARGEST_SCHEMA:
        piece = await answer.content.readany()
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        read += len(piece)
    answer.close()
    raise DownloadError(f"a schema is larger than {LARGEST_SCHEMA} bytes")
