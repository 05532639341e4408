"""A pipeline that lives for weeks: whatever it has done, it holds no more than what it does."""

from __future__ import annotations

import asyncio
import doctest
import time
import types
from collections import Counter, deque
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, JobState, Manifest, Pipeline, Polling, testing
from asyncpipe.engine import decide
from asyncpipe.engine.queue import Row
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    KeyRefused,
    ProviderError,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.jobs import Links
from asyncpipe.jobs.events import Failed, RetryAsked, now
from asyncpipe.jobs.job import JobType
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.ledger import Where
from asyncpipe.pricing import quoting as quoting_module
from asyncpipe.pricing.quotes import Quote
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report import manifest as manifest_module
from asyncpipe.report.totals import MOST_CAUSES, OTHER_CAUSES, Totals
from asyncpipe.testing import FakeAccount, FakeProvider, Script, run_virtual
from tests.support.pipelines import FLUX, counts_agree, job, opened

FAILED, DONE = PredictionStatus.FAILED, PredictionStatus.COMPLETED

MODEL = "google/veo3.1/text-to-video"


def a_job(name: str, **params: Any) -> dict[str, Any]:
    return {"name": name, "model": MODEL, "prompt": "浪", "params": params}


def parts(thing: object) -> Iterator[tuple[str, object]]:
    """What a thing of ours holds, by attribute; functions hold what they are bound to."""
    if isinstance(thing, types.MethodType):
        yield "", thing.__self__
    elif isinstance(thing, partial):
        yield "", thing.func
        yield from (("", each) for each in thing.args)
    elif isinstance(thing, dict):
        yield from (("[]", each) for each in [*thing.values()][:50])
    elif isinstance(thing, list | set | frozenset | tuple | deque):
        yield from (("[]", each) for each in [*thing][:50])
    elif type(thing).__module__.startswith("asyncpipe"):
        names = [*getattr(thing, "__dict__", ())]
        names += [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        yield from ((f".{name}", getattr(thing, name, None)) for name in names)


def sizes(pipeline: Pipeline, *besides: object) -> dict[str, int]:
    """The length of every container that a pipeline can reach, by where it is."""
    found: dict[str, int] = {}
    seen = {id(each) for each in besides}
    left: deque[tuple[str, object]] = deque([("", pipeline)])
    while left:
        path, thing = left.popleft()
        if id(thing) in seen or isinstance(thing, type | str | bytes):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | set | deque):
            found[path] = max(len(thing), found.get(path, 0))
        left.extend((path + name, part) for name, part in parts(thing))
    return found


class Erratic(FakeProvider):
    """Fails now and then, and never says the same twice."""

    async def submit(self, job: Job) -> Prediction:
        n = self.submits
        if n % 11 == 3:
            self.submits += 1
            raise Rejected(f"bad field, trace {n}", status=400)
        if n % 13 == 5:
            self.submits += 1
            raise SubmitUnknown(f"no answer, trace {n}")
        return await super().submit(job)

    async def quote(self, job: Job) -> Quote:
        trouble = ProviderError(f"no quote now, trace {self.submits}", status=500)
        if self.submits % 3 == 0:
            raise trouble
        return Quote(amount=Decimal("0.01"), asked_at=now())


async def some_days(pipeline: Pipeline, provider: FakeProvider, day: int) -> None:
    """Callers that come, and leave at any time; a stream that is left early; a key refused."""

    async def caller(n: int) -> None:
        try:
            async with asyncio.timeout(20.0 * (n % 5) if n % 3 else 3600.0):
                await pipeline.generate(a_job(f"{day}-{n}", width=1000 * day + n))
        except (TimeoutError, AsyncpipeError):
            return

    async with asyncio.TaskGroup() as tasks:
        for n in range(60):
            tasks.create_task(caller(n))
            await asyncio.sleep(1.0)
            if n == 30:
                pipeline._parts().stops.note(KeyRefused("401", status=401))
    stream = pipeline.stream(a_job(f"{day}-s{n}", width=1000 * day + n) for n in range(20))
    async for result in stream:
        assert result.name
        break
    await stream.aclose()
    await asyncio.sleep(3600.0)


