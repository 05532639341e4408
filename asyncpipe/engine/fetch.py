"""Bring every output of a paid prediction to disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from asyncpipe._tasks import Retries, retrying
from asyncpipe.engine.poll import Inquiry
from asyncpipe.errors import (
    AsyncpipeError,
    DiskError,
    DownloadError,
    MediaGone,
    PredictionGone,
    ProviderError,
    TooLarge,
)
from asyncpipe.jobs import (
    AssetStored,
    Event,
    FetchFailed,
    JobRecord,
    JobType,
    Lost,
    Succeeded,
    changed,
    now,
)
from asyncpipe.ledger import INLINE, Ledger
from asyncpipe.media import Downloader, StoredFile, Target

logger = logging.getLogger("asyncpipe.fetcher")

Emit = Callable[[JobRecord, Event], JobRecord]
"""Folds an event into a record, appends it to the ledger, tells the collector."""

RETRIES = Retries(attempts=5, initial_s=2.0, longest_wish_s=600.0)
"""After so many downloads of an output that fail in a row the job is left to the next run. A media
server that wants us back later than that is asked all the same: a permit is held."""

STEPS = 256
"""A try that kept this share more than any before starts the count anew: at most so many times."""

_EXTENSIONS = {JobType.IMAGE: "png", JobType.VIDEO: "mp4", JobType.AUDIO: "mp3"}


@dataclass(slots=True)
class Patience:
    """How far the tries of one output have come, in bytes."""

    furthest: int = 0

    def further(self, error: DownloadError) -> bool:
        """Whether a failed try kept enough more than any before to be worth another row of them."""
        # Not any byte: a server that gives one per try would hold a download permit for ever.
        if error.have < self.furthest + max(1, (error.total or error.have) // STEPS):
            return False
        self.furthest = error.have
        return True


class Fetcher:
    """Fetch generated jobs under a download permit of their own, apart from the window's.

    Nothing here gives paid media up lightly: a URL that is gone is asked for anew, a download that
    fails is tried again, and what still fails stays ``generated`` for the next run.
    """

    def __init__(
        self,
        *,
        inquiry: Inquiry,
        ledger: Ledger,
        downloader: Downloader,
        downloads: int,
        emit: Emit,
        stop: Callable[[AsyncpipeError], None],
        rng: Random,
    ) -> None:
        self._inquiry = inquiry
        self._ledger = ledger
        self._downloader = downloader
        self._permits = asyncio.Semaphore(downloads)
        self._emit = emit
        self._stop = stop
        self._rng = rng

    async def fetch(self, record: JobRecord) -> JobRecord:
        """Store what is missing of a generated job; returns it succeeded, lost or generated."""
        async with self._permits:
            try:
                record = await self._fetch_all(record)
            except MediaGone as exc:
                record = self._emit(record, Lost(job_id=record.id, at=now(), error=str(exc)))
            except DownloadError as exc:
                error = f"{exc}; it is paid for and kept, run the same command again"
                record = self._emit(record, FetchFailed(job_id=record.id, at=now(), error=error))
            except DiskError as exc:
                self._stop(exc)
                error = f"{exc}; the media are paid for and kept"
                record = self._emit(record, FetchFailed(job_id=record.id, at=now(), error=error))
        await self._ledger.durable()
        return record

    async def _fetch_all(self, record: JobRecord) -> JobRecord:
        if INLINE in record.attempt.outputs:  # came inside an answer of an earlier run
            outputs = await self._inline_again(record)
            record = changed(record, attempt=changed(record.attempt, outputs=outputs))
        stored = {asset.position for asset in record.attempt.assets}
        for index, stem in enumerate(await self._stems(record)):
            if index in stored:
                continue
            file = await self._fetch_one(record, index, stem)
            event = AssetStored(
                job_id=record.id,
                at=now(),
                index=index,
                path=file.path,
                size=file.size,
                sha256=file.sha256,
            )
            record = self._emit(record, event)
        return self._emit(record, Succeeded(job_id=record.id, at=now()))

    async def _inline_again(self, record: JobRecord) -> tuple[str, ...]:
        """Ask again for media that only an answer held; raises MediaGone when that is gone."""

        async def ask() -> tuple[str, ...]:
            if outputs := await self._outputs_again(record):
                return outputs
            raise MediaGone("the media came inside an answer that was lost with its run")

        return await retrying(
            ask,
            RETRIES,
            on=MediaGone,
            rng=self._rng,
            again=lambda _: bool(record.attempt.prediction_id),
        )

    async def _stems(self, record: JobRecord) -> list[str]:
        """One stem per output: ``name``, or ``name_1``, ``name_2`` … when there are several."""
        assert record.stem is not None, "admission fixes the stem"
        count = len(record.attempt.outputs)
        if count == 1:
            return [record.stem]
        return await self._ledger.claim_parts(record, count)

    async def _fetch_one(self, record: JobRecord, index: int, stem: str) -> StoredFile:
        """Try an output a few times; raises DownloadError, or DiskError at once.

        MediaGone is raised only when a try failed so after the provider was asked for the place
        and answered.
        """
        part, extension = f"{record.id}_{index}.part", _EXTENSIONS[record.job.kind]
        target = Target(stem=stem, part=part, default_extension=extension)
        url, answered = record.attempt.outputs[index], False

        async def fetch() -> StoredFile:
            return await self._downloader.fetch(url, target)

        async def ask_anew(error: DownloadError, failures: int, pause_s: float) -> float:
            """Whatever went wrong, the provider may know a better URL by now; asking is free."""
            nonlocal url, answered
            logger.info("%s: %s", record.name, error, extra={"action": "fetch.failed"})
            tried = url
            try:
                url, answered = await self._url_again(record, index, url), True
            except DownloadError as exc:
                logger.info("%s: %s", record.name, exc, extra={"action": "fetch.failed"})
                answered = False
            # A provider may sign anew for every asking: a new place is tried at once only once.
            return 0.0 if url != tried and failures == 1 and not error.retry_after_s else pause_s

        try:
            return await retrying(
                fetch,
                RETRIES,
                on=DownloadError,
                rng=self._rng,
                again=lambda error: not isinstance(error, TooLarge),
                further=Patience().further,
                between=ask_anew,
            )
        except MediaGone as exc:
            if answered:
                raise
            # Nobody who knows has said that there is no other place.
            raise DownloadError(str(exc)) from exc

    async def _url_again(self, record: JobRecord, index: int, url: str) -> str:
        return next(iter((await self._outputs_again(record))[index:]), url)

    async def _outputs_again(self, record: JobRecord) -> tuple[str, ...]:
        """Ask the provider once more where the outputs are; empty if it cannot tell.

        Raises DownloadError when it could not be asked, which says nothing about the media.
        """
        prediction_id, route = record.attempt.prediction_id, record.attempt.route
        if not prediction_id:
            return ()
        try:
            answer = await self._inquiry.poll(prediction_id, route=route)
        except PredictionGone:
            return ()
        except ProviderError as exc:
            raise DownloadError(f"the output could not be asked for anew: {exc}") from exc
        except Exception as exc:  # a bug in a provider must not end everybody's run
            logger.exception("poll failed", extra={"action": "poll.failed"})
            raise DownloadError(f"the provider's code failed during a poll: {exc!r}"[:300]) from exc
        return answer.outputs
