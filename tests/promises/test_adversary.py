"""Ways in which money was once spent against promise or wish, and truth was lost; each found by
somebody who looked for it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, JobState, Manifest, Pipeline, Polling
from asyncpipe.engine.resolve import Decision, resolve
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    PredictionGone,
    ProviderError,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report.totals import read_totals
from asyncpipe.testing import FakeProvider, Script, run_virtual

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
FAILED, DONE = PredictionStatus.FAILED, PredictionStatus.COMPLETED
RUNNING = Prediction(id="p1", said="processing")


def job(name: str, **fields: Any) -> Job:
    return Job(name=name, model=FLUX, prompt="a mug", **fields)


def opened(folder: Path, provider: FakeProvider, **options: Any) -> Pipeline:
    return Pipeline(provider, folder, seed=1, min_free_bytes=0, **options)


def clock_restarts(provider: FakeProvider) -> None:
    for made in provider._made.values():
        made.ready = 0.0


async def cut_after(seconds: float, pipeline: Pipeline, jobs: list[Job]) -> None:
    async with pipeline:
        batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
        await asyncio.sleep(seconds)
        batch.cancel()
        await asyncio.wait([batch])


async def agree(pipeline: Pipeline) -> None:
    """The totals that were counted along are those of the ledger."""
    pipeline._parts().recorder.tell()
    counted, true = pipeline.totals, await pipeline._parts().ledger.ask(read_totals)
    assert {s: n for s, n in counted.jobs.items() if n} == {s: n for s, n in true.jobs.items() if n}
    assert {c: n for c, n in counted.failures.items() if n} == dict(true.failures)
    assert {c: n for c, n in counted.losses.items() if n} == dict(true.losses)
    for name in ("charged", "reserved", "held", "lost_answers", "in_doubt", "removed"):
        assert getattr(counted, name) == getattr(true, name), name


@pytest.mark.parametrize("how", ["collect", "removed", "idle"])
def test_what_fails_of_earlier_runs_is_not_bought_anew_unasked(tmp_path: Path, how: str) -> None:
    """By collect, by a job file without it, or by opening the folder; named again, it is."""
    provider = FakeProvider(default=Script(generation_s=50, end=FAILED, error="gpu"))
    run_virtual(cut_after(20, opened(tmp_path, provider), [job("a")]))
    clock_restarts(provider)

    async def again() -> None:
        async with opened(tmp_path, provider) as pipeline:
            if how == "collect":
                await pipeline.collect()
            elif how == "removed":
                await pipeline.batch_generate([job("other")])
            else:
                await asyncio.sleep(3600)

    run_virtual(again())
    assert provider.sold.count("a") == 1

    async def asked() -> Manifest:
        async with opened(tmp_path, provider, retries=5) as pipeline:
            return await pipeline.batch_generate([job("a")])

    provider.default = Script()
    assert run_virtual(asked()).totals.successful == 1


def test_a_drain_lasts(tmp_path: Path) -> None:
    """While a batch is still being written, and for callers who come later."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate([job(f"{n}") for n in range(30)]))
            await asyncio.sleep(0)
            pipeline.drain()
            assert (await batch).totals.pending == 30
            with pytest.raises(AsyncpipeError, match="drained"):
                await pipeline.generate(job("late"))
            await asyncio.sleep(1000)
            assert pipeline.stopped is not None
        assert provider.submits == 0

    run_virtual(main())


