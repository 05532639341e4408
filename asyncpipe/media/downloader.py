"""Stream an output to disk: whole and verified under its final name, or not at all."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiofiles.threadpool import wrap

from asyncpipe._fs import Root, link_trouble
from asyncpipe.errors import DiskError, DownloadError, TooLarge, UsageError
from asyncpipe.http import (
    USER_AGENT,
    Body,
    Entity,
    ask_for_rest,
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
from asyncpipe.media.disk import Disk
from asyncpipe.media.ends import Read, broken
from asyncpipe.media.formats import HEAD_BYTES, read_data_uri, recognise
from asyncpipe.media.parts import (
    Part,
    Partial,
    SmallFile,
    begun,
    disk_trouble,
    head_of,
    keep,
    partials_in,
    stands,
    take_up,
)

READ_BUFFER = 256 * 1024
"""aiohttp's read buffer: with it and ``iter_any`` large bodies move a third faster than in 64 KiB
pieces."""

SMALL = 1024 * 1024
"""Bodies up to here are written, hashed and renamed in one hop to the disk thread."""

PIECE = READ_BUFFER
"""Larger ones are hashed and written in pieces of at least this many bytes. With pieces of 1 MiB,
and 2 MiB in one hop, no more bytes moved a second, and half as much memory again was taken."""

LARGE_URI = 64 * 1024
"""Media inside an answer that are larger are decoded in a thread."""

_TELLING = 16
"""Fewer bytes than this do not tell what they are."""

_WEB = ("https://", "http://")

_PLACE = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?=[/?#]|\Z)")
"""Scheme, host and port of an ordinary URL, in a fifth of the time that ``urlsplit`` takes."""

_HOPS = 5

_CONNECT_S = 15.0

_NETWORK = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file that stands: its path relative to the output folder with ``/``, bytes and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where an output goes.

    The stem relative to the output folder, a name for its part file, and what kind of job it is of.
    Where nobody says that, anything goes, with the default extension where nothing tells another.
    """

    stem: str
    part: str
    default_extension: str = ""
    kind: JobType | None = None


