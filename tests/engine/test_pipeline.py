"""The engine in virtual time, against a provider that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from asyncpipe import Job, Outcome, Pipeline, Polling
from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotAccepted,
    NotSent,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.jobs.events import Event
from asyncpipe.jobs.job import JobType
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.states import JobState
from asyncpipe.providers import known_prices
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report.progress import Progress
from asyncpipe.report.totals import Totals
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, jobs, pipeline, run_batch

FAILED = PredictionStatus.FAILED
GONE = "data:text/html,%3Chtml%3E"


def test_every_job_succeeds_and_the_books_agree(tmp_path: Path) -> None:
    """The whole way: submitted once each, paid, on disk, counted."""
    provider = FakeProvider()
    manifest, results, stopped = run_batch(tmp_path, provider, jobs(10))
    assert (manifest.totals.successful, manifest.totals.total, stopped) == (10, 10, None)
    assert len(provider.sold) == len(set(provider.sold)) == 10
    assert {result.outcome for result in results} == {Outcome.SUCCEEDED}
    assert sum(result.cost for result in results) == Decimal("0.40")
    assert all((tmp_path / asset.name).stat().st_size for r in results for asset in r.assets)
    assert [result.name for result in results] == [f"杯子 {n}" for n in range(10)]


def test_one_probe_goes_ahead_after_a_pause(tmp_path: Path) -> None:
    """Waiting jobs do not run into the limit together: refusals stay few."""
    limited = Script(submits=[RateLimited("429")])
    provider = FakeProvider(scripts={"杯子 0": Script(submits=[RateLimited("429")] * 4)})
    del limited
    run_batch(tmp_path, provider, jobs(50), max_workers=20)
    assert provider.submits <= 50 + 4


def test_patience_ends_a_run_that_gets_nowhere(tmp_path: Path) -> None:
    """Ten minutes of refusals stop the run; the jobs stay pending."""
    provider = FakeProvider(default=Script(submits=[NotSent("no route to host")] * 1000))
    manifest, _, stopped = run_batch(tmp_path, provider, jobs(3), patience_s=600.0)
    assert isinstance(stopped, NotAccepted)
    assert "no route to host" in str(stopped)
    assert (manifest.totals.pending, manifest.totals.charged_micro, provider.sold) == (3, 0, [])


@pytest.mark.parametrize("stop", [KeyRefused("401", status=401), BalanceExhausted("402")])
def test_a_stop_submits_no_more_and_finishes_what_runs(tmp_path: Path, stop: ProviderError) -> None:
    """401 and 402: what was bought is brought home, the rest stays pending."""
    certain = [stop] * (2 if isinstance(stop, KeyRefused) else 1)
    provider = FakeProvider(scripts={"杯子 3": Script(submits=certain)})
    manifest, _, stopped = run_batch(tmp_path, provider, jobs(10), max_workers=2)
    assert type(stopped) is type(stop)
    assert str(stopped).startswith(str(stop))
    assert manifest.totals.successful == len(provider.sold) < 10
    assert manifest.totals.pending == 10 - len(provider.sold)
    manifest, _, stopped = run_batch(tmp_path, provider, jobs(10), max_workers=2)
    assert (stopped, manifest.totals.successful, len(provider.sold)) == (None, 10, 10)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("workers", [1, 40])
def test_one_refused_key_on_a_submit_is_asked_once_more(
    tmp_path: Path, status: int, workers: int
) -> None:
    """A slip of a gateway, on one submit or on all that are under way, stops nothing."""
    refused = KeyRefused("the key is refused", status=status)
    provider = FakeProvider(default=Script(submits=[refused]))
    manifest, _, stopped = run_batch(tmp_path, provider, jobs(40), max_workers=workers)
    assert (stopped, manifest.totals.successful, len(provider.sold)) == (None, 40, 40)
    assert provider.submits == 80


def test_a_wrong_key_is_certain_after_two_submits_of_one_job(tmp_path: Path) -> None:
    """Those that were under way are not sent again; nothing says that it is tried again."""
    refused = KeyRefused("the key is refused", status=401)
    provider = FakeProvider(default=Script(submits=[refused] * 1000))
    lines: list[str] = []
    progress = Progress(lines.append)
    manifest, _, stopped = run_batch(tmp_path, provider, jobs(40), max_workers=8, on_event=progress)
    assert isinstance(stopped, KeyRefused)
    assert (manifest.totals.pending, provider.submits) == (40, 4 + 1)
    assert not [line for line in lines if "again" in line]


def test_a_rejected_job_is_final_and_free(tmp_path: Path) -> None:
    """4xx: failed, not charged, the reason and the request id kept, not sent again."""
    refusal = Rejected("400: bad size", status=400, request_id="req-9")
    provider = FakeProvider(scripts={"杯子 0": Script(submits=[refusal] * 9)})
    for _ in range(2):
        manifest, results, _ = run_batch(tmp_path, provider, jobs(2))
    assert provider.submits == 2
    assert results[0].outcome is Outcome.FAILED_NOT_CHARGED
    assert (results[0].error, results[0].request_id) == ("400: bad size", "req-9")
    assert manifest.totals.charged_micro == 40_000


def test_a_released_failure_is_tried_again_within_retries(tmp_path: Path) -> None:
    """Provider-side failures are bought anew at most ``retries`` times, each released."""
    provider = FakeProvider(default=Script(end=FAILED, error="gpu lost"))
    manifest, results, _ = run_batch(tmp_path, provider, jobs(1), retries=2)
    assert len(provider.sold) == 3
    assert (results[0].attempts, results[0].error) == (3, "gpu lost")
    assert (manifest.totals.charged_micro, manifest.totals.reserved_micro) == (0, 0)


@pytest.mark.parametrize(
    ("script", "charged"),
    [
        (Script(end=FAILED, error="content policy", moderated=True), 0),
        (Script(end=FAILED, error="broken", released=False), 40_000),
    ],
    ids=["moderated", "not-released"],
)
def test_what_must_not_be_bought_again_is_not(tmp_path: Path, script: Script, charged: int) -> None:
    """Moderation, and failures whose money is not known to be back, end at once."""
    provider = FakeProvider(default=script)
    manifest, _, _ = run_batch(tmp_path, provider, jobs(1), retries=5)
    assert (len(provider.sold), manifest.totals.charged_micro) == (1, charged)
    manifest, _, _ = run_batch(tmp_path, provider, jobs(1), retry_failed=True)
    assert (len(provider.sold), manifest.totals.charged_micro) == (1, charged)


@pytest.mark.parametrize("generation_s", [10.0, 0.0], ids=["polled", "at once"])
def test_a_failure_of_which_nobody_knows_whether_it_is_charged_is_unknown(
    tmp_path: Path, generation_s: float
) -> None:
    """Neither charged nor free: its money stays reserved, and nothing is bought again."""
    at_once = Prediction(id="p1", status=FAILED, error="broken", released=None)

    class Odd(FakeProvider):
        async def submit(self, job: Job) -> Prediction:
            running = await super().submit(job)
            return running if generation_s else at_once

    provider = Odd(default=Script(end=FAILED, error="broken", released=None))
    for retry_failed in (False, True):
        manifest, results, _ = run_batch(tmp_path, provider, jobs(1), retry_failed=retry_failed)
        assert (manifest.totals.unknown, manifest.totals.failed) == (1, 0)
        assert (manifest.totals.reserved_micro, manifest.totals.charged_micro) == (40_000, 0)
        assert len(provider.sold) == 1
    assert (results[0].outcome, results[0].prediction_id) == (Outcome.UNKNOWN, "p1")
    assert str(results[0].error) == "broken: whether it is charged the provider does not say"


def test_retry_failed_submits_again_what_was_not_charged(tmp_path: Path) -> None:
    """Only on request, and the attempt counts on."""
    provider = FakeProvider(scripts={"杯子 0": Script(submits=[Rejected("403", status=403)])})
    run_batch(tmp_path, provider, jobs(1))
    manifest, _, _ = run_batch(tmp_path, provider, jobs(1))
    assert (manifest.totals.failed, provider.submits) == (1, 1)
    manifest, results, _ = run_batch(tmp_path, provider, jobs(1), retry_failed=True)
    assert (manifest.totals.successful, results[0].attempts) == (1, 2)


def test_polling_follows_the_articles_schedule(tmp_path: Path) -> None:
    """5 s, x 1.5, at most 30 s, within ten per cent: 100 s take seven polls, not twenty."""
    provider = FakeProvider(default=Script(generation_s=100.0))
    run_batch(tmp_path, provider, jobs(1), polling=Polling(policy="backoff"))
    assert 6 <= provider.polls <= 8


def test_the_deadline_expires_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """Expired is not failed: polled once more before the run ends, and again by the next."""
    provider = FakeProvider(default=Script(generation_s=5_000.0))
    manifest, results, _ = run_batch(tmp_path, provider, jobs(1))
    assert manifest.totals.pending == 1
    assert manifest.totals.reserved_micro == 40_000
    assert results[0].state is JobState.EXPIRED
    assert "prediction is kept" in str(results[0].error)
    provider._made["p1"].ready = 0.0
    manifest, _, _ = run_batch(tmp_path, provider, jobs(1))
    assert (manifest.totals.successful, len(provider.sold)) == (1, 1)


def test_a_job_done_at_the_deadline_is_seen(tmp_path: Path) -> None:
    """The last poll is at the deadline itself, not before it."""
    provider = FakeProvider(default=Script(generation_s=299.0))
    manifest, _, _ = run_batch(tmp_path, provider, jobs(1))
    assert manifest.totals.successful == 1


def test_a_prediction_nobody_knows_expires(tmp_path: Path) -> None:
    """404 beyond the warm-up, up to the deadline: it may have been charged, and be found yet."""
    provider = FakeProvider(default=Script(polls=[PredictionGone("404")] * 999))
    manifest, _, _ = run_batch(tmp_path, provider, jobs(1))
    assert (manifest.totals.jobs[JobState.EXPIRED], manifest.totals.reserved_micro) == (1, 40_000)


def test_completed_without_outputs_is_failed_and_charged(tmp_path: Path) -> None:
    """Only after the deadline; the money is gone and the manifest says so."""
    empty = Prediction(id="p1", status=PredictionStatus.COMPLETED)
    provider = FakeProvider(default=Script(polls=[empty] * 999))
    manifest, results, _ = run_batch(tmp_path, provider, jobs(1))
    assert results[0].outcome is Outcome.FAILED_CHARGED
    assert manifest.totals.charged_micro == 40_000


def test_several_outputs_become_numbered_files(tmp_path: Path) -> None:
    """``name_1.png``, ``name_2.png``; a job of that very name keeps its own."""
    provider = FakeProvider(scripts={"a": Script(outputs=(PIXEL, PIXEL, PIXEL))})
    named = [Job(name=name, model=FLUX, prompt=name) for name in ("a_2", "a", "b")]
    _, results, _ = run_batch(tmp_path, provider, named)
    paths = [asset.name for result in results for asset in result.assets]
    assert len(set(paths)) == 5
    assert "images/a_2.png" in paths
    assert [len(result.assets) for result in results] == [1, 3, 1]
    assert all((tmp_path / path).exists() for path in paths)


def test_a_page_instead_of_media_is_never_stored(tmp_path: Path) -> None:
    """An HTML page with status 200 is no asset; the paid job is kept for the next run."""
    provider = FakeProvider(default=Script(outputs=(GONE,)))
    manifest, results, _ = run_batch(tmp_path, provider, jobs(1))
    assert results[0].state is JobState.GENERATED
    assert manifest.totals.charged_micro == 40_000
    assert not list((tmp_path / "images").iterdir())


def test_an_unpriced_job_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    """The remedy is named, and no other job of the batch was submitted."""
    provider = FakeProvider(price_book=known_prices(simulated=True))
    batch = [*jobs(2), Job(name="x", model="new/model/text-to-image", prompt="x")]
    with pytest.raises(UsageError, match="prices:"):
        run_batch(tmp_path, provider, batch)
    assert provider.submits == 0


def test_generate_returns_failures_and_reuses_named_jobs(tmp_path: Path) -> None:
    """A failed job is a result; a named one is bought once, a nameless one each time."""
    provider = FakeProvider(scripts={"bad": Script(submits=[Rejected("400")])})

    async def main() -> None:
        async with pipeline(tmp_path, provider) as opened:
            bad = await opened.generate({"name": "bad", "model": FLUX, "prompt": "x"})
            assert (bad.status, bad.error) == ("failed", "400")
            first, second = await asyncio.gather(
                *(opened.generate({"name": "杯", "model": FLUX, "prompt": "x"}) for _ in range(2))
            )
            assert first == second
            for _ in range(2):
                nameless = await opened.generate({"model": FLUX, "prompt": "each time"})
                assert nameless.status == "success"
        assert provider.sold == ["杯", "each time", "each time"]

    run_virtual(main())


def test_cancelling_a_caller_withdraws_only_what_is_not_bought(tmp_path: Path) -> None:
    """A submitted job goes on without its caller; one that waits is not submitted."""
    provider = FakeProvider()

    async def main() -> None:
        async with pipeline(tmp_path, provider, max_workers=1) as opened:
            calls = [asyncio.ensure_future(opened.generate(job)) for job in jobs(2)]
            await asyncio.sleep(3)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(60)
            assert provider.sold == ["杯子 0"]
            assert (await opened.generate(jobs(1)[0])).status == "success"
            assert (await opened.generate(jobs(2)[1])).status == "success"
        assert provider.sold == ["杯子 0", "杯子 1"]

    run_virtual(main())


def test_a_stream_yields_as_jobs_finish_and_reads_a_bounded_way_ahead(tmp_path: Path) -> None:
    """At most 4 x max_workers jobs are read before a result is taken."""
    provider = FakeProvider(scripts={"杯子 0": Script(generation_s=100.0)})
    read: list[str | None] = []

    async def source() -> AsyncIterator[Job]:
        for job in jobs(40):
            read.append(job.name)
            yield job

    async def main() -> None:
        async with pipeline(tmp_path, provider, max_workers=2) as opened:
            names: list[str] = []
            async for result in opened.stream(source()):
                assert len(read) <= len(names) + 1 + 8, "results taken, this one, and the window"
                names.append(result.name)
            assert sorted(names) == sorted(f"杯子 {n}" for n in range(40))
            assert names[0] != "杯子 0"

    run_virtual(main())


def test_leaving_a_stream_early_loses_nothing_paid(tmp_path: Path) -> None:
    """What was submitted is finished by the next pipeline; the rest is not bought."""
    provider = FakeProvider()

    async def main() -> int:
        async with pipeline(tmp_path, provider, max_workers=2) as opened:
            async for _ in opened.stream(jobs(30)):
                break
        bought = len(provider.sold)
        assert bought < 30
        async with pipeline(tmp_path, provider) as opened:
            await asyncio.sleep(300)
            assert opened.totals.successful == bought
        return bought

    assert run_virtual(main()) == len(provider.sold)


def test_a_streams_own_error_reaches_its_consumer(tmp_path: Path) -> None:
    """What the job source raises is raised where the results are awaited."""

    async def source() -> AsyncIterator[Job]:
        yield jobs(1)[0]
        raise RuntimeError("the database went away")

    async def main() -> None:
        async with pipeline(tmp_path, FakeProvider()) as opened:
            with pytest.raises(RuntimeError, match="database"):
                async for _ in opened.stream(source()):
                    pass

    run_virtual(main())


def test_the_users_own_error_is_not_wrapped(tmp_path: Path) -> None:
    """An exception inside the block leaves it as it is, not in a group."""

    async def main() -> None:
        async with pipeline(tmp_path, FakeProvider()):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_virtual(main())


def test_the_collectors_totals_equal_the_ledgers(tmp_path: Path) -> None:
    """Counted along or summed up: the same truth."""
    provider = FakeProvider(
        scripts={
            "杯子 1": Script(submits=[SubmitUnknown("reset")]),
            "杯子 2": Script(submits=[Rejected("400")]),
            "杯子 3": Script(end=FAILED, error="gpu"),
            "杯子 4": Script(submits=[RateLimited("429")]),
        }
    )

    async def main() -> None:
        async with pipeline(tmp_path, provider) as opened:
            await opened.batch_generate(jobs(6))
            folded = opened.totals
            summed = Totals.of(await opened._parts().ledger.sums())
            folded.jobs += type(folded.jobs)()  # drop zero counts
            summed.jobs += type(summed.jobs)()
            assert folded == summed

    run_virtual(main())


def test_a_hook_that_raises_stops_nothing(tmp_path: Path) -> None:
    """Hooks see every event; their errors are theirs."""
    seen: list[str] = []

    def hook(event: Event, record: JobRecord) -> None:
        seen.append(type(event).__name__)
        raise RuntimeError(record.name)

    manifest, _, _ = run_batch(tmp_path, FakeProvider(), jobs(1), on_event=hook)
    assert manifest.totals.successful == 1
    assert [name for name in seen if name != "Polled"] == [
        "Intended",
        "Submitted",
        "Generated",
        "AssetStored",
        "Succeeded",
    ]


def test_two_pipelines_in_one_process_do_not_meet(tmp_path: Path) -> None:
    """Each has its own folder, counts and limits."""

    async def main() -> None:
        one, two = FakeProvider(), FakeProvider()
        async with pipeline(tmp_path / "1", one) as first, pipeline(tmp_path / "2", two) as second:
            await asyncio.gather(first.batch_generate(jobs(3)), second.batch_generate(jobs(5)))
            assert (first.totals.total, second.totals.total) == (3, 5)
        assert (len(one.sold), len(two.sold)) == (3, 5)

    run_virtual(main())


def test_models_take_turns(tmp_path: Path) -> None:
    """File order does not let one model block another."""
    clips = [
        Job(name=f"clip {n}", type=JobType.VIDEO, model="google/veo3.1/text-to-video", prompt="x")
        for n in range(5)
    ]
    provider = FakeProvider()
    run_batch(tmp_path, provider, [*jobs(5), *clips], max_workers=2)
    assert {name.split()[0] for name in provider.sold[:2]} == {"杯子", "clip"}


def test_a_pipeline_is_made_anywhere_and_entered_again(tmp_path: Path) -> None:
    """Made outside any loop, used, closed, and used again in another loop."""
    provider = FakeProvider()
    made = Pipeline(provider, tmp_path)

    async def main() -> int:
        async with made:
            return (await made.batch_generate(jobs(3))).totals.successful

    assert (run_virtual(main()), run_virtual(main())) == (3, 3)
    assert provider.submits == 3


def test_a_caller_of_an_expired_job_is_told_under_any_load(tmp_path: Path) -> None:
    """A service that is never idle does not keep the caller of a slow job waiting."""
    provider = FakeProvider(scripts={"slow": Script(generation_s=1e6)})

    async def main() -> None:
        async with pipeline(tmp_path, provider, max_workers=2) as opened:
            load = [asyncio.ensure_future(opened.generate(job)) for job in jobs(400)]
            slow = Job(name="slow", model=FLUX, prompt="x", deadline_s=60.0)
            result = await opened.generate(slow)
            assert result.state is JobState.EXPIRED
            assert not all(call.done() for call in load)
            await asyncio.gather(*load)

    run_virtual(main())
