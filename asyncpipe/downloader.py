"""Stream an output to disk: whole and verified under its final name, or not at all."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import aiofiles
import aiohttp

from asyncpipe._fs import sync_folder
from asyncpipe.errors import DownloadError, MediaGone, UsageError
from asyncpipe.media import HEAD_BYTES, extension, is_page
from asyncpipe.providers.http import USER_AGENT, proxy_for
from asyncpipe.reach import check_host, connector_options

T = TypeVar("T")

READ_BUFFER = 256 * 1024
"""aiohttp's read buffer: with it and ``iter_any`` large bodies move a third faster than in 64 KiB
pieces."""

SMALL = 1024 * 1024
"""Bodies up to here are written, hashed and renamed in one hop to the disk thread."""

_GONE = frozenset({403, 404, 410})
_MOVED = frozenset({301, 302, 303, 307, 308})
_HOPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file that stands: its path relative to the output folder with ``/``, bytes and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where an output goes.

    The stem relative to the output folder, a name for its part file, and the extension where
    nothing else tells one.
    """

    stem: str
    part: str
    default_extension: str


class Downloader:
    """Fetch media into ``folder``; never carries credentials.

    ``public_only`` refuses outputs that lead to private, loopback or link-local addresses.

    Entering opens its session, leaving closes it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stalled_s: float = 30.0,
        connections: int = 32,
        public_only: bool = False,
    ) -> None:
        self._folder = folder
        self._public_only = public_only
        self._parts = folder / ".asyncpipe" / "parts"
        self._timeout = aiohttp.ClientTimeout(total=None, connect=15, sock_read=stalled_s)
        self._connections = connections
        # Four: fsyncs wait for the disk, not for one another (1.5 x the jobs/s of one, on ext4).
        self._disk = ThreadPoolExecutor(4, thread_name_prefix="asyncpipe-disk")
        self._session: aiohttp.ClientSession | None = None
        self._exit = AsyncExitStack()
        # A write that a cancelled run left in its thread must not meet ours in one file.
        self._run = uuid.uuid4().hex[:8]

    async def __aenter__(self) -> Self:
        self._parts.mkdir(parents=True, exist_ok=True)
        for left in self._parts.iterdir():  # by a run that was cut short
            left.unlink(missing_ok=True)
        self._session = await self._exit.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, **connector_options(guarded=self._public_only)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT},
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
        self._disk.shutdown(wait=False)

    async def fetch(self, url: str, target: Target) -> StoredFile:
        """Fetch ``url`` once.

        Raises MediaGone when its server says so, DownloadError for anything else that went wrong;
        then nothing stands under the final name.
        """
        try:
            if url.startswith("data:"):
                content_type, body = read_data_uri(url)
                return await self._store_small(body, content_type, url, target)
            if urlsplit(url).scheme not in ("http", "https"):
                raise DownloadError(f"an output is neither http, https nor data: {url[:80]!r}")
            return await self._fetch_http(url, target)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, UsageError) as exc:
            reason = str(exc) or type(exc).__name__
            raise DownloadError(f"{_shown(url)} could not be fetched: {reason[:200]}") from exc

    def _get(self, url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask for one URL; redirects are followed by us, each target checked like the first."""
        assert self._session is not None, "the downloader is not open"
        if self._public_only:
            check_host(urlsplit(url).hostname)
        return self._session.get(url, proxy=proxy_for(url), allow_redirects=False)

    async def _fetch_http(self, url: str, target: Target, *, hops: int = 0) -> StoredFile:
        if hops > _HOPS or urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(f"an output was redirected too often, or to {url[:80]!r}")
        async with self._get(url) as response:
            if response.status in _GONE:
                raise MediaGone(f"{_shown(url)} answers {response.status}")
            if response.status in _MOVED:
                return await self._fetch_http(_moved(url, response), target, hops=hops + 1)
            if response.status != 200:
                raise DownloadError(f"{_shown(url)} answers {response.status}")
            chunks = response.content.iter_any()
            head = await _at_least(chunks, SMALL)
            kind = response.content_type
            if len(head) < SMALL:
                _check_length(len(head), response)
                return await self._store_small(head, kind, url, target)
            return await self._store_large(head, chunks, response, target)

    async def _store_small(
        self, body: bytes, content_type: str, url: str, target: Target
    ) -> StoredFile:
        path = self._final(body[:HEAD_BYTES], content_type, url, target)
        write = partial(_write_whole, self._part(target), self._folder / path, body)
        digest = await self._hop(write)
        return StoredFile(path=path, size=len(body), sha256=digest)

    async def _store_large(
        self,
        head: bytes,
        chunks: AsyncIterator[bytes],
        response: aiohttp.ClientResponse,
        target: Target,
    ) -> StoredFile:
        url = str(response.url)
        path = self._final(head[:HEAD_BYTES], response.content_type, url, target)
        part, digest, size = self._part(target), hashlib.sha256(), 0
        async with aiofiles.open(part, "wb") as file:
            block = head
            while block:
                digest.update(block)
                size += len(block)
                await file.write(block)
                block = await _at_least(chunks, READ_BUFFER)
        _check_length(size, response)
        await self._hop(partial(_settle, part, self._folder / path))
        return StoredFile(path=path, size=size, sha256=digest.hexdigest())

    def _part(self, target: Target) -> Path:
        return self._parts / f"{target.part}.{self._run}"

    def _final(self, head: bytes, content_type: str, url: str, target: Target) -> str:
        if not head:
            raise DownloadError(f"{_shown(url)} is empty")
        if is_page(head) and not content_type.startswith("text/plain"):
            raise DownloadError(f"{_shown(url)} is a page of text, not media: {head[:60]!r}")
        return f"{target.stem}.{extension(head, content_type, url, target.default_extension)}"

    async def _hop(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)


def _moved(url: str, response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise DownloadError(f"{_shown(url)} answers {response.status} and does not say where to")
    return urljoin(url, location)


async def _at_least(chunks: AsyncIterator[bytes], size: int) -> bytes:
    """Join chunks until there are ``size`` bytes or no more come."""
    parts, have = [], 0
    async for chunk in chunks:
        parts.append(chunk)
        have += len(chunk)
        if have >= size:
            break
    return b"".join(parts)


def _check_length(size: int, response: aiohttp.ClientResponse) -> None:
    if response.content_length is not None and response.content_length != size:
        raise DownloadError(
            f"{_shown(str(response.url))} broke off: {size} of {response.content_length} bytes"
        )


def _write_whole(part: Path, final: Path, body: bytes) -> str:
    with part.open("wb") as file:
        file.write(body)
    _settle(part, final)
    return hashlib.sha256(body).hexdigest()


def _settle(part: Path, final: Path) -> None:
    """Make a finished part durable under its final name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    part.replace(final)
    sync_folder(final.parent)


def read_data_uri(url: str) -> tuple[str, bytes]:
    """Split a data URI into content type and bytes; raises DownloadError if it is not one."""
    head, comma, body = url.partition(",")
    content_type, *parameters = head.removeprefix("data:").split(";")
    if not comma:
        raise DownloadError("an output is a data URI without any media in it")
    raw = unquote_to_bytes(body)
    if "base64" not in parameters:
        return content_type, raw
    try:
        return content_type, base64.b64decode(raw, validate=False)
    except binascii.Error as exc:
        raise DownloadError(f"an output is a data URI that is not base64: {exc}") from exc


def _shown(url: str) -> str:
    """A URL for people: without the query, which may carry a signature."""
    return url.split("?", 1)[0][:200]