def test_asking_again_for_a_withdrawn_job_twice_never_hides_its_submit(tmp_path: Path) -> None:
    """The second caller must not make a job pending in the ledger that is being submitted."""
    provider = FakeProvider(default=Script(submit_s=5.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=2) as pipeline:
            blockers = [asyncio.ensure_future(pipeline.generate(job(f"b{n}"))) for n in range(2)]
            await asyncio.sleep(1)
            first = asyncio.ensure_future(pipeline.generate(job("x")))
            await asyncio.sleep(1)
            first.cancel()  # withdrawn
            await asyncio.gather(*blockers)
            callers = [asyncio.ensure_future(pipeline.generate(job("x")))]
            await asyncio.sleep(0)
            busy = asyncio.ensure_future(pipeline._parts().ledger.ask(lambda _: time.sleep(0.05)))
            await asyncio.sleep(0)
            callers.append(asyncio.ensure_future(pipeline.generate(job("x"))))
            await asyncio.sleep(2.0)
            assert provider.submits == 3
            with sqlite3.connect(ledger_path(tmp_path)) as other:
                query = "SELECT state FROM jobs WHERE name='x'"
                assert other.execute(query).fetchone() == ("submitting",)
            other.close()
            await asyncio.gather(busy, *callers)
            await agree(pipeline)
        assert provider.sold.count("x") == 1

    run_virtual(main())


@pytest.mark.parametrize(
    "odd", [PredictionGone("404", status=404), Prediction(id="p1", status=DONE)]
)
def test_one_odd_answer_at_the_deadline_gives_nothing_up(
    tmp_path: Path, odd: ProviderError | Prediction
) -> None:
    """A 404, or completed without outputs: the next poll finds what is paid for."""
    provider = FakeProvider(default=Script(generation_s=0, polls=[RUNNING, RUNNING, odd]))

    async def main() -> Manifest:
        async with opened(tmp_path, provider) as pipeline:
            return await pipeline.batch_generate([job("a", deadline_s=20.0)])

    assert run_virtual(main()).totals.successful == 1
    assert provider.submits == 1


def test_a_cancelled_batch_buys_no_more_and_goes_on_when_asked(tmp_path: Path) -> None:
    """Like generate and stream; what was submitted comes home."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=3) as pipeline:
            batch = [job(f"{n}") for n in range(60)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pipeline.batch_generate(batch), 15)
            sold = provider.submits
            await asyncio.sleep(3000)
            assert provider.submits == sold < 20
            assert pipeline.totals.successful == sold
            assert (await pipeline.batch_generate(batch)).totals.successful == 60
            await agree(pipeline)

    run_virtual(main())


def test_a_batch_in_the_same_pipeline_resumes_what_expired(tmp_path: Path) -> None:
    """No new process is needed; ``collect`` does it, too."""
    provider = FakeProvider(default=Script(generation_s=1e6))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            batch = [job("a", deadline_s=20.0)]
            assert (await pipeline.batch_generate(batch)).totals.jobs[JobState.EXPIRED] == 1
            polls = provider.polls
            assert (await pipeline.collect()).totals.jobs[JobState.EXPIRED] == 1
            assert provider.polls > polls
            clock_restarts(provider)
            assert (await pipeline.batch_generate(batch)).totals.successful == 1

    run_virtual(main())


def test_a_batch_is_told_when_its_pipeline_is_closed(tmp_path: Path) -> None:
    """Not left waiting for ever."""
    provider = FakeProvider(default=Script(generation_s=1e6))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate([job("a")]))
            await asyncio.sleep(10)
        with pytest.raises(AsyncpipeError, match="closed"):
            await asyncio.wait_for(batch, 60)

    run_virtual(main())


def test_callers_who_leave_take_nothing_from_a_batch(tmp_path: Path) -> None:
    """A generate or a stream of jobs that a batch wants as well."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            names = [job(f"{n}") for n in range(8)]
            batch = asyncio.ensure_future(pipeline.batch_generate(names))
            await asyncio.sleep(3)
            caller = asyncio.ensure_future(pipeline.generate(names[7]))

            async def early() -> None:
                async for _ in pipeline.stream(names[2:]):
                    break

            stream = asyncio.ensure_future(early())
            await asyncio.sleep(3)
            caller.cancel()
            stream.cancel()
            assert (await batch).totals.successful == 8
            await agree(pipeline)

    run_virtual(main())


def test_two_batches_of_the_same_jobs_end_together(tmp_path: Path) -> None:
    """Neither returns before its jobs have ended, and nothing is bought twice."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            names = [job(f"{n}") for n in range(12)]
            first = asyncio.ensure_future(pipeline.batch_generate(names))
            await asyncio.sleep(3)
            second = asyncio.ensure_future(pipeline.batch_generate(names))
            assert (await first).totals.successful == (await second).totals.successful == 12
            await agree(pipeline)
        assert len(provider.sold) == 12

    run_virtual(main())


def test_money_of_lost_answers_stays_in_sight(tmp_path: Path) -> None:
    """Resubmitted by the user's wish, then left out of the job file: listed, not 'removed'."""
    provider = FakeProvider(scripts={"x": Script(submits=[SubmitUnknown("reset")])})

    async def one(name: str) -> Manifest:
        async with opened(tmp_path, provider) as pipeline:
            return await pipeline.batch_generate([job(name)])

    run_virtual(one("x"))
    run_virtual(resolve(tmp_path, [], Decision(resubmit=True)))
    manifest = run_virtual(one("y"))
    listed = {result.name: result.reserved for result in manifest}
    assert manifest.totals.reserved == 40_000 == int(listed["x"] * 1_000_000)
    assert (manifest.totals.removed, manifest.totals.pending) == (0, 1)


def test_cancelling_between_two_attempts_is_just_a_cancellation(tmp_path: Path) -> None:
    """A caller who joined while it was in flight leaves while it waits for its next attempt."""
    provider = FakeProvider(default=Script(generation_s=10, end=FAILED, error="gpu"))

    async def main() -> None:
        async with opened(tmp_path, provider, polling=Polling(policy="backoff")) as pipeline:
            first = asyncio.ensure_future(pipeline.generate(job("a")))
            await asyncio.sleep(8)
            second = asyncio.ensure_future(pipeline.generate(job("a")))
            await asyncio.sleep(5)
            assert provider.polls == 2
            for caller in (first, second):
                caller.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await caller
            await asyncio.sleep(100)
            await agree(pipeline)

    run_virtual(main())


def test_a_first_pass_that_fails_is_counted(tmp_path: Path) -> None:
    """Jobs written before the mistake was met are pending, in the totals as in the ledger."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=64) as pipeline:
            batch = [job(f"{n}") for n in range(1000)]
            with pytest.raises(AsyncpipeError):
                await pipeline.batch_generate(
                    [*batch, Job(model="no/price/text-to-image", prompt="x")]
                )
            await agree(pipeline)
            done = await pipeline.batch_generate(batch[:50])
            assert (done.totals.successful, done.totals.pending) == (50, 950)
            await agree(pipeline)

    run_virtual(main())


def test_a_pipeline_that_is_not_open_says_so(tmp_path: Path) -> None:
    """Before it is entered and after it is left; nothing is spent."""
    provider = FakeProvider()
    pipeline = opened(tmp_path, provider)

    async def main() -> None:
        for call in (pipeline.generate(job("a")), pipeline.collect()):
            with pytest.raises(UsageError, match="async with"):
                await call
        async with pipeline:
            pass
        with pytest.raises(UsageError, match="async with"):
            await pipeline.batch_generate([job("a")])

    run_virtual(main())
    assert provider.submits == 0


@pytest.mark.parametrize("steps", [*range(12), 15, 20, 30])
def test_leaving_at_the_very_first_await_leaves_the_totals_right(
    tmp_path: Path, steps: int
) -> None:
    """Whatever the ledger had written by then is counted, and the job is withdrawn."""

    scripts = {"old": Script(submits=[BalanceExhausted("no money")])}
    provider = FakeProvider(scripts=scripts)

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            await pipeline.batch_generate([job("old")])
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            call = asyncio.ensure_future(pipeline.generate(job("a")))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await agree(pipeline)
            done = await pipeline.generate(job("a"))
            assert done.status == "success"
            await agree(pipeline)

    run_virtual(main())
