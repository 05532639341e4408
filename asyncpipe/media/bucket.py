"""A place in an object store: the edge to the library that speaks with all of them.

What is written appears whole under a name that nothing had, or not at all. Keys come from the
environment, as each store's own tools read them, and are never kept or shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from queue import Full, Queue
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncpipe.errors import AsyncpipeError, DiskError, DownloadError, UsageError
from asyncpipe.http import is_loopback
from asyncpipe.jobs import BucketUrl
from asyncpipe.media.refusals import KEYS, StoreTrouble, brief, error_of, trouble_of, without_keys

if TYPE_CHECKING:
    from obstore.store import (
        AzureStore,
        ClientConfig,
        GCSStore,
        RetryConfig,
        S3Config,
        S3Store,
    )

    ObjectStore = S3Store | GCSStore | AzureStore

logger = logging.getLogger("asyncpipe.downloader")

PART = 5 * 1024 * 1024
"""Bytes of one part of an upload, the least that S3 takes; smaller bodies go in one request."""

PARTS_AT_ONCE = 2
"""Parts of one upload on their way; with the one that is being filled they bound its memory."""

LARGEST_COPY = 5 * 1024**3
"""The most bytes that S3 copies in one request."""

PARTS_FOLDER = ".asyncpipe/parts"
"""Where whole uploads wait for their final names."""

LEFT_S = 86_400.0
"""What waits there longer was left by a run that was killed."""

ABORT_S = 10.0
"""How long an upload that is given up may take to tell the store so."""

OPENING_S = 60.0
"""Longest that looking at a store may take before anything is bought."""

_REQUEST = timedelta(minutes=5)

_CONNECT = timedelta(seconds=10)

HASTE = timedelta(seconds=3)
"""How long a ledger's thread may wait for an answer: others wait for it, with their ids of what was
bought."""


class Bucket:
    """The objects of one output place, by their paths in it.

    Every method raises DiskError where the store refuses (keys, rights, the bucket itself), which
    no waiting helps, and DownloadError where it cannot be reached or fails, after a few tries of
    its own.
    """

    def __init__(self, url: BucketUrl) -> None:
        """Raises UsageError where the library is missing, or the environment makes no sense."""
        self.url = url
        self._open = _opener(url, os.environ)
        self._store = self._open("", None)
        self._hasty: ObjectStore | None = None
        self._typed: dict[str, ObjectStore] = {}

    async def check(self) -> None:
        """See that names can be listed and objects written; leaves nothing there.

        Raises UsageError where the store refuses, DiskError where it cannot be reached.
        """
        try:
            async with asyncio.timeout(OPENING_S):
                await self.listing("")
                await self._begin_and_abort()
        except DiskError as exc:
            raise UsageError(f"{exc}; nothing was bought") from exc
        except (DownloadError, TimeoutError) as exc:
            if without_keys(exc):
                raise UsageError(
                    f"{self.url}: there are no keys for it in the environment: "
                    f"{KEYS[self.url.scheme]}; nothing was bought"
                ) from None
            why = str(exc) or f"{self.url} did not answer within {OPENING_S:.0f} s"
            raise DiskError(f"{why}; nothing was bought, run the same command again") from None

    async def _begin_and_abort(self) -> None:
        """Begin an upload and give it up: as much right as storing takes, and nothing appears."""
        with suppress(_Abandoned):
            async with self.uploading(f"{PARTS_FOLDER}/probe-{uuid.uuid4().hex}", _PROBE):
                raise _Abandoned

    async def put_new(self, path: str, body: bytes, media_type: str) -> bool:
        """Store a whole object; False where there is one of that name, which stays."""
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._edge():
                await self._store.put_async(
                    path,
                    body,
                    attributes={"Content-Type": media_type},
                    mode="create",
                    use_multipart=False,
                )
        except AlreadyExistsError:
            return False
        return True

    async def move_new(self, source: str, path: str, media_type: str) -> bool:
        """Give a whole object its final name; False where there is one of that name, which stays.

        The store copies by itself: no byte comes here.
        """
        from obstore.exceptions import AlreadyExistsError

        # Others keep what an object is served as. S3 copies what may not be overwritten by an
        # upload of its own, which takes its media type from the client's.
        store = self._typed.get(media_type) or self._typed.setdefault(
            media_type, self._open(media_type, None)
        )
        try:
            with self._edge():
                await store.copy_async(source, path, overwrite=False)
        except AlreadyExistsError:
            return False
        return True

    @asynccontextmanager
    async def uploading(self, path: str, media_type: str) -> AsyncIterator[Upload]:
        """Store what the block writes: whole once it ends well, and not at all if it does not.

        An object of that name is overwritten. However the block ends, the store is told.
        """
        send, receive = anyio.create_memory_object_stream[bytes](1)
        upload = Upload(send, media_type)
        problem: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._store_all, path, receive, upload, name="asyncpipe upload")
            try:
                yield upload
                send.close()
                await upload.ended.wait()
            except Exception as exc:
                problem = exc  # not out of here: the group would wrap it
                upload.abandon()
            except BaseException:
                upload.abandon()
                raise
            finally:
                send.close()
        if upload.problem is not None and not isinstance(problem, AsyncpipeError):
            raise upload.problem
        if problem is not None:
            raise problem

    async def _store_all(
        self, path: str, receive: MemoryObjectReceiveStream[bytes], upload: Upload
    ) -> None:
        """Carry an upload to its end, good or bad; cancelled, it still tells the store."""
        with upload.scope, receive:
            try:
                with self._edge():
                    await self._store.put_async(
                        path,
                        upload.pieces(receive),
                        attributes={"Content-Type": upload.media_type},
                        use_multipart=True,
                        chunk_size=PART,
                        max_concurrency=PARTS_AT_ONCE,
                    )
            except _Abandoned:
                pass
            except AsyncpipeError as exc:
                upload.problem = exc
            finally:
                upload.ended.set()

    async def size(self, path: str) -> int | None:
        """How many bytes an object has; None if there is none."""
        try:
            with self._edge():
                return (await self._store.head_async(path))["size"]
        except FileNotFoundError:
            return None

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """The bytes of an object, piece by piece; raises FileNotFoundError where there is none."""
        with self._edge():
            answer = await self._store.get_async(path)
            async for piece in answer.stream(PART):
                yield bytes(piece)

    async def stands(self, path: str, size: int, sha256: str | None) -> bool:
        """Whether an object is there as it was stored; without ``sha256``, of the same size."""
        if await self.size(path) != size:
            return False
        if sha256 is None:
            return True
        digest = hashlib.sha256()
        try:
            async for piece in self.read(path):
                digest.update(piece)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    async def remove(self, path: str) -> None:
        """Remove an object; one that is not there is none the less removed."""
        with suppress(FileNotFoundError), self._edge():
            await self._store.delete_async(path)

    async def listing(self, folder: str) -> dict[str, int]:
        """The paths of the objects that lie in a folder, not in those below it, and their bytes."""
        with self._edge():
            found = await self._store.list_with_delimiter_async(folder or None)
        return {each["path"]: each["size"] for each in found["objects"]}

    def names(self, folder: str) -> list[str]:
        """The names of what lies in a folder; blocks a ledger's thread, tries once and not long."""
        if self._hasty is None:
            self._hasty = self._open("", HASTE)
        with self._edge():
            found = self._hasty.list_with_delimiter(folder or None)
        return [each["path"].rpartition("/")[2] for each in found["objects"]]

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of an object; blocks; raises FileNotFoundError where there is none."""
        with self._edge():
            return bytes(self._store.get_range(path, start=0, end=size))

    def look(self, path: str) -> tuple[int, int]:
        """Bytes of an object, and when it was written, in ns; blocks, and raises as well."""
        with self._edge():
            found = self._store.head(path)
        return found["size"], round(found["last_modified"].timestamp() * 1e9)

    def blocks(self, path: str) -> Iterator[bytes]:
        """The bytes of an object, piece by piece; blocks, and raises as well."""
        with self._edge():
            for piece in self._store.get(path).stream(PART):
                yield bytes(piece)

    def sign(self, paths: Sequence[str], span: timedelta) -> list[str]:
        """URLs by which anybody may read objects for so long; blocks while keys are looked for."""
        from obstore import sign

        if not paths:
            return []
        with self._edge():
            return list(sign(self._store, "GET", list(paths), span))

    def replace(self, path: str, pieces: Iterator[bytes], media_type: str) -> None:
        """Write an object anew, whole or not at all: until then, the old one stands; blocks.

        What ``pieces`` raises is raised.
        """
        handed = _Handed()
        with ThreadPoolExecutor(1, thread_name_prefix="asyncpipe-upload") as thread:
            # Apart: inside the library's own threads nothing may use the library.
            storing = thread.submit(self._put_all, path, handed, media_type)
            try:
                for piece in _gathered(pieces):
                    handed.give(piece, storing)
            except BaseException:
                handed.give(None, storing)
                raise
            handed.give(b"", storing)
            storing.result()

    def _put_all(self, path: str, pieces: Iterator[bytes], media_type: str) -> None:
        with suppress(_Abandoned), self._edge():
            self._store.put(
                path,
                pieces,
                attributes={"Content-Type": media_type},
                use_multipart=True,
                chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )

    async def sweep(self) -> None:
        """Remove whole uploads that killed runs left without their final names; never raises."""
        with suppress(AsyncpipeError, FileNotFoundError), self._edge():
            found = await self._store.list_with_delimiter_async(PARTS_FOLDER)
            old = datetime.now(UTC) - timedelta(seconds=LEFT_S)
            for each in found["objects"]:
                if each["last_modified"] < old:
                    await self._store.delete_async(each["path"])

    @contextmanager
    def _edge(self) -> Iterator[None]:
        """Turn what the library raises into errors of ours; names that are there or not pass."""
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            yield
        except AlreadyExistsError:
            raise
        except FileNotFoundError as exc:
            if (trouble := trouble_of(str(exc), type(exc).__name__)) is StoreTrouble.MISSING:
                raise
            raise error_of(self.url, trouble, str(exc)) from None
        except (BaseError, OSError, ValueError) as exc:
            trouble = trouble_of(str(exc), type(exc).__name__)
            raise error_of(self.url, trouble, str(exc)) from None


_PROBE = "application/octet-stream"


class _Handed:
    """Pieces that one thread gives another: b"" is the end of them, None gives them up."""

    def __init__(self) -> None:
        self._pieces = Queue[bytes | None](2)

    def give(self, piece: bytes | None, storing: Future[None]) -> None:
        """Hand over a piece, unless nobody takes one any more."""
        while not storing.done():
            try:
                return self._pieces.put(piece, timeout=1.0)
            except Full:
                continue
        return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = self._pieces.get()
        if piece is None:
            raise _Abandoned
        if not piece:
            raise StopIteration
        return piece


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of some size: each that the library asks for costs a change of threads."""
    gathered, size = list[bytes](), 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _GATHERED:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


