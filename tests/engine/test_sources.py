"""Jobs come from lists, generators, threads and queues; none holds up the loop or the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Outcome, Pipeline, Polling
from asyncpipe.errors import BudgetReached, JobFileError, KeyRefused, UsageError
from asyncpipe.providers import known_prices
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import FLUX, job, opened

BAD: dict[str, Any] = {"name": "bad", "model": FLUX, "prompt": "x", "widht": 3}
UNPRICED: dict[str, Any] = {"name": "dear", "model": "a/b/text-to-image", "prompt": "x"}


class Feed:
    """A generator that notes what was read of it, where, and whether it was closed."""

    def __init__(self, *items: Any, error: Exception | None = None) -> None:
        self.items, self.error = items, error
        self.read, self.closed = 0, False
        self.threads: set[threading.Thread] = set()

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.threads.add(threading.current_thread())
                self.read += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.threads.add(threading.current_thread())
            self.closed = True

    async def later(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await asyncio.sleep(1.0)
                self.read += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def streamed(
    pipeline: Pipeline, jobs: Any, seen: list[tuple[str, Outcome]] | None = None
) -> list[tuple[str, Outcome]]:
    seen = [] if seen is None else seen
    async for each in pipeline.stream(jobs):
        seen.append((each.name, each.outcome))
    return seen


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "async"])
def test_every_source_is_taken_everywhere(tmp_path: Path, kind: str) -> None:
    """``stream``, ``batch_generate`` and ``enqueue``, which says what it lacks first."""
    items = [job(str(n)) for n in range(5)]

    def source() -> Any:
        feed = Feed(*items)
        return {"list": items, "tuple": (*items,), "generator": iter(feed)}.get(kind, feed.later())

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            names = {name for name, _ in await streamed(pipeline, source())}
            assert names == {"0", "1", "2", "3", "4"}
            manifest = await pipeline.batch_generate(source())
            assert manifest.totals.successful == 5
            with pytest.raises(UsageError, match="workers share"):
                await pipeline.enqueue(source())

    run_virtual(main())


@pytest.mark.parametrize("way", ["stream", "batch"])
def test_a_slow_source_does_not_hold_up_the_loop(tmp_path: Path, way: str) -> None:
    """The loop answers while a row is being read, in one thread from first to last."""
    feed = Feed(*(job(str(n)) for n in range(3)))
    waits, answered = threading.Event(), threading.Event()

    def slowly() -> Iterator[Job]:
        for each in feed:
            waits.set()
            assert answered.wait(10.0), "the loop is held up"
            answered.clear()
            yield each

    async def answer() -> None:
        while not feed.closed:
            await asyncio.to_thread(waits.wait, 0.05)
            if waits.is_set():
                waits.clear()
                answered.set()

    async def main() -> None:
        provider = FakeProvider(default=Script(generation_s=0.0))
        often = Polling(policy="fixed", initial_s=0.01)
        async with (
            opened(tmp_path, provider, polling=often) as pipeline,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(answer())
            taken = streamed if way == "stream" else Pipeline.batch_generate
            await taken(pipeline, slowly())

    asyncio.run(main())
    assert feed.read == 3
    assert len(feed.threads) == 1
    assert threading.current_thread() not in feed.threads


def test_no_more_is_read_than_may_be_under_way(tmp_path: Path) -> None:
    """Four times ``max_workers``; leaving closes the generator in its own thread."""
    feed = Feed(*(job(str(n)) for n in range(1000)))

    async def main() -> None:
        async with opened(tmp_path, FakeProvider(), max_workers=2) as pipeline:
            stream = pipeline.stream(iter(feed))
            await anext(stream)
            assert feed.read <= 4 * 2 + 1
            await stream.aclose()
            await asyncio.sleep(0)
        assert feed.closed

    run_virtual(main())
    assert len(feed.threads) == 1


@pytest.mark.parametrize("bad", [BAD, UNPRICED, None, 3, "job", {}, job("x").kind])
def test_a_bad_item_is_its_own_failed_result(tmp_path: Path, bad: Any) -> None:
    """Never the stream's end: those after it are bought."""
    provider = FakeProvider(price_book=known_prices(simulated=True))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            results = [each async for each in pipeline.stream([bad, job("good"), bad])]
            assert [each.outcome for each in results].count(Outcome.FAILED_NOT_CHARGED) == 2
            (failed, *_) = [each for each in results if each.outcome is not Outcome.SUCCEEDED]
            assert failed.error
            assert (failed.cost, failed.attempts, len(failed.assets)) == (Decimal(0), 0, 0)
            if isinstance(bad, dict):
                assert failed.name == bad.get("name", "")
            assert pipeline.totals.total == 1

    run_virtual(main())
    assert provider.sold == ["good"]


