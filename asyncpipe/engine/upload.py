"""Bring the files a job takes in to the provider: each once, just before it is needed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random

import anyio

from asyncpipe._tasks import Retries, once_more, provider_code, retrying
from asyncpipe.errors import (
    DownloadError,
    NotAccepted,
    ProviderError,
    Rejected,
    UsageError,
)
from asyncpipe.jobs import Job, JobRecord, JobState, LocalFile, is_bucket_url, now
from asyncpipe.ledger import Ledger
from asyncpipe.media import RemoteFile, trouble_with
from asyncpipe.providers import Prediction, Provider, Uploader, upload_url

logger = logging.getLogger("asyncpipe.uploads")

FRESH = timedelta(hours=6)
"""Older URLs are not used: they are temporary, and nobody says for how long. An upload is free."""

AT_ONCE = 4
"""Files on their way at the same time."""

RETRIES = Retries(attempts=4, initial_s=1.0)
"""After so many uploads of a file that fail its job waits like one that was not accepted."""

MOST_KNOWN = 4096
"""URLs kept in memory, the others are asked of the ledger; and so many refusals, the latest."""

_UNREACHABLE = re.compile(
    r"(download|fetch|access|load|retriev|read|reach|open|resolv|expired|not found|no longer"
    r"|invalid|unavailable|下载|获取|访问|过期|失效).{0,80}(url|uri|link|image|video|audio|media|file|input"
    r"|图|视频|音频|文件|链接)"
    r"|(url|uri|link|image|video|audio|media|file|input|图片|视频|音频|文件|链接).{0,80}"
    r"(download|fetch|access|load|retriev|reach|resolv|expired|not found|no longer|unavailable"
    r"|下载|获取|访问|过期|失效)",
    re.IGNORECASE | re.DOTALL,
)


def speaks_of_input(error: str | None) -> bool:
    """Whether an error may mean that the provider could not fetch a job's input.

    Broad on purpose: at worst a file is uploaded once more, which costs nothing.
    """
    return error is not None and _UNREACHABLE.search(error) is not None


def is_fresh(uploaded_at: datetime, at: datetime) -> bool:
    """Whether a URL is young enough to be used; one from the future is of a clock that was off."""
    return timedelta() <= at - uploaded_at <= FRESH


class Uploads:
    """Knows the URL of every file that was uploaded, and uploads what has none.

    The same bytes are never on their way twice: who needs them meanwhile waits.
    """

    def __init__(self, provider: Provider, ledger: Ledger, rng: Random) -> None:
        self._uploader = provider if isinstance(provider, Uploader) else None
        self._ledger, self._rng = ledger, rng
        self._permits = anyio.Semaphore(AT_ONCE)
        self._locks: dict[str, anyio.Lock] = {}
        self._known: OrderedDict[str, tuple[str, datetime]] = OrderedDict()
        self._refused: dict[str, Rejected] = {}
        self._anew: set[int] = set()

    async def ready(self, job: Job) -> Mapping[str, str] | ProviderError:
        """Return the URLs of a job's files, by what is written, or why they cannot be had.

        NotAccepted: try again later. Rejected: never with these files. Nothing is bought here;
        a cancelled upload is only lost.
        """
        try:
            return {text: await self._url(file) for text, file in job.inputs.items()}
        except ProviderError as exc:
            return exc

    def once_more(
        self, record: JobRecord, answer: Prediction | ProviderError
    ) -> Prediction | ProviderError:
        """Take a refusal that speaks of an uploaded file for no refusal, once: its URL may be old.

        Submitted again it is not the same request: the file is uploaded anew.
        """
        if isinstance(answer, Prediction):
            self._anew.discard(record.id)
        refused = isinstance(answer, Rejected) and speaks_of_input(str(answer))
        if not (refused and record.job.inputs):
            return answer
        if record.id in self._anew:
            self._anew.discard(record.id)
            return answer
        self._anew.add(record.id)
        return NotAccepted(str(answer))

    async def doubt(self, before: JobRecord, record: JobRecord) -> None:
        """Forget where an attempt's files are when it may have failed for want of them.

        Its next attempt uploads them anew, in this run within its retries, or in the next.
        """
        if not record.job.inputs or not speaks_of_input(record.attempt.error):
            return
        released = record.failures > before.failures or record.id in self._anew
        if record.state is not JobState.FAILED and not released:
            return
        digests = {file.sha256 for file in record.job.inputs.values()}
        for each in digests:
            self._known.pop(each, None)
        await self._ledger.forget_uploads(digests)

    async def _url(self, file: LocalFile) -> str:
        lock = self._locks.setdefault(file.sha256, anyio.Lock())
        try:
            async with lock:
                return await self._look_up(file.sha256) or await self._upload(file)
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(file.sha256, None)

    async def _look_up(self, sha256: str) -> str | None:
        known = self._known.get(sha256)
        if known is None:
            known = await self._ledger.find_upload(sha256)
        if known is None or not is_fresh(known[1], now()):
            return None
        self._remember(sha256, *known)
        return known[0]

    def _remember(self, sha256: str, url: str, at: datetime) -> None:
        self._known[sha256] = (url, at)
        self._known.move_to_end(sha256)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _upload(self, file: LocalFile) -> str:
        if (refused := self._refused.get(file.sha256)) is not None:
            raise refused
        try:
            async with self._permits:
                url = await self._try(file)
        except Rejected as exc:
            if exc.status is not None:  # the provider's word on these bytes, not on a path
                self._refused[file.sha256] = exc
                while len(self._refused) > MOST_KNOWN:
                    del self._refused[next(iter(self._refused))]
            raise
        at = now()
        await self._ledger.keep_upload(file.sha256, url=url, size=file.size, at=at)
        self._remember(file.sha256, url, at)
        return url

    async def _try(self, file: LocalFile) -> str:
        async def send() -> str:
            if is_bucket_url(file.path):
                return await self._send_object(file)
            await _check(file, read=False)
            url = await self._send(Path(file.path))
            await _check(file, read=True)  # other bytes than the key says must not be bought
            return url

        send_surely = partial(once_more, send)
        try:
            return await retrying(send_surely, RETRIES, on=NotAccepted, rng=self._rng, between=_say)
        except NotAccepted as exc:
            # Not as what it was: a limit of uploads says nothing of the model's window.
            raise NotAccepted(str(exc), status=exc.status) from exc

    async def _send_object(self, file: LocalFile) -> str:
        """Send a copy of an object, which is made and looked at first."""
        async with AsyncExitStack() as stack:
            lent = RemoteFile(file.path).lent()
            try:
                path, sha256 = await asyncio.to_thread(lent.__enter__)
            except UsageError as exc:
                raise Rejected(f"{exc}; nothing was bought: run with --retry-failed") from exc
            except DownloadError as exc:
                raise NotAccepted(str(exc)) from exc
            stack.push_async_callback(asyncio.to_thread, lent.__exit__, None, None, None)
            if sha256 != file.sha256:
                raise Rejected(_CHANGED.format(f"{file.path} has changed since it was checked"))
            return await self._send(path)

    async def _send(self, path: Path) -> str:
        if self._uploader is None:
            raise Rejected("this provider takes no files of this machine: give their URLs")
        try:
            with provider_code("an upload", logger=logger, action="upload.failed"):
                return upload_url(await self._uploader.upload(path))
        except ProviderError as exc:
            if type(exc) is ProviderError:  # a bug in a provider must not end everybody's run
                raise Rejected(str(exc)) from exc
            raise


async def _say(error: NotAccepted, failures: int, pause_s: float) -> float:
    logger.info("upload: %s; once more", error, extra={"action": "upload.failed"})
    return pause_s


async def _check(file: LocalFile, *, read: bool) -> None:
    """Raise Rejected when a file is not the one any more that the job's key stands for."""
    wrong = await asyncio.to_thread(trouble_with, file, read=read)
    if wrong:
        raise Rejected(_CHANGED.format(wrong))


_CHANGED = (
    "{}; nothing was bought: put the file back, then run with --retry-failed, or run again with "
    "what it is now, which is another job"
)
