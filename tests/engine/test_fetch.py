"""How long an output is tried, where it is looked for, and when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from asyncpipe.engine.fetch import RETRIES, STEPS, Fetcher, Patience
from asyncpipe.errors import (
    AsyncpipeError,
    DiskError,
    DownloadError,
    MediaGone,
    PollFailed,
    TooLarge,
)
from asyncpipe.jobs.events import Event, FetchFailed, Lost, Succeeded
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import Attempt, JobRecord
from asyncpipe.jobs.states import JobState
from asyncpipe.media.downloader import StoredFile, Target
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.testing import FakeProvider, run_virtual

FILE = StoredFile(path="images/a.png", size=9, sha256="0" * 64)
TRIES = RETRIES.attempts
FIRST, FRESH = "https://media/a.png?sig=1", "https://media/a.png?sig=2"


@dataclass
class FakeDownloader:
    """Ends each try as the script says; the last line of it goes on for ever."""

    script: Sequence[Exception | StoredFile]
    tried: list[str] = field(default_factory=list)

    async def fetch(self, url: str, target: Target) -> StoredFile:
        end = self.script[min(len(self.tried), len(self.script) - 1)]
        self.tried.append(url)
        await anyio.lowlevel.checkpoint()
        if isinstance(end, Exception):
            raise end
        return end


class FakeLedger:
    async def durable(self) -> None:
        await anyio.lowlevel.checkpoint()


@dataclass
class Asked(FakeProvider):
    """A provider that is only asked where an output is: it answers, or raises, in turn."""

    answers: Sequence[tuple[str, ...] | Exception] = ((FIRST,),)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        answer = self.answers[min(self.polls, len(self.answers) - 1)]
        self.polls += 1
        if isinstance(answer, Exception):
            raise answer
        return Prediction(id="p1", status=PredictionStatus.COMPLETED, outputs=answer)


def fetch(
    downloader: FakeDownloader,
    provider: FakeProvider | None = None,
    stops: list[AsyncpipeError] | None = None,
) -> tuple[list[Event], float]:
    """Fetch one job with one output; returns the events and the virtual seconds it took."""
    events: list[Event] = []
    stopped: list[AsyncpipeError] = stops if stops is not None else []

    def emit(record: JobRecord, event: Event) -> JobRecord:
        events.append(event)
        return record

    async def main() -> float:
        fetcher = Fetcher(
            inquiry=cast(Any, provider or Asked()),
            ledger=cast(Any, FakeLedger()),
            downloader=cast(Any, downloader),
            downloads=1,
            emit=emit,
            stop=stopped.append,
            rng=Random(1),
        )
        job = Job(name="a", model="black-forest-labs/flux-2-pro/text-to-image", prompt="x")
        record = JobRecord(
            id=1,
            key="k",
            name="a",
            job=job,
            state=JobState.GENERATED,
            stem="images/a",
            attempt=Attempt(n=1, prediction_id="p1", outputs=(FIRST,)),
        )
        with anyio.fail_after(36_000):
            await fetcher.fetch(record)
        return anyio.current_time()

    return events, run_virtual(main())


def broke_off(have: int, total: int | None = 1000) -> DownloadError:
    return DownloadError("broke off", have=have, total=total)


def test_a_download_that_gets_no_further_is_left_to_the_next_run() -> None:
    """TRIES of them; the job stays generated, with the error and the remedy."""
    downloader = FakeDownloader([broke_off(500)])
    events, _ = fetch(downloader)
    assert len(downloader.tried) == TRIES
    assert [type(event) for event in events] == [FetchFailed]
    assert "run the same command again" in str(cast(FetchFailed, events[0]).error)


def test_a_download_that_gets_further_is_tried_on() -> None:
    """However often it breaks off."""
    downloader = FakeDownloader([*(broke_off(10 * n) for n in range(1, 90)), FILE])
    events, _ = fetch(downloader)
    assert len(downloader.tried) == 90
    assert isinstance(events[-1], Succeeded)


@pytest.mark.parametrize("total", [1_000_000, None])
def test_a_byte_at_a_time_is_no_progress(total: int | None) -> None:
    """A server that gives next to nothing per try cannot keep a download permit for ever."""
    patience, tries, row = Patience(), 1, 0
    while row < TRIES:
        row = 1 if patience.further(broke_off(tries, total)) else row + 1
        tries += 1
        assert tries < TRIES * STEPS * 10


def test_progress_is_further_than_any_try_before() -> None:
    """Begun anew and as far as before is not further."""
    downloader = FakeDownloader([broke_off(have) for have in (900, 100, 500, 899, 900, 900, 900)])
    fetch(downloader)
    assert len(downloader.tried) == TRIES


def test_too_large_is_tried_once() -> None:
    """It would be as large again; the next run, with another limit perhaps, may try."""
    downloader = FakeDownloader([TooLarge("too large")])
    events, took_s = fetch(downloader)
    assert (len(downloader.tried), took_s) == (1, 0.0)
    assert [type(event) for event in events] == [FetchFailed]


def test_disk_trouble_is_not_tried_again() -> None:
    """It is not this job's: who runs the batch has to hear of it."""
    downloader = FakeDownloader([DiskError("no space")])
    stops: list[AsyncpipeError] = []
    events, _ = fetch(downloader, stops=stops)
    assert [type(stop) for stop in stops] == [DiskError]
    assert [type(event) for event in events] == [FetchFailed]
    assert len(downloader.tried) == 1