_GATHERED = 1024 * 1024


class _Abandoned(Exception):
    """Raised inside the library, which then gives an upload up."""


class Upload:
    """An object that is being written, piece by piece."""

    def __init__(self, send: MemoryObjectSendStream[bytes], media_type: str) -> None:
        self.media_type = media_type
        self.scope = anyio.CancelScope(shield=True)
        self.problem: AsyncpipeError | None = None
        self.ended = anyio.Event()
        self._send = send
        self._abandoned = False

    async def write(self, piece: bytes) -> None:
        """Append bytes; waits while the store is slower than they come."""
        await self._send.send(piece)

    def abandon(self) -> None:
        """Have the store forget what it was given; it gets a moment for that."""
        self._abandoned = True
        self.scope.deadline = anyio.current_time() + ABORT_S

    async def pieces(self, receive: MemoryObjectReceiveStream[bytes]) -> AsyncIterator[bytes]:
        """What was written, as the library asks for it."""
        async for piece in receive:
            yield piece
        if self._abandoned:
            raise _Abandoned


def _opener(
    url: BucketUrl, env: Mapping[str, str]
) -> Callable[[str, timedelta | None], ObjectStore]:
    """What opens a store anew: for objects of a media type, and for requests that must be short.

    Raises UsageError where the library is missing, or the environment makes no sense.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as exc:
        raise UsageError(
            f"{url}: object storage needs a library: pip install 'asyncpipe[s3]'"
        ) from exc
    plain = _may_be_plain(url, env)

    def opened(media_type: str, haste: timedelta | None) -> ObjectStore:
        client: ClientConfig = {
            "timeout": haste or _REQUEST,
            "connect_timeout": min(haste or _CONNECT, _CONNECT),
        }
        if plain:
            client["allow_http"] = True
        if media_type:
            client["default_content_type"] = media_type
        retry = _retries()
        if haste is not None:
            retry["max_retries"] = 0
        try:
            if url.scheme == "s3":
                copying = {} if "AWS_COPY_IF_NOT_EXISTS" in env else _CREATING
                return S3Store(
                    url.bucket,
                    prefix=url.prefix or None,
                    client_options=client,
                    retry_config=retry,
                    config=copying,
                )
            made = GCSStore if url.scheme == "gs" else AzureStore
            return made(
                url.bucket, prefix=url.prefix or None, client_options=client, retry_config=retry
            )
        except (BaseError, ValueError) as exc:
            raise UsageError(
                f"{url} cannot be opened ({brief(str(exc))}): {KEYS[url.scheme]}"
            ) from None

    return opened


_CREATING: S3Config = {"copy_if_not_exists": "multipart"}
"""How S3 copies without overwriting; a store that does it otherwise is told by
AWS_COPY_IF_NOT_EXISTS."""


def _retries() -> RetryConfig:
    """How a request that fails is tried again by the library; a run waits longer by itself."""
    return {
        "max_retries": 5,
        "retry_timeout": timedelta(seconds=60),
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }


_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}


def _may_be_plain(url: BucketUrl, env: Mapping[str, str]) -> bool:
    """Whether a store is asked without TLS: on loopback alone; raises UsageError elsewhere."""
    for name in _ENDPOINTS[url.scheme]:
        told = urlsplit(env.get(name, ""))
        if told.scheme != "http":
            continue
        if not is_loopback(told.hostname or ""):
            raise UsageError(
                f"{name} leads to http://{told.hostname}: everybody on the way could read and "
                "change what is stored, write it with https://"
            )
        return True
    return False