class Downloader:
    """Fetch media into ``folder``; never carries credentials.

    A server that sends less than ``slowest`` bytes/s over ``stalled_s`` seconds, or nothing for as
    long, is given up; there is no limit on the whole time. ``largest`` is the most bytes an output
    may have (None: no limit). ``public_only`` refuses outputs that lead to private, loopback or
    link-local addresses.

    Entering finds what earlier runs left (parts nobody can use go) and opens its session, leaving
    closes it. Entering raises DiskError when the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stalled_s: float = 30.0,
        slowest: float = 1024.0,
        largest: int | None = 8 * 1024**3,
        connections: int = 32,
        public_only: bool = False,
    ) -> None:
        self._folder = folder
        self._public_only = public_only
        self._parts = folder / ".asyncpipe" / "parts"
        self._stalled_s, self._slowest, self._largest = stalled_s, slowest, largest
        self._timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=stalled_s)
        self._connections = connections
        self._disk, self._root = Disk(folder), Root(folder)
        self._proxies: dict[str, str | None] = {}
        self._session: aiohttp.ClientSession | None = None
        self._exit = AsyncExitStack()
        self._partials: dict[str, Partial] = {}
        # Every body gets a name of its own, see parts.py.
        self._run, self._numbers = uuid.uuid4().hex[:8], itertools.count(1)

    async def __aenter__(self) -> Self:
        if trouble := link_trouble(self._parts.parent, self._parts):
            raise DiskError(trouble)
        with disk_trouble(self._folder):
            self._parts.mkdir(parents=True, exist_ok=True)
            self._partials = partials_in(self._parts)
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
        self._disk.close()

    async def fetch(self, url: str, target: Target) -> StoredFile:
        """Fetch ``url`` once, going on from what an earlier try or run left of the same output.

        Raises MediaGone when its server says so, TooLarge, DownloadError for anything else that
        went wrong with it (``have`` tells what is kept for the next try), and DiskError when the
        disk does not take it. Then nothing stands under the final name.
        """
        try:
            return await self._fetch(url, target)
        except DownloadError as exc:
            self._tell_partial(exc, target)
            raise
        except (*_NETWORK, ValueError, UsageError) as exc:
            error = DownloadError(
                f"{_shown(url)} could not be fetched: {_reason(exc)}",
                refused=isinstance(exc, aiohttp.ClientConnectorError),
            )
            self._tell_partial(error, target)
            raise error from (None if isinstance(exc, aiohttp.ClientHttpProxyError) else exc)

    async def stands(self, file: StoredFile) -> bool:
        """Whether a file stands as it was stored; raises DiskError where it cannot be read."""
        if trouble := self._root.trouble(file.path):
            raise DiskError(trouble)
        return await self._disk.hop(
            partial(stands, self._folder / file.path, file.size, file.sha256)
        )

    def _tell_partial(self, error: DownloadError, target: Target) -> None:
        if kept := self._partials.get(target.part):
            error.have, error.total = kept.size, kept.total

    async def _fetch(self, url: str, target: Target) -> StoredFile:
        if url.startswith("data:"):
            read = partial(read_data_uri, url)
            content_type, body = read() if len(url) < LARGE_URI else await self._disk.hop(read)
            self._check_size(len(body))
            path = self._final(body[:HEAD_BYTES], content_type, url, target)
            self._check_end(path, len(body), _reading(body), url, told=False)
            return await self._store_small(body, path, target)
        if not url.startswith(_WEB) and urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(f"an output is neither http, https nor data: {url[:80]!r}")
        kept = self._partials.pop(target.part, None)
        if kept and (part := await self._disk.hop(partial(take_up, kept.path, source_of(url)))):
            with self._held(part, target):
                stored = await self._go_on(part, url, target)
            if stored:
                return stored
        async with await self._answer(url, {}) as response:
            return await self._from_the_start(response, url, target)

    # -- ask ------------------------------------------------------------------------------------

    async def _answer(self, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Ask for a URL; redirects are followed by us, each target checked like the first.

        Returns a 200 or, when ``headers`` ask for a range, whatever says how that stands; the
        caller closes it.
        """
        assert self._session is not None, "the downloader is not open"
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
            shown = _shown(str(response.url))
            accepted = (200, 206, 416) if headers else (200,)
            check_answer(response, accepted, shown=shown)
            if response.status != 416:
                check_coding(response, shown=shown)
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

    # -- receive --------------------------------------------------------------------------------

    async def _go_on(self, part: Part, url: str, target: Target) -> StoredFile | None:
        """Fetch what is missing of a part; None when that cannot be had, and the part is gone."""
        entity, have = part.entity, part.size
        assert entity is not None, "only what has a log is taken up"
        if have == entity.total:  # cut off between its last byte and its name
            return await self._commit(part, entity.content_type, url, target, told=True)
        async with await self._answer(url, ask_for_rest(entity, have)) as response:
            if response.status == 206 and _joins(response, entity, have, source_of(url)):
                total = entity.total or told_total(response.headers)
                await self._receive(part, self._body(response, have), total)
                named = entity.content_type, str(response.url)
                return await self._commit(part, *named, target, told=total is not None)
            if response.status == 200:
                return await self._from_the_start(response, url, target, instead_of=part)
            await self._disk.hop(part.discard)
        return None

    async def _from_the_start(
        self,
        response: aiohttp.ClientResponse,
        url: str,
        target: Target,
        *,
        instead_of: Part | None = None,
    ) -> StoredFile:
        """Fetch all of a body. A part is given up for it only once this one is seen to be media.

        (The page of a hotel's network is a 200, too.)
        """
        total = None if _is_coded(response) else response.content_length
        named = response.content_type, str(response.url)
        self._check_size(total)
        body = self._body(response, 0)
        try:
            pieces = await body.read(SMALL)
        except _NETWORK:
            pieces = body.rest()
            if body.have >= _TELLING and (entity := _entity(response, url)):
                self._final(head_of(pieces), *named, target)
                await self._keep(pieces, entity, target, instead_of)
            raise
        # No page, of 1 GB or not, is worth a file.
        path = self._final(head_of(pieces), *named, target)
        whole = b"".join(pieces) if body.have < SMALL else None
        if whole is not None:
            self._check_end(path, len(whole), _reading(whole), url, told=total is not None)
        if instead_of:
            await self._disk.hop(instead_of.discard)
        if whole is not None:
            return await self._store_small(whole, path, target)
        begin = partial(begun, self._part(target), _entity(response, url), pieces)
        part = await self._disk.hop(begin)
        with self._held(part, target):
            await self._receive(part, body, total)
            return await self._commit(part, *named, target, told=total is not None)

    def _body(self, response: aiohttp.ClientResponse, have: int) -> Body:
        return Body(
            response,
            have=have,
            largest=self._largest,
            slowest=self._slowest,
            window_s=self._stalled_s,
        )

    async def _receive(self, part: Part, body: Body, total: int | None) -> None:
        """Write the rest of a body to its part; what is too large is removed."""
        try:
            self._check_size(total)
            while pieces := await body.read(PIECE):
                await self._write(part, pieces)
        except _NETWORK:
            if part.entity and (pieces := body.rest()):
                await self._write(part, pieces)
            raise
        except TooLarge:
            await self._disk.hop(part.discard)
            raise
        _check_whole(part.size, total)

    # -- store ----------------------------------------------------------------------------------

    async def _store_small(self, body: bytes, path: str, target: Target) -> StoredFile:
        final = f"{self._folder}/{path}"
        small = SmallFile(path=f"{self._parts}/{self._part_name(target)}", final=final, body=body)
        placed, digest = await self._disk.store(small)
        return StoredFile(path=_beside(path, placed), size=len(body), sha256=digest)

    async def _write(self, part: Part, pieces: Sequence[bytes]) -> None:
        with disk_trouble(self._folder):
            await wrap(part, executor=self._disk.executor).writelines(pieces)

    async def _commit(
        self, part: Part, content_type: str, url: str, target: Target, *, told: bool
    ) -> StoredFile:
        def put_down() -> str:
            try:
                path = self._final(part.head, content_type, url, target)
                self._check_end(path, part.size, part.peek, url, told=told)
            except DownloadError:  # complete, and not media: nothing to go on with
                part.discard()
                raise
            return _beside(path, str(part.commit(self._folder / path)))

        path = await self._disk.hop(put_down)
        return StoredFile(path=path, size=part.size, sha256=part.sha256.hexdigest())

    async def _keep(
        self, pieces: Sequence[bytes], entity: Entity, target: Target, instead_of: Part | None
    ) -> None:
        """Make a part of what came of a small body, for a later try to go on with."""
        if instead_of:
            await self._disk.hop(instead_of.discard)
        path = self._part(target)
        size = await self._disk.hop(partial(keep, path, entity, pieces))
        self._partials[target.part] = Partial(path=path, size=size, total=entity.total)

    @contextmanager
    def _held(self, part: Part, target: Target) -> Iterator[None]:
        """Close a part however the block ends, and remember it if it can be gone on with."""
        try:
            yield
        finally:
            if not part.closed:
                if part.entity:
                    kept = Partial(path=part.path, size=part.size, total=part.entity.total)
                    self._partials[target.part] = kept
                # Not awaited: a cancellation could keep it from being begun at all.
                self._disk.executor.submit(part.close if part.entity else part.discard)

    def _part(self, target: Target) -> Path:
        return self._parts / self._part_name(target)

    def _part_name(self, target: Target) -> str:
        return f"{target.part}.{self._run}-{next(self._numbers)}"

    def _final(self, head: bytes, content_type: str, url: str, target: Target) -> str:
        if not head:
            raise DownloadError(f"{_shown(url)} is empty")
        try:
            told = recognise(head, content_type, url, target.kind, target.default_extension)
        except DownloadError as exc:
            raise DownloadError(f"{_shown(url)} {exc}") from None
        path = f"{target.stem}.{told}"
        if trouble := self._root.trouble(path):
            raise DiskError(trouble)
        return path

    def _check_end(self, path: str, size: int, read: Read, url: str, *, told: bool) -> None:
        """Raise DownloadError for a file that is not whole, by what is in it."""
        if problem := broken(path.rpartition(".")[2], size, read, told=told):
            raise DownloadError(f"{_shown(url)} {problem}")

    def _check_size(self, size: int | None) -> None:
        if size is not None and self._largest is not None and size > self._largest:
            raise TooLarge(f"an output of {size} bytes is larger than the {self._largest} allowed")