def test_nothing_grows_with_the_jobs_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what callers left behind, nor quotes, nor reasons that are never the same twice."""
    monkeypatch.setattr(quoting_module, "MOST_KEPT", 40)
    monkeypatch.setattr(decide.PredictionOwners.__init__, "__defaults__", (40,))
    monkeypatch.setattr("asyncpipe.report.totals.MOST_CAUSES", 10)
    monkeypatch.setattr("asyncpipe.pricing.price._MOST_KEPT", 40)
    told: list[str] = []

    async def main() -> list[dict[str, int]]:
        provider, found = Erratic(), []
        async with Pipeline(
            provider, tmp_path, max_workers=4, on_remark=told.append, storage={"min_free_bytes": 0}
        ) as pipeline:
            for day in range(3):
                await some_days(pipeline, provider, day)
                found.append(sizes(pipeline, provider, told))
        return found

    *_, before, after = run_virtual(main())
    assert len(after) > 40, "the parts of a pipeline were found"
    grown = {path: (before.get(path, 0), n) for path, n in after.items() if n > 40}
    assert not {path for path in grown if ".law." not in path and "shape" not in path}, grown
    assert after["._engine.tickets"] == after["._engine.admission.queue.expired"] == 0
    assert len(told) < 10, "the same trouble is told once"


def test_causes_that_are_never_the_same_are_counted_together() -> None:
    """Beyond MOST_CAUSES; and counted down again when their jobs are tried anew."""
    totals, failed = Totals(), []
    for n in range(MOST_CAUSES + 50):
        job = Job(model=MODEL, prompt="浪", type=JobType.VIDEO)
        before = JobRecord(id=n, key=f"{n}", name=f"{n}", job=job, state=JobState.SUBMITTED)
        event = Failed(job_id=n, at=now(), error=f"GPU of rack {n} is on fire")
        after = fold(before, event)
        totals.fold(before, after)
        failed.append(after)
    assert totals.failures[OTHER_CAUSES] == 50
    assert totals.failures.total() == totals.jobs[JobState.FAILED] == MOST_CAUSES + 50
    for record in reversed(failed):
        again = RetryAsked(job_id=record.id, at=now())
        totals.fold(record, fold(record, again))
    assert totals.failures == Counter()
    assert not dict(totals.failures)


def test_a_batch_ends_in_a_service_that_is_never_idle(tmp_path: Path) -> None:
    """Its expired job gets its last poll when nothing else of the batch is left."""
    provider = FakeProvider(
        scripts={"慢": Script(generation_s=500.0)}, default=Script(generation_s=30.0)
    )

    async def main() -> None:
        async with Pipeline(
            provider, tmp_path, max_workers=3, storage={"min_free_bytes": 0}
        ) as pipeline:

            async def busy(caller: int) -> None:
                for n in range(200):
                    await pipeline.generate(a_job(f"{caller}-{n}"))

            async with asyncio.TaskGroup() as tasks:
                callers = [tasks.create_task(busy(caller)) for caller in range(5)]
                await asyncio.sleep(100.0)
                slow = {**a_job("慢"), "deadline_s": 300.0}
                manifest = await pipeline.batch_generate([slow, a_job("快")])
                assert not any(each.done() for each in callers), "the service was busy"
                for each in callers:
                    each.cancel()
        states = {result.name: result.state for result in manifest}
        assert states["慢"] is JobState.SUCCEEDED
        assert states["快"] is JobState.SUCCEEDED

    run_virtual(main())


def test_a_job_that_a_batch_names_too_is_not_withdrawn_with_its_caller(tmp_path: Path) -> None:
    """The caller came first, and left while the job waited in the row."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        async with Pipeline(
            provider, tmp_path, max_workers=1, storage={"min_free_bytes": 0}
        ) as pipeline:
            assert pipeline.stopped is None
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipeline.generate(a_job("first")))
                await asyncio.sleep(1.0)
                caller = tasks.create_task(pipeline.generate(a_job("both")))
                await asyncio.sleep(1.0)
                batch = tasks.create_task(pipeline.batch_generate([a_job("both")]))
                await asyncio.sleep(1.0)
                caller.cancel()
        assert "both" in provider.sold
        assert batch.result().totals.successful == 2

    run_virtual(main())


