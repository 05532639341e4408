"""How an output is tried, where it is looked for, and when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from asyncpipe.engine.chase import (
    GONE_TRIES,
    LONGEST_WISH_S,
    MAXIMUM_S,
    STEPS,
    Chase,
    after_fetch,
)
from asyncpipe.engine.fetch import Fetcher
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import (
    AsyncpipeError,
    DiskError,
    DownloadError,
    MediaGone,
    PollFailed,
    TooLarge,
)
from asyncpipe.jobs.events import Event, FetchFailed, Lost, Succeeded, now
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import Attempt, JobRecord, fold
from asyncpipe.jobs.states import JobState
from asyncpipe.media.source import StoredFile, Target
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.testing import FakeProvider, run_virtual

FILE = StoredFile(path="images/a.png", size=9, sha256="0" * 64)
DAY_S = 86_400.0
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

    async def claim_parts(self, record: JobRecord, count: int) -> list[str]:
        await anyio.lowlevel.checkpoint()
        return [f"{record.stem}_{n}" for n in range(count)]


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


@dataclass
class Noted:
    """A recorder that only notes."""

    events: list[Event] = field(default_factory=list)

    def record(self, ticket: Ticket, event: Event) -> None:
        self.events.append(event)
        ticket.record = fold(ticket.record, event)


def generated(age_s: float = 0.0, outputs: tuple[str, ...] = (FIRST,)) -> JobRecord:
    job = Job(name="a", model="black-forest-labs/flux-2-pro/text-to-image", prompt="x")
    bought = now() - timedelta(seconds=age_s)
    return JobRecord(
        id=1,
        key="k",
        name="a",
        job=job,
        state=JobState.GENERATED,
        stem="images/a",
        attempt=Attempt(n=1, prediction_id="p1", outputs=outputs, submitted_at=bought),
    )


def fetch(
    downloader: FakeDownloader,
    provider: FakeProvider | None = None,
    stops: list[AsyncpipeError] | None = None,
    *,
    record: JobRecord | None = None,
    within_s: float = 3600.0,
) -> tuple[list[Event], float]:
    """Fetch one job as often as it wants; returns the events and the virtual seconds it took."""
    noted = Noted()
    stopped: list[AsyncpipeError] = stops if stops is not None else []
    ticket = Ticket(record or generated())

    async def main() -> float:
        fetcher = Fetcher(
            inquiry=cast(Any, provider or Asked()),
            ledger=cast(Any, FakeLedger()),
            store=cast(Any, downloader),
            downloads=1,
            recorder=cast(Any, noted),
            stop=stopped.append,
            clock=anyio.current_time,
            rng=Random(1),
            retention_s=14 * DAY_S,
        )
        with anyio.move_on_after(within_s):
            await fetcher.fetch(ticket)
            while (chase := ticket.chase) is not None:
                await anyio.sleep(chase.due - anyio.current_time())
                await fetcher.fetch(ticket)
        return anyio.current_time()

    took_s = run_virtual(main())
    return noted.events, took_s


def broke_off(have: int, total: int | None = 1000) -> DownloadError:
    return DownloadError("broke off", have=have, total=total)


def test_a_download_is_tried_as_long_as_the_run_lasts() -> None:
    """With gaps that grow up to a minute; what is wrong is written down once."""
    downloader = FakeDownloader([DownloadError("https://h/a answers 500")])
    events, _ = fetch(downloader)
    assert [type(event) for event in events] == [FetchFailed]
    assert 3600 / MAXIMUM_S <= len(downloader.tried) <= 2 * 3600 / MAXIMUM_S + 10


@pytest.mark.parametrize("error", [MediaGone("403"), DownloadError("500"), broke_off(0)])
@pytest.mark.parametrize("away", [9, 30])
def test_media_that_come_back_are_stored(error: DownloadError, away: int) -> None:
    """However they were refused, and for minutes: nothing is given up."""
    events, took_s = fetch(FakeDownloader([error] * away + [FILE]))
    assert isinstance(events[-1], Succeeded)
    assert took_s > 60


def test_each_try_gives_its_permit_back() -> None:
    """One that waits for the next keeps nobody from downloading."""
    noted, tried = Noted(), []

    class Downloader(FakeDownloader):
        async def fetch(self, url: str, target: Target) -> StoredFile:
            tried.append(target.stem)
            return await super().fetch(url, target)

    async def main() -> None:
        fetcher = Fetcher(
            inquiry=cast(Any, Asked()),
            ledger=cast(Any, FakeLedger()),
            store=cast(Any, Downloader([DownloadError("500"), FILE])),
            downloads=1,
            recorder=cast(Any, noted),
            stop=lambda _: None,
            clock=anyio.current_time,
            rng=Random(1),
            retention_s=DAY_S,
        )
        first, second = Ticket(generated()), Ticket(generated())
        await fetcher.fetch(first)
        assert anyio.current_time() == 0.0
        await fetcher.fetch(second)
        assert (first.state, second.state) == (JobState.GENERATED, JobState.SUCCEEDED)

    run_virtual(main())


def test_a_download_that_gets_further_begins_the_pauses_anew() -> None:
    """However often it breaks off."""
    downloader = FakeDownloader([*(broke_off(10 * n) for n in range(1, 90)), FILE])
    events, took_s = fetch(downloader)
    assert len(downloader.tried) == 90
    assert isinstance(events[-1], Succeeded)
    assert took_s < 90 * 2.0


@pytest.mark.parametrize("total", [1_000_000, None])
def test_a_byte_at_a_time_is_no_progress(total: int | None) -> None:
    """A server that gives next to nothing per try does not keep a run up for ever."""
    chase, rng, stirred = Chase(since=0.0), Random(1), set()
    for n in range(1, 10 * STEPS):
        chase.failed(broke_off(n, total), float(n), rng)
        stirred.add(chase.since)
    assert len(stirred) < 4 * STEPS


def test_progress_is_further_than_any_try_before() -> None:
    """Begun anew and as far as before is not further."""
    chase, rng = Chase(since=0.0), Random(1)
    for at, have in enumerate((900, 100, 500, 899, 900)):
        chase.failed(broke_off(have), float(at), rng)
    assert (chase.since, chase.failures) == (0.0, 5)


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


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (MediaGone("403"), True),
        (DownloadError("400", refused=True), True),
        (DownloadError("500"), False),
        (broke_off(500), False),
    ],
)
def test_the_provider_is_asked_for_a_url_only_when_one_is_refused(
    error: DownloadError, asked: bool
) -> None:
    """A new one for what merely broke off would have the part thrown away."""
    provider = Asked()
    fetch(FakeDownloader([error, error, FILE]), provider)
    assert (provider.polls > 0) is asked


@pytest.mark.parametrize("answers", [[(FIRST,)], [(FRESH,)]], ids=["same", "fresh"])
def test_media_is_lost_when_it_is_gone_after_the_retention(
    answers: list[tuple[str, ...]],
) -> None:
    """After tries with pauses between them: a 403 may pass. Up to then it is only not here yet."""
    events, took_s = fetch(
        FakeDownloader([MediaGone("404")]),
        Asked(answers=answers),
        record=generated(age_s=15 * DAY_S),
    )
    assert [type(event) for event in events] == [FetchFailed, Lost]
    assert took_s > 5.0
    events, took_s = fetch(
        FakeDownloader([MediaGone("404")]), Asked(answers=answers), record=generated(13 * DAY_S)
    )
    assert ([type(event) for event in events], took_s) == ([FetchFailed], 3600.0)


@pytest.mark.parametrize(
    ("error", "age_s", "failures", "lost"),
    [
        (MediaGone("410"), 14 * DAY_S + 1, GONE_TRIES, True),
        (MediaGone("410"), 14 * DAY_S - 60, GONE_TRIES, False),
        (MediaGone("410"), 99 * DAY_S, GONE_TRIES - 1, False),
        (DownloadError("500"), 99 * DAY_S, 99, False),
        (DownloadError("400", refused=True), 99 * DAY_S, 99, False),
    ],
)
def test_only_what_is_gone_after_the_retention_is_lost(
    error: DownloadError, age_s: float, failures: int, lost: bool
) -> None:
    """Counted from the submit."""
    record = generated(age_s)
    event = after_fetch(record, error, failures, now(), retention_s=14 * DAY_S)
    assert isinstance(event, Lost) is lost


@pytest.mark.parametrize("answers", [[PollFailed("502")], [PollFailed("502"), (FIRST,)]])
def test_media_is_not_lost_while_the_provider_cannot_be_asked(
    answers: list[tuple[str, ...] | Exception],
) -> None:
    """It may know another place."""
    provider = Asked(answers=[*answers, PollFailed("502")])
    events, _ = fetch(
        FakeDownloader([MediaGone("404")]), provider, record=generated(age_s=15 * DAY_S)
    )
    assert not any(isinstance(event, Lost) for event in events)


def test_what_can_be_had_of_several_outputs_is_stored() -> None:
    """The one that is refused keeps no other from disk; nor is it lost while another may come."""
    downloader = FakeDownloader([MediaGone("404"), FILE, DownloadError("500")])
    events, _ = fetch(
        downloader,
        record=generated(15 * DAY_S, outputs=(FIRST, FRESH, FIRST)),
        provider=Asked(answers=[(FIRST, FRESH, FIRST)]),
        within_s=1.0,
    )
    assert [type(event).__name__ for event in events] == ["AssetStored", "FetchFailed"]
    assert cast(FetchFailed, events[1]).error == "500"


def test_a_media_server_that_asks_for_time_gets_it() -> None:
    """Retry-After of a download: longer than our own pause, and also where the place is new."""
    busy = DownloadError("503", retry_after_s=90.0)
    _, took_s = fetch(FakeDownloader([busy, FILE]), Asked(answers=[(FRESH,)]))
    assert 90.0 <= took_s < 100.0
    forever = DownloadError("503", retry_after_s=1e6)
    _, took_s = fetch(FakeDownloader([forever, FILE]))
    assert took_s == LONGEST_WISH_S
