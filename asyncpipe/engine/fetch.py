"""Bring every output of a paid prediction to where it stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from asyncpipe.engine.chase import Chase, after_fetch, may_help
from asyncpipe.engine.poll import Inquiry
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import (
    AsyncpipeError,
    DiskError,
    DownloadError,
    MediaGone,
    PredictionGone,
    ProviderError,
)
from asyncpipe.jobs import (
    AssetStored,
    FetchFailed,
    JobRecord,
    Succeeded,
    now,
)
from asyncpipe.ledger import INLINE, Ledger
from asyncpipe.media import Store, StoredFile, Target

logger = logging.getLogger("asyncpipe.fetcher")


EXTRA_TRIES = 3
"""After so many failed tries a file that nobody asked for is let go of."""


class Fetcher:
    """Fetch generated jobs under a download permit of their own, apart from the window's.

    Nothing here gives paid media up: each call is one try, which holds the permit no longer; the
    ticket's chase says when to come again. ``retention_s`` is how long the provider keeps media.
    """

    def __init__(
        self,
        *,
        inquiry: Inquiry,
        ledger: Ledger,
        store: Store,
        downloads: int,
        recorder: Recorder,
        stop: Callable[[AsyncpipeError], None],
        clock: Callable[[], float],
        rng: Random,
        retention_s: float,
    ) -> None:
        self._inquiry = inquiry
        self._ledger = ledger
        self._media = store
        self.resize(downloads)
        self._recorder = recorder
        self._stop = stop
        self._clock = clock
        self._rng = rng
        self._retention_s = retention_s

    def resize(self, downloads: int) -> None:
        """Fetch so many at once from now on; what is on its way is counted beside them."""
        self._permits = asyncio.Semaphore(downloads)

    async def fetch(self, ticket: Ticket) -> None:
        """Try once to store what is missing of a generated job; it succeeds, is lost, or waits.

        Of one that is not to be stored nothing is fetched: its outputs' URLs are all it has.
        It waits for the next try in this run with a chase, for the next run without.
        """
        chase = ticket.chase or Chase(since=self._clock())
        again = False
        async with self._permits:
            try:
                await self._fetch_all(ticket, chase)
            except DiskError as exc:
                self._stop(exc)
                error = f"{exc}; the media are paid for and kept"
                event = FetchFailed(job_id=ticket.id, at=now(), error=error)
                self._recorder.record(ticket, event)
            except DownloadError as exc:
                again = self._judge(ticket, exc, chase)
        ticket.pursue(chase if again else None)
        await self._ledger.durable()

    def _judge(self, ticket: Ticket, error: DownloadError, chase: Chase) -> bool:
        """Record what a failed try means; say whether there is to be another one in this run."""
        logger.info("%s: %s", ticket.record.name, error, extra={"action": "fetch.failed"})
        chase.failed(error, self._clock(), self._rng)
        event = after_fetch(
            ticket.record, error, chase.failures, now(), retention_s=self._retention_s
        )
        if event is not None:
            self._recorder.record(ticket, event)
        return may_help(error) and (event is None or event.target is None)

    async def _fetch_all(self, ticket: Ticket, chase: Chase) -> None:
        """Fetch what is missing; raises what kept an output from it, once all were tried.

        Of several errors the first that is not MediaGone: as long as one output may be had the job
        is not lost.
        """
        attempt, errors = ticket.record.attempt, list[DownloadError]()
        stored = {asset.position for asset in attempt.assets} | await self._put_back(ticket)
        if not ticket.job.store:  # what comes inside an answer has no other place
            urls = enumerate(attempt.outputs)
            stored |= {index for index, url in urls if not url.startswith(INLINE)}
        outputs = await self._outputs(ticket.record) if len(stored) < len(attempt.outputs) else ()
        first = len(outputs)
        if attempt.extras:  # told again, there may be fewer of them
            first = min(first, len(attempt.outputs) - attempt.extras)
        asked = {*range(first), *(asset.position for asset in attempt.missing)}
        stems = await self._stems(ticket.record, first) if outputs else []
        for index, (output, stem) in enumerate(zip(outputs, stems, strict=False)):
            if index in stored:
                continue
            try:
                file = await self._fetch_one(ticket.record, index, output, stem, chase)
            except DownloadError as exc:
                if index in asked or not (exc.refused or chase.failures >= EXTRA_TRIES):
                    errors.append(exc)
                    continue
                logger.info("%s: %s", ticket.record.name, exc, extra={"action": "extra.left"})
                continue
            self._store(ticket, index, file)
        if errors:
            raise min(errors, key=lambda error: isinstance(error, MediaGone))
        self._recorder.record(ticket, Succeeded(job_id=ticket.id, at=now()))

    async def _put_back(self, ticket: Ticket) -> set[int]:
        """Record the outputs whose files were missing and are back, byte for byte."""
        back = set()
        for asset in ticket.record.attempt.missing:
            file = StoredFile(path=asset.path, size=asset.size, sha256=asset.sha256)
            if await self._media.stands(file):
                self._store(ticket, asset.position, file)
                back.add(asset.position)
        return back

    def _store(self, ticket: Ticket, index: int, file: StoredFile) -> None:
        event = AssetStored(
            job_id=ticket.id,
            at=now(),
            index=index,
            path=file.path,
            size=file.size,
            sha256=file.sha256,
        )
        self._recorder.record(ticket, event)

    async def _outputs(self, record: JobRecord) -> tuple[str, ...]:
        """The outputs of a job; asked for again where an earlier run's answer held the media."""
        if INLINE not in record.attempt.outputs:
            return record.attempt.outputs
        if outputs := await self._outputs_again(record):
            return outputs
        raise MediaGone("the media came inside an answer that was lost with its run")

    async def _stems(self, record: JobRecord, asked: int) -> list[str]:
        """One stem per output: ``name``, or ``name_1``, ``name_2`` … when there are several.

        Those of extra files follow: ``name_extra_1`` … .
        """
        assert record.stem is not None, "admission fixes the stem"
        stems = [record.stem] if asked == 1 else await self._ledger.claim_parts(record, asked)
        if (extras := record.attempt.extras) > 0:
            stems = [*stems, *await self._ledger.claim_parts(record, extras, word="_extra")]
        return stems

    async def _fetch_one(
        self, record: JobRecord, index: int, output: str, stem: str, chase: Chase
    ) -> StoredFile:
        """Try one output; where its URL is refused, the provider is asked whether it has another.

        Raises DiskError, or DownloadError: MediaGone only when the provider answered that.
        """
        attempt = record.attempt
        extra = index >= len(attempt.outputs) - attempt.extras  # of any kind: a cover of a song
        kind = None if extra else record.job.kind
        target = Target(stem=stem, part=f"{record.id}_{index}.part", kind=kind)
        url = chase.urls.get(index, output)
        try:
            return await self._media.fetch(url, target)
        except DownloadError as exc:
            if not exc.refused:
                raise
            refusal = exc
        try:
            fresh = next(iter((await self._outputs_again(record))[index:]), url)
        except DownloadError as exc:
            logger.info("%s: %s", record.name, exc, extra={"action": "fetch.failed"})
            # Nobody who knows has said that there is no other place.
            raise DownloadError(str(refusal), retry_after_s=refusal.retry_after_s) from exc
        chase.urls[index] = fresh
        # A provider may sign anew for every asking: a new place is tried at once only once.
        if fresh == url or chase.failures:
            raise refusal
        return await self._media.fetch(fresh, target)

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
        attempt = record.attempt
        same = len(answer.outputs) == len(attempt.outputs) - attempt.extras
        return (*answer.outputs, *answer.extras) if same else answer.outputs