def test_thousands_of_callers_leave_at_once(tmp_path: Path) -> None:
    """Each costs the same, however long the row is that it waited in."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> float:
        async with Pipeline(
            provider, tmp_path, max_workers=1, storage={"min_free_bytes": 0}
        ) as pipeline:
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(pipeline.generate(a_job("first")))
                callers = [tasks.create_task(pipeline.generate(a_job(f"{n}"))) for n in range(300)]
                await asyncio.sleep(1.0)
                looked = Counter[str]()

                class Seen(Row):
                    def __iter__(self) -> Iterator[Ticket]:
                        for ticket in super().__iter__():
                            looked["at"] += 1
                            yield ticket

                pipeline._parts().admission.queue.ready[MODEL].__class__ = Seen
                for each in reversed(callers):
                    each.cancel()
                await first
            assert provider.sold == ["first"]
            return looked["at"]

    assert run_virtual(main()) < 50


def test_manifests_that_are_asked_for_together_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that end while one is written share the next; what is newer is never left out."""
    written: list[int] = []
    real = manifest_module.write_manifest

    def counted(folder: Where, links: Links | None) -> Manifest:
        written.append(1)
        return real(folder, links)

    monkeypatch.setattr(manifest_module, "write_manifest", counted)

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            await pipeline.generate(a_job("一"))
            written.clear()
            write = pipeline._parts().manifests.write
            manifests = await asyncio.gather(*(write() for _ in range(12)))
            assert len(written) == 1
            assert {each.totals.successful for each in manifests} == {1}
            await pipeline.generate(a_job("二"))
            assert (await write()).totals.successful == 2
            assert '"二"' in (tmp_path / "manifest.json").read_text(encoding="utf-8")

    run_virtual(main())


async def raised(error: BaseException) -> None:
    await asyncio.sleep(1.0)
    raise error


def test_the_error_of_a_task_group_inside_is_not_lost(tmp_path: Path) -> None:
    """Before Python 3.13 such a group leaves a mark of cancellation on the task that leaves us."""

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path) as pipeline, asyncio.TaskGroup() as tasks:
            tasks.create_task(pipeline.generate(a_job("浪")))
            tasks.create_task(raised(ValueError("a child")))

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(main())
    (error,) = caught.value.exceptions
    assert str(error) == "a child"


def test_a_service_that_outlived_a_task_group_leaves_in_peace(tmp_path: Path) -> None:
    """Its error was dealt with long ago."""

    async def main() -> str:
        async with Pipeline(FakeProvider(), tmp_path) as pipeline:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(raised(ValueError("a child")))
            except* ValueError:
                pass
            await pipeline.generate(a_job("浪"))
        return "left"

    assert run_virtual(main()) == "left"


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), ExceptionGroup("mine", [ValueError("1")])]
)
def test_what_is_raised_inside_comes_out_as_it_is(tmp_path: Path, error: BaseException) -> None:
    """Also what ends a program: nobody finds an exit code in a group."""

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path) as pipeline:
            await pipeline.generate(a_job("浪"))
            try:
                raise error
            finally:
                await asyncio.sleep(1.0)

    with pytest.raises(type(error)) as caught:
        run_virtual(main())
    assert caught.value is error


def test_what_is_not_open_says_so(tmp_path: Path) -> None:
    """Before it was entered, whatever is asked of it."""

    async def main() -> list[str]:
        pipeline, said = Pipeline(FakeProvider(), tmp_path), []

        async def first() -> None:
            async for _ in pipeline.stream([a_job("浪")]):
                return

        async def totals() -> Totals:
            return pipeline.totals

        for ask in (first, totals, pipeline.left_s, pipeline.collect):
            with pytest.raises(UsageError) as caught:
                await ask()
            said.append(str(caught.value))
        assert pipeline.waiting is None
        async with pipeline:
            await pipeline.generate(a_job("浪"))
        assert pipeline.totals.successful == 1
        with pytest.raises(UsageError):
            await first()
        return said

    assert all("the pipeline is not open" in each for each in run_virtual(main()))