def test_a_fresh_url_is_tried_at_once() -> None:
    """An expired signature costs one question."""
    downloader = FakeDownloader([MediaGone("403"), FILE])
    events, took_s = fetch(downloader, Asked(answers=[(FRESH,)]))
    assert downloader.tried == [FIRST, FRESH]
    assert took_s == 0.0
    assert isinstance(events[-1], Succeeded)


@pytest.mark.parametrize("answers", [[(FIRST,)], [(FRESH,)]], ids=["same", "fresh"])
def test_media_is_lost_when_it_is_gone_where_the_provider_says_it_is(
    answers: list[tuple[str, ...]],
) -> None:
    """After TRIES with pauses between them: a 403 may pass."""
    downloader = FakeDownloader([MediaGone("404")])
    events, took_s = fetch(downloader, Asked(answers=answers))
    assert [type(event) for event in events] == [Lost]
    assert len(downloader.tried) == TRIES
    assert took_s > 5.0


def test_a_url_signed_anew_each_time_is_not_tried_in_one_go() -> None:
    """Else five tries in a row, within a second, would make media lost."""
    answers = [(f"{FIRST}{n}",) for n in range(9)]
    _, took_s = fetch(FakeDownloader([MediaGone("403")]), Asked(answers=answers))
    assert took_s > 5.0


@pytest.mark.parametrize("answers", [[PollFailed("502")], [(FIRST,), PollFailed("502")]])
def test_media_is_not_lost_while_the_provider_cannot_be_asked(
    answers: list[tuple[str, ...] | Exception],
) -> None:
    """It may know another place: the next run asks."""
    downloader = FakeDownloader([MediaGone("404")])
    events, _ = fetch(downloader, Asked(answers=answers))
    assert [type(event) for event in events] == [FetchFailed]


def test_trouble_on_the_way_is_not_lost_media() -> None:
    """Gone once and broken off at last: it is there."""
    downloader = FakeDownloader([MediaGone("404"), broke_off(0)])
    events, _ = fetch(downloader)
    assert [type(event) for event in events] == [FetchFailed]


def test_a_media_server_that_asks_for_time_gets_it() -> None:
    """Retry-After of a download: longer than our own pause, and also where the place is new."""
    busy = DownloadError("503", retry_after_s=90.0)
    _, took_s = fetch(FakeDownloader([busy, FILE]), Asked(answers=[(FRESH,)]))
    assert 90.0 <= took_s < 100.0
    forever = DownloadError("503", retry_after_s=1e6)
    _, took_s = fetch(FakeDownloader([forever, FILE]))
    assert took_s < 1_000.0