@pytest.mark.parametrize("later", [False, True])
def test_a_raising_source_ends_the_stream_after_what_was_paid_for(
    tmp_path: Path, later: bool
) -> None:
    """Nothing that was taken in is left; then the error comes."""
    feed = Feed(*(job(str(n)) for n in range(5)), error=OSError("the feed is gone"))

    async def main() -> None:
        async with opened(tmp_path, FakeProvider(), max_workers=2) as pipeline:
            seen: list[tuple[str, Outcome]] = []
            with pytest.raises(OSError, match="the feed is gone"):
                await streamed(pipeline, feed.later() if later else iter(feed), seen)
            assert [outcome for _, outcome in seen] == [Outcome.SUCCEEDED] * 5

    run_virtual(main())
    assert feed.closed


def test_what_stops_submitting_is_raised_after_what_is_under_way(tmp_path: Path) -> None:
    """A refused key on the third job: two are paid for, and come first."""
    refused = Script(submits=[KeyRefused("401", status=401)] * 9, submit_s=5.0)
    provider = FakeProvider(scripts={"2": refused}, default=Script(generation_s=60.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=8) as pipeline:
            seen: list[tuple[str, Outcome]] = []
            with pytest.raises(KeyRefused):
                await streamed(pipeline, (job(str(n)) for n in range(3)), seen)
            assert sorted(name for name, _ in seen) == ["0", "1"]

    run_virtual(main())


def test_a_budget_that_is_reached_ends_the_stream_after_the_rest(tmp_path: Path) -> None:
    """Two fit: both are yielded, then the error."""

    async def main() -> None:
        provider = FakeProvider()
        async with opened(tmp_path, provider, max_cost=Decimal("0.08")) as pipeline:
            seen: list[tuple[str, Outcome]] = []
            with pytest.raises(BudgetReached):
                await streamed(pipeline, (job(str(n)) for n in range(4)), seen)
            assert [outcome for _, outcome in seen] == [Outcome.SUCCEEDED] * 2
            assert len(provider.sold) == 2

    run_virtual(main())


def test_a_batch_is_validated_whole_before_anything_is_bought(tmp_path: Path) -> None:
    """Each bad one is named, also where the jobs come one after the other."""
    provider = FakeProvider()
    feed = Feed(job("a"), BAD, {**BAD, "name": "worse"}, job("b"))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            with pytest.raises(JobFileError) as caught:
                await pipeline.batch_generate(feed.later())
            assert [each.job for each in caught.value.problems] == ["bad", "worse"]
            with pytest.raises(OSError, match="gone"):
                await pipeline.batch_generate(iter(Feed(job("a"), error=OSError("gone"))))

    run_virtual(main())
    assert (provider.sold, feed.closed) == ([], True)


@pytest.mark.parametrize("jobs", [BAD, "abc", b"abc", 3, None, job("one")])
def test_what_is_no_iterable_of_jobs_is_said(tmp_path: Path, jobs: Any) -> None:
    """One job is not several, though a mapping can be gone through."""

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            for taken in (streamed(pipeline, jobs), pipeline.batch_generate(jobs)):
                with pytest.raises(UsageError, match="is not several jobs: give a list"):
                    await taken

    run_virtual(main())


def test_a_source_that_never_answers_is_left(tmp_path: Path) -> None:
    """Nobody waits for its thread, neither whoever leaves nor the end of the process."""
    begun, go_on = threading.Event(), threading.Event()

    def stuck() -> Iterator[Job]:
        begun.set()
        go_on.wait()
        yield job("late")

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(stuck()))
            await asyncio.to_thread(begun.wait)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch

    asyncio.run(main())
    assert all(t.daemon for t in threading.enumerate() if t.name == "asyncpipe source")
    go_on.set()