def test_a_large_folder_is_not_written_at_the_end_of_every_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its totals and results are today's, and the file is when the pipeline was closed."""
    monkeypatch.setattr(manifest_module, "LONG_S", -1.0)
    monkeypatch.setattr(manifest_module, "MANIFEST_PAUSE", 1e9)
    monkeypatch.setattr("asyncpipe.report.manifest.MANIFEST_EVERY_S", 1e6)
    monkeypatch.setattr("asyncpipe.engine.recorder.MANIFEST_EVERY_S", 1e6)
    path = tmp_path / "manifest.json"

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            pipeline._parts().manifests._ended = time.perf_counter()
            pipeline._parts().manifests._took_s = 1.0
            for name in ("一", "二"):
                manifest = await pipeline.batch_generate([a_job(name)])
                assert not path.exists()
                assert name in {result.name for result in manifest}
            assert manifest.totals.successful == 2
        assert '"二"' in path.read_text(encoding="utf-8")

    run_virtual(main())


def test_the_example_of_the_testing_module_runs() -> None:
    """What users copy first."""
    failed, tried = doctest.testmod(testing)
    assert (failed, tried) == (0, 6)


def test_a_fake_account_quotes_and_runs_out_of_money(tmp_path: Path) -> None:
    """A service can be tested for what it does without money, and when there is some again."""
    provider = FakeAccount(prices={MODEL: Decimal("0.40")}, money=Decimal("1.00"))

    async def main() -> None:
        async with Pipeline(provider, tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            results = [await pipeline.generate(a_job(f"{n}")) for n in range(2)]
            assert [result.cost for result in results] == [Decimal("0.40")] * 2
            with pytest.raises(BalanceExhausted):
                await pipeline.generate(a_job("2"))
            assert provider.money == await provider.balance() == Decimal("0.20")
            provider.money += 10
            assert (await pipeline.generate(a_job("2"))).cost == Decimal("0.40")
        assert len(provider.quoted) == 1, "all cost the same"

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
            await counts_agree(pipeline)

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


async def ask_in_turn(folder: Path, asked: list[dict[str, Any]]) -> list[str]:
    """What is said when these are asked for one after the other, each in a pipeline of its own."""
    said: list[str] = []
    for each in asked:
        async with opened(folder, FakeProvider(), on_remark=said.append) as pipeline:
            await pipeline.generate({"model": FLUX, "prompt": "a mug", **each})
    return said


@pytest.mark.parametrize(
    "other",
    [{"prompt": "a cup"}, {"params": {"seed": 2}}, {"model": "google/imagen4-ultra/text-to-image"}],
)
def test_a_known_name_with_another_body_is_said_to_be_bought_again(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """Also from one process to the next; the very same job says nothing and is not bought."""
    name = {"name": "杯"}
    said = run_virtual(ask_in_turn(tmp_path, [name, name, {"name": "瓶"}, {**name, **other}, name]))
    assert said == [
        "杯: this folder has another job of that name; its model, prompt or fields differ, so this "
        "one is bought as well, and the old files stay"
    ]


def test_requests_at_once_for_one_name_are_said_once(tmp_path: Path) -> None:
    """Three prompts, three pictures, one remark; nameless jobs are always new."""
    said: list[str] = []

    async def main() -> None:
        async with opened(tmp_path, FakeProvider(), on_remark=said.append) as pipeline:
            asked = [{"name": "mug", "model": FLUX, "prompt": f"mug {n}"} for n in range(3)]
            asked += [{"model": FLUX, "prompt": "mug"}] * 3
            await asyncio.gather(*map(pipeline.generate, asked))

    run_virtual(main())
    assert len(said) == 1


def test_names_that_only_share_their_files_names_are_no_namesakes(tmp_path: Path) -> None:
    """`A B` and `a_b`: other names, kept apart by their keys."""
    assert run_virtual(ask_in_turn(tmp_path, [{"name": "A B"}, {"name": "a_b"}])) == []
