"""Stream an output to disk: whole and verified under its final name, or not at all."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiofiles.threadpool import wrap

from asyncpipe._fs import Root, link_trouble
from asyncpipe.errors import DiskError, DownloadError, TooLarge
from asyncpipe.http import Body, Entity, ask_for_rest, source_of, told_total
from asyncpipe.media.disk import Disk
from asyncpipe.media.formats import HEAD_BYTES, read_data_uri
from asyncpipe.media.parts import (
    Part,
    Partial,
    SmallFile,
    begun,
    disk_trouble,
    forget_old,
    head_of,
    keep,
    partials_in,
    stands,
    take_up,
)
from asyncpipe.media.source import (
    LARGE_URI,
    LARGEST,
    NETWORK,
    READ_BUFFER,
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

SMALL = 1024 * 1024
"""Bodies up to here are written, hashed and renamed in one hop to the disk thread."""

PIECE = READ_BUFFER
"""Larger ones are hashed and written in pieces of at least this many bytes. With pieces of 1 MiB,
and 2 MiB in one hop, no more bytes moved a second, and half as much memory again was taken."""

_TELLING = 16
"""Fewer bytes than this do not tell what they are."""


class Downloader:
    """Fetch media into ``folder``; never carries credentials.

    A server that sends less than ``slowest`` bytes/s over ``stalled_s`` seconds, or nothing for as
    long, is given up; there is no limit on the whole time. ``largest`` is the most bytes an output
    may have (None: no limit). ``public_only`` refuses outputs that lead to private, loopback or
    link-local addresses.

    Entering finds what earlier runs left (parts nobody can use go; where the folder is ``shared``
    with other processes only old ones, and nothing is gone on with) and opens its session, leaving
    closes it. Entering raises DiskError when the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stalled_s: float = 30.0,
        slowest: float = 1024.0,
        largest: int | None = LARGEST,
        connections: int = 32,
        public_only: bool = False,
        shared: bool = False,
    ) -> None:
        self._folder, self._shared = folder, shared
        self._parts = folder / ".asyncpipe" / "parts"
        self._source = Source(
            stalled_s=stalled_s,
            slowest=slowest,
            largest=largest,
            connections=connections,
            public_only=public_only,
        )
        self._disk, self._root = Disk(folder), Root(folder)
        self._exit = AsyncExitStack()
        self._partials: dict[str, Partial] = {}
        # Every body gets a name of its own, see parts.py.
        self._run, self._numbers = uuid.uuid4().hex[:8], itertools.count(1)

    async def __aenter__(self) -> Self:
        if trouble := link_trouble(self._parts.parent, self._parts):
            raise DiskError(trouble)
        with disk_trouble(self._folder):
            self._parts.mkdir(parents=True, exist_ok=True)
            if self._shared:
                forget_old(self._parts)
            else:
                self._partials = partials_in(self._parts)
        await self._exit.enter_async_context(self._source)
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
            with network_trouble(url):
                return await self._fetch(url, target)
        except DownloadError as exc:
            self._tell_partial(exc, target)
            raise

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
            self._source.check_size(len(body))
            path = self._final(body[:HEAD_BYTES], content_type, url, target)
            check_end(path, len(body), reading(body), url, told=False)
            return await self._store_small(body, path, target)
        check_scheme(url)
        kept = self._partials.pop(target.part, None)
        if kept and (part := await self._disk.hop(partial(take_up, kept.path, source_of(url)))):
            with self._held(part, target):
                stored = await self._go_on(part, url, target)
            if stored:
                return stored
        async with await self._source.answer(url, {}) as response:
            return await self._from_the_start(response, url, target)

    # -- receive --------------------------------------------------------------------------------

    async def _go_on(self, part: Part, url: str, target: Target) -> StoredFile | None:
        """Fetch what is missing of a part; None when that cannot be had, and the part is gone."""
        entity, have = part.entity, part.size
        assert entity is not None, "only what has a log is taken up"
        if have == entity.total:  # cut off between its last byte and its name
            return await self._commit(part, entity.content_type, url, target, told=True)
        async with await self._source.answer(url, ask_for_rest(entity, have)) as response:
            if response.status == 206 and joins(response, entity, have, source_of(url)):
                total = entity.total or told_total(response.headers)
                await self._receive(part, self._source.body(response, have), total)
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
        total = total_of(response)
        named = response.content_type, str(response.url)
        self._source.check_size(total)
        body = self._source.body(response, 0)
        try:
            pieces = await body.read(SMALL)
        except NETWORK:
            pieces = body.rest()
            if body.have >= _TELLING and (entity := entity_of(response, url)):
                self._final(head_of(pieces), *named, target)
                await self._keep(pieces, entity, target, instead_of)
            raise
        # No page, of 1 GB or not, is worth a file.
        path = self._final(head_of(pieces), *named, target)
        whole = b"".join(pieces) if body.have < SMALL else None
        if whole is not None:
            check_end(path, len(whole), reading(whole), url, told=total is not None)
        if instead_of:
            await self._disk.hop(instead_of.discard)
        if whole is not None:
            return await self._store_small(whole, path, target)
        begin = partial(begun, self._part(target), entity_of(response, url), pieces)
        part = await self._disk.hop(begin)
        with self._held(part, target):
            await self._receive(part, body, total)
            return await self._commit(part, *named, target, told=total is not None)

    async def _receive(self, part: Part, body: Body, total: int | None) -> None:
        """Write the rest of a body to its part; what is too large is removed."""
        try:
            self._source.check_size(total)
            while pieces := await body.read(PIECE):
                await self._write(part, pieces)
        except NETWORK:
            if part.entity and (pieces := body.rest()):
                await self._write(part, pieces)
            raise
        except TooLarge:
            await self._disk.hop(part.discard)
            raise
        check_whole(part.size, total)

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
                check_end(path, part.size, part.peek, url, told=told)
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
        path = path_of(head, content_type, url, target)
        if trouble := self._root.trouble(path):
            raise DiskError(trouble)
        return path


def _beside(path: str, placed: str) -> str:
    """The path of a file in the folder of ``path`` that stands at ``placed``."""
    return path if placed.endswith(path) else f"{path.rpartition('/')[0]}/{Path(placed).name}"