def _beside(path: str, placed: str) -> str:
    """The path of a file in the folder of ``path`` that stands at ``placed``."""
    return path if placed.endswith(path) else f"{path.rpartition('/')[0]}/{Path(placed).name}"


def _check_whole(size: int, total: int | None) -> None:
    if total is not None and size != total:
        raise ConnectionError(f"it broke off: {size} of {total} bytes")


def _joins(response: aiohttp.ClientResponse, entity: Entity, have: int, source: str) -> bool:
    """Whether a 206 brings what is missing, byte for byte.

    At another place than before its length has to be told, and the same.
    """
    if source != entity.source and told_total(response.headers) != entity.total:
        return False
    return is_rest(response.headers, entity, have) and not _is_coded(response)


def _is_coded(response: aiohttp.ClientResponse) -> bool:
    return coding_of(response.headers.get("Content-Encoding", "")) != ""


def _entity(response: aiohttp.ClientResponse, url: str) -> Entity | None:
    """What a body is, if more of it can be asked for later."""
    known = validator(response.headers, datetime.now(UTC))
    if known is None or _is_coded(response):  # its length and ranges are those of the packed bytes
        return None
    return Entity(
        source=source_of(url),
        validator=known,
        total=response.content_length,
        content_type=response.content_type,
    )


def _reading(body: bytes) -> Read:
    return lambda at, size: body[at : at + size]


def _shown(url: str) -> str:
    """A URL for people: without the query, which may carry a signature."""
    return url.split("?", 1)[0][:200]


def _reason(exc: Exception) -> str:
    """Say what went wrong; a proxy's refusal in our words, since its own hold its password."""
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses to connect to it ({exc.status})"
    return (str(exc) or type(exc).__name__)[:200]
