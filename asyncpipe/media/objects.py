"""Stream an output into a bucket: whole and verified under its final name, or not at all.

Nothing goes by the disk. What fits into one part is stored by one request; what is larger is
uploaded in parts to a name nobody looks at, and copied to its own by the store once it is whole.
Both are refused by the store where there is an object of that name.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType
from typing import Self

import aiohttp
import anyio

from asyncpipe._tasks import Retries
from asyncpipe.errors import AsyncpipeError, DownloadError, MediaGone
from asyncpipe.http import ask_for_rest, source_of
from asyncpipe.jobs import BucketUrl
from asyncpipe.media.bucket import ABORT_S, LARGEST_COPY, PART, PARTS_FOLDER, Bucket
from asyncpipe.media.ends import Passing
from asyncpipe.media.formats import HEAD_BYTES, media_type, read_data_uri
from asyncpipe.media.parts import head_of
from asyncpipe.media.source import (
    LARGE_URI,
    LARGEST,
    NETWORK,
    Source,
    StoredFile,
    Target,
    check_end,
    check_scheme,
    check_whole,
    entity_of,
    joins,
    network_trouble,
    path_of,
    reading,
    total_of,
)

logger = logging.getLogger("asyncpipe.downloader")

PIECE = 1024 * 1024
"""Bytes that are hashed and handed to an upload at once."""

GOING_ON = Retries(attempts=4, initial_s=1.0, maximum_s=8.0)
"""How often a body that broke off is gone on with in a row; any byte begins the count anew."""


class BucketStore:
    """Fetch media into a bucket; the options are those of ``Downloader``.

    An output may have 5 GiB at most, which is what S3 copies. Entering looks whether the store can
    be written, and removes what killed runs left: UsageError where it refuses, DiskError where it
    cannot be reached.
    """

    def __init__(
        self,
        url: BucketUrl,
        *,
        stalled_s: float = 30.0,
        slowest: float = 1024.0,
        largest: int | None = LARGEST,
        connections: int = 32,
        public_only: bool = False,
        rng: Random | None = None,
    ) -> None:
        self.bucket = Bucket(url)
        self._source = Source(
            stalled_s=stalled_s,
            slowest=slowest,
            largest=LARGEST_COPY if largest is None else min(largest, LARGEST_COPY),
            connections=connections,
            public_only=public_only,
        )
        self._rng = rng or Random()
        self._exit = AsyncExitStack()
        self._run, self._numbers = uuid.uuid4().hex[:8], itertools.count(1)

    async def __aenter__(self) -> Self:
        await self.bucket.check()
        await self.bucket.sweep()
        await self._exit.enter_async_context(self._source)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    async def fetch(self, url: str, target: Target) -> StoredFile:
        """Fetch ``url`` once, going on where its server breaks off, while that helps.

        Raises as ``Store.fetch`` does; what came by then is gone with it.
        """
        with network_trouble(url):
            if url.startswith("data:"):
                return await self._store_data(url, target)
            check_scheme(url)
            async with Incoming(self._source, url, self._rng) as incoming:
                return await self._receive(incoming, url, target)

    async def stands(self, file: StoredFile) -> bool:
        """Whether an object stands byte for byte as it was stored."""
        return await self.bucket.stands(file.path, file.size, file.sha256)

    async def _store_data(self, url: str, target: Target) -> StoredFile:
        if len(url) < LARGE_URI:
            content_type, body = read_data_uri(url)
        else:
            content_type, body = await asyncio.to_thread(read_data_uri, url)
        self._source.check_size(len(body))
        path = path_of(body[:HEAD_BYTES], content_type, url, target)
        check_end(path, len(body), reading(body), url, told=False)
        return await self._store_small(body, path)

    async def _receive(self, incoming: Incoming, url: str, target: Target) -> StoredFile:
        self._source.check_size(incoming.total)
        pieces = await incoming.read(PART)
        path = path_of(head_of(pieces), incoming.content_type, incoming.url, target)
        told = incoming.total is not None
        if incoming.have >= PART:
            return await self._store_large(incoming, pieces, path, target)
        check_whole(incoming.have, incoming.total)
        body = b"".join(pieces)
        check_end(path, len(body), reading(body), url, told=told)
        return await self._store_small(body, path)

    async def _store_small(self, body: bytes, path: str) -> StoredFile:
        sha256, told = hashlib.sha256(body).hexdigest(), _type_of(body[:HEAD_BYTES], path)
        file = StoredFile(path=path, size=len(body), sha256=sha256)

        async def put(name: str) -> bool:
            return await self.bucket.put_new(name, body, told)

        return await self._place(file, put)

    async def _store_large(
        self, incoming: Incoming, pieces: list[bytes], path: str, target: Target
    ) -> StoredFile:
        """Upload a body in parts while it comes, look at it, and only then give it its name."""
        head, passing, digest = head_of(pieces), Passing(), hashlib.sha256()
        told_type = _type_of(head, path)
        staged = f"{PARTS_FOLDER}/{target.part}.{self._run}-{next(self._numbers)}"
        async with self.bucket.uploading(staged, told_type) as upload:
            while pieces:
                piece = b"".join(pieces)
                digest.update(piece)
                passing.feed(piece)
                await upload.write(piece)
                pieces = await incoming.read(PIECE)
            check_whole(passing.size, incoming.total)
            told = incoming.total is not None
            check_end(path, passing.size, passing.read, incoming.url, told=told)
        file = StoredFile(path=path, size=passing.size, sha256=digest.hexdigest())

        async def move(name: str) -> bool:
            return await self.bucket.move_new(staged, name, told_type)

        try:
            if await self.bucket.size(staged) != file.size:
                raise DownloadError(f"{staged} is not what was uploaded: once more")
            return await self._place(file, move)
        finally:
            with anyio.move_on_after(ABORT_S, shield=True):
                await self._forget(staged)

    async def _place(self, file: StoredFile, put: Callable[[str], Awaitable[bool]]) -> StoredFile:
        """Give a file its name, or the next one that is free; never that of another object.

        One with the same bytes is it, stored by a run that was killed before it could say so.
        """
        stem, _, ending = file.path.rpartition(".")
        for n in itertools.count(1):
            path = file.path if n == 1 else f"{stem}-{n}.{ending}"
            if await put(path) or await self.bucket.stands(path, file.size, file.sha256):
                return StoredFile(path=path, size=file.size, sha256=file.sha256)
        raise AssertionError

    async def _forget(self, staged: str) -> None:
        """Remove an upload that has its final name, or will never have it; never raises."""
        try:
            await self.bucket.remove(staged)
        except AsyncpipeError as exc:
            logger.warning("%s stays: %s", staged, exc, extra={"action": "part.left"})


class Incoming:
    """A body that is gone on with where it breaks off, as long as its server can do that."""

    def __init__(self, source: Source, url: str, rng: Random) -> None:
        self._source, self._asked, self._rng = source, url, rng
        self._failures = 0

    async def __aenter__(self) -> Self:
        self._take(await self._source.answer(self._asked, {}))
        return self

    def _take(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._entity = entity_of(response, self._asked)
        self.total = total_of(response)
        self.content_type, self.url = response.content_type, str(response.url)
        self._body = self._source.body(response, 0)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()

    @property
    def have(self) -> int:
        """How many bytes have come."""
        return self._body.have

    async def read(self, size: int) -> list[bytes]:
        """Read at least ``size`` bytes, less only at the end; raises what broke it off for good."""
        pieces, enough = list[bytes](), self.have + size
        while True:
            had = self.have
            try:
                return [*pieces, *await self._body.read(max(1, enough - had))]
            except NETWORK as exc:
                got = self._body.rest()
                self._failures = 1 if got else self._failures + 1
                pieces += got
                await self._go_on(exc)

    async def _go_on(self, error: Exception) -> None:
        """Ask for the rest; raises ``error`` where that cannot be had."""
        self._response.close()
        while True:
            pause_s = GOING_ON.pause_s(self._failures, self._rng)
            if self._entity is None or pause_s is None:
                raise error
            await asyncio.sleep(pause_s)
            try:
                rest = ask_for_rest(self._entity, self.have)
                response = await self._source.answer(self._asked, rest)
            except MediaGone:
                raise
            except (DownloadError, *NETWORK):
                self._failures += 1
                continue
            self._response = response
            if response.status != 206 or not joins(
                response, self._entity, self.have, source_of(self._asked)
            ):
                raise error
            self._body = self._source.body(response, self.have)
            return


def _type_of(head: bytes, path: str) -> str:
    """What an object is served as."""
    return media_type(head, path)[1]
