"""Where outputs come from: ask for a URL without credentials, and judge what is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from asyncpipe._text import shown_url
from asyncpipe.errors import DownloadError, TooLarge, UsageError
from asyncpipe.http import (
    USER_AGENT,
    Body,
    Entity,
    check_answer,
    check_coding,
    check_host,
    coding_of,
    connector_options,
    follow,
    is_rest,
    proxy_for,
    source_of,
    told_total,
    validator,
)
from asyncpipe.jobs import JobType
from asyncpipe.media.ends import Read, broken
from asyncpipe.media.formats import recognise

READ_BUFFER = 256 * 1024
"""aiohttp's read buffer: with it and ``iter_any`` large bodies move a third faster than in 64 KiB
pieces."""

LARGE_URI = 64 * 1024
"""Media inside an answer that are larger are decoded in a thread."""

LARGEST = 8 * 1024**3
"""The most bytes that an output may have, unless told otherwise."""

NETWORK = (aiohttp.ClientError, TimeoutError, OSError)
"""What a network raises."""

_WEB = ("https://", "http://")

_PLACE = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?=[/?#]|\Z)")
"""Scheme, host and port of an ordinary URL, in a fifth of the time that ``urlsplit`` takes."""

_HOPS = 5

_CONNECT_S = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file that stands: its path relative to the output place with ``/``, bytes and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where an output goes.

    The stem relative to the output place, a name for its part file, and what kind of job it is of.
    Where nobody says that, anything goes, with the default extension where nothing tells another.
    """

    stem: str
    part: str
    default_extension: str = ""
    kind: JobType | None = None


class Source:
    """Asks for media; never carries credentials.

    A server that sends less than ``slowest`` bytes/s over ``stalled_s`` seconds, or nothing for as
    long, is given up; there is no limit on the whole time. ``largest`` is the most bytes an output
    may have (None: no limit). ``public_only`` refuses outputs that lead to private, loopback or
    link-local addresses. Entering opens its session, leaving closes it.
    """

    def __init__(
        self,
        *,
        stalled_s: float,
        slowest: float,
        largest: int | None,
        connections: int,
        public_only: bool,
    ) -> None:
        self._public_only = public_only
        self._stalled_s, self._slowest, self._largest = stalled_s, slowest, largest
        self._timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=stalled_s)
        self._connections = connections
        self._proxies: dict[str, str | None] = {}
        self._session: aiohttp.ClientSession | None = None
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._session = await self._exit.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, **connector_options(guarded=self._public_only)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                timeout=self._timeout,
                read_bufsize=READ_BUFFER,
                auto_decompress=False,
                trust_env=False,
            )
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    async def answer(self, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Ask for a URL; redirects are followed by us, each target checked like the first.

        Returns a 200 or, when ``headers`` ask for a range, whatever says how that stands; the
        caller closes it.
        """
        assert self._session is not None, "the source is not open"
        response = await follow(
            self._session,
            url,
            way=self._way,
            hops=_HOPS,
            what="an output",
            headers=headers,
            head_s=_CONNECT_S + self._stalled_s,
        )
        try:
            said = shown_url(str(response.url))
            accepted = (200, 206, 416) if headers else (200,)
            check_answer(response, accepted, shown=said)
            if response.status != 416:
                check_coding(response, shown=said)
        except BaseException:
            response.close()
            raise
        return response

    def _way(self, url: str) -> str | None:
        """The proxy to a URL, or None; raises DownloadError for an address that is refused."""
        place = plain[0] if (plain := _PLACE.match(url)) else "//".join(urlsplit(url)[:2])
        if place not in self._proxies:  # asking the environment costs as much as a small request
            if self._public_only:
                check_host(urlsplit(url).hostname)
            self._proxies[place] = proxy_for(url)
        return self._proxies[place]

    def body(self, response: aiohttp.ClientResponse, have: int) -> Body:
        """The body of an answer, of which ``have`` bytes need not come."""
        return Body(
            response,
            have=have,
            largest=self._largest,
            slowest=self._slowest,
            window_s=self._stalled_s,
        )

    def check_size(self, size: int | None) -> None:
        """Raise TooLarge for an output of so many bytes that is larger than allowed."""
        if size is not None and self._largest is not None and size > self._largest:
            raise TooLarge(f"an output of {size} bytes is larger than the {self._largest} allowed")


def check_scheme(url: str) -> None:
    """Raise DownloadError for what is neither http nor https."""
    if not url.startswith(_WEB) and urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"an output is neither http, https nor data: {shown_url(url)[:80]!r}")


def path_of(head: bytes, content_type: str, url: str, target: Target) -> str:
    """The path that an output gets, by its first bytes; raises DownloadError for what is none."""
    if not head:
        raise DownloadError(f"{shown_url(url)} is empty")
    try:
        told = recognise(head, content_type, url, target.kind, target.default_extension)
    except DownloadError as exc:
        raise DownloadError(f"{shown_url(url)} {exc}") from None
    return f"{target.stem}.{told}"


def check_end(path: str, size: int, read: Read, url: str, *, told: bool) -> None:
    """Raise DownloadError for a file that is not whole, by what is in it."""
    if problem := broken(path.rpartition(".")[2], size, read, told=told):
        raise DownloadError(f"{shown_url(url)} {problem}")


def check_whole(size: int, total: int | None) -> None:
    """Raise ConnectionError for a body that is shorter or longer than was told."""
    if total is not None and size != total:
        raise ConnectionError(f"it broke off: {size} of {total} bytes")


def joins(response: aiohttp.ClientResponse, entity: Entity, have: int, source: str) -> bool:
    """Whether a 206 brings what is missing, byte for byte.

    At another place than before its length has to be told, and the same.
    """
    if source != entity.source and told_total(response.headers) != entity.total:
        return False
    return is_rest(response.headers, entity, have) and not is_coded(response)


def is_coded(response: aiohttp.ClientResponse) -> bool:
    """Whether a body comes packed."""
    return coding_of(response.headers.get("Content-Encoding", "")) != ""


def entity_of(response: aiohttp.ClientResponse, url: str) -> Entity | None:
    """What a body is, if more of it can be asked for later."""
    known = validator(response.headers, datetime.now(UTC))
    if known is None or is_coded(response):  # its length and ranges are those of the packed bytes
        return None
    return Entity(
        source=source_of(url),
        validator=known,
        total=response.content_length,
        content_type=response.content_type,
    )


def total_of(response: aiohttp.ClientResponse) -> int | None:
    """How many bytes a body is said to have; None where nobody says, as of a packed one."""
    return None if is_coded(response) else response.content_length


def reading(body: bytes) -> Read:
    """Read from bytes in memory."""
    return lambda at, size: body[at : at + size]


@contextmanager
def network_trouble(url: str) -> Iterator[None]:
    """Turn what a network raises, or a URL that is none, into a DownloadError about ``url``."""
    try:
        yield
    except (*NETWORK, ValueError, UsageError) as exc:
        raise DownloadError(
            f"{shown_url(url)} could not be fetched: {_reason(exc)}",
            refused=isinstance(exc, aiohttp.ClientConnectorError),
        ) from (None if isinstance(exc, aiohttp.ClientHttpProxyError) else exc)


def _reason(exc: Exception) -> str:
    """Say what went wrong; a proxy's refusal in our words, since its own hold its password."""
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses to connect to it ({exc.status})"
    return (str(exc) or type(exc).__name__)[:200]
