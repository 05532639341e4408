"""A pipeline opened here and closed there: any task, any time, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from asyncpipe import AtlasCloud, FolderInUse, LedgerError, Pipeline, UsageError
from asyncpipe.errors import AsyncpipeError, KeyRefused, ProviderError, own_copy
from asyncpipe.testing import FakeProvider, Script, VirtualTimeLoop, run_virtual
from tests.support.pipelines import job, opened

T = TypeVar("T")

uvloop = pytest.importorskip("uvloop")

AT_ONCE = Script(generation_s=0.0)


@pytest.fixture(params=[VirtualTimeLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, T]], T]:
    def run(main: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run


Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Quick(FakeProvider):
    """One whose predictions have ended when they are bought."""

    async def submit(self, job: Any) -> Any:
        bought = await super().submit(job)
        return await self.poll(bought.id)


def a_service(folder: Path, provider: FakeProvider | None = None, **options: Any) -> Pipeline:
    options = {"max_workers": 2, **options}
    return opened(folder, provider or Quick(default=AT_ONCE), **options)


async def in_a_task(main: Coroutine[Any, Any, T]) -> T:
    return await asyncio.create_task(main)


def test_it_is_opened_used_and_closed_by_three_tasks(tmp_path: Path, run: Run) -> None:
    """Like two cells of a notebook, or a framework's hooks; then opened again."""
    provider = Quick(default=AT_ONCE)

    async def main() -> None:
        pipeline = a_service(tmp_path, provider)
        for n in range(2):
            await in_a_task(pipeline.open())
            result = await in_a_task(pipeline.generate(job(f"{n}")))
            assert result.status == "success"
            await in_a_task(pipeline.aclose())
        with pytest.raises(UsageError, match="not open"):
            await pipeline.generate(job("late"))

    run(main())
    assert provider.submits == 2


FIXTURE = """
import asyncpipe, pytest, pytest_asyncio
from asyncpipe.testing import FakeProvider, Script


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service(tmp_path_factory):
    provider = FakeProvider(default=Script(generation_s=0.0))
    folder = tmp_path_factory.mktemp("out")
    async with asyncpipe.Pipeline(provider, folder, storage={"min_free_bytes": 0}) as pipeline:
        yield pipeline


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("n", [1, 2])
async def test_it(service, n):
    assert service.totals.total == 0
    assert (await service.collect()).totals.total == 0
"""


def test_a_fixture_of_pytest_asyncio_holds_it(tmp_path: Path) -> None:
    """It is entered and left in tasks of its own, and used in others."""
    (tmp_path / "test_service.py").write_text(FIXTURE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in ended.stdout, ended.stdout + ended.stderr


class Slow(FakeProvider):
    """One that takes for ever to connect."""

    entered = left = 0

    async def __aenter__(self) -> Self:
        self.entered += 1
        try:
            await asyncio.sleep(1e9)
        finally:
            self.left += 1
        return self


def test_a_time_limit_around_opening_cleans_up(tmp_path: Path) -> None:
    """Nothing stays open, not even the folder's lock: another pipeline opens it at once."""
    slow = Slow()

    async def main() -> None:
        before = asyncio.all_tasks()
        pipeline = a_service(tmp_path, slow)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await pipeline.open()
        assert asyncio.all_tasks() == before
        assert (slow.entered, slow.left) == (1, 1)
        async with a_service(tmp_path) as another:
            assert (await another.generate(job("a"))).status == "success"

    run_virtual(main())


def test_opening_is_cancelled_at_any_step(tmp_path: Path, run: Run) -> None:
    """After each of its first steps, twice over: what is open then is closed again."""

    async def main() -> None:
        pipeline = a_service(tmp_path)
        for steps in range(60):
            opening = asyncio.create_task(pipeline.open())
            for _ in range(steps):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            assert len(asyncio.all_tasks()) == 1 or not opening.cancelled()
            await pipeline.aclose()
        async with pipeline:
            assert (await pipeline.generate(job("a"))).status == "success"

    run(main())


def test_a_time_limit_around_opening_that_was_kept_is_over(tmp_path: Path, run: Run) -> None:
    """It does not reach into what was opened within it."""

    async def main() -> None:
        pipeline = a_service(tmp_path)
        async with asyncio.timeout(60.0):
            await pipeline.open()
        assert (await pipeline.generate(job("a"))).status == "success"
        await pipeline.aclose()

    run(main())


def test_closing_what_is_still_being_opened_tells_who_opens_it(tmp_path: Path) -> None:
    """And closes everything, as if it had been cancelled."""
    slow = Slow()

    async def main() -> None:
        pipeline = a_service(tmp_path, slow)
        opening = asyncio.create_task(pipeline.open())
        await asyncio.sleep(1.0)
        await asyncio.gather(pipeline.aclose(), pipeline.aclose())
        with pytest.raises(AsyncpipeError, match="closed while it was being opened"):
            await opening

    run_virtual(main())
    assert slow.left == 1


def test_opening_fails_with_its_own_error(tmp_path: Path, run: Run) -> None:
    """As it is, and not in a group; what was opened before is closed."""

    async def main() -> None:
        async with a_service(tmp_path):
            with pytest.raises(FolderInUse):
                await a_service(tmp_path).open()
        async with a_service(tmp_path) as pipeline:
            with pytest.raises(UsageError, match="open already"):
                await pipeline.open()

    run(main())


def test_another_thread_uses_it(tmp_path: Path) -> None:
    """By the loop's own way in: opened, used and closed from outside."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    pipeline = a_service(tmp_path)

    def there(main: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(main, loop).result(30.0)

    try:
        there(pipeline.open())
        assert there(pipeline.generate(job("a"))).status == "success"
        there(pipeline.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def uses(pipeline: Pipeline) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    """Every way to await something of a pipeline."""
    return [
        pipeline.open,
        pipeline.aclose,
        lambda: pipeline.generate(job("elsewhere")),
        lambda: pipeline.batch_generate([job("elsewhere")]),
        lambda: pipeline.stream([job("elsewhere")]).__anext__(),
        pipeline.collect,
        pipeline.resume,
        pipeline.left_s,
        lambda: pipeline.enqueue([job("elsewhere")]),
        pipeline.work,
    ]


def test_the_wrong_loop_is_said_at_once_and_buys_nothing(tmp_path: Path) -> None:
    """Its answers would come to the other one, and whoever waits here would for ever."""
    provider = Quick(default=AT_ONCE)

    def elsewhere(pipeline: Pipeline) -> None:
        for use in uses(pipeline):

            async def main(use: Callable[[], Coroutine[Any, Any, Any]] = use) -> None:
                with pytest.raises(UsageError, match="another event loop"):
                    await use()

            asyncio.run(main())

    async def main() -> None:
        async with a_service(tmp_path, provider) as pipeline:
            await asyncio.to_thread(elsewhere, pipeline)
            assert (await pipeline.generate(job("here"))).status == "success"

    asyncio.run(main())
    assert provider.submits == 1


def test_one_provider_in_two_loops_is_said_at_once() -> None:
    """Where it is entered, and where it is asked without; afterwards the next loop may have it."""
    provider = AtlasCloud("k" * 20, base_url="http://127.0.0.1:9")

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="another event loop"):
            await provider.__aenter__()
        for ask in (provider.poll("p1"), provider.submit(job("a")), provider.balance()):
            with pytest.raises(UsageError, match="another event loop"):
                await ask

    async def main() -> None:
        async with provider:
            await asyncio.to_thread(asyncio.run, elsewhere())

    asyncio.run(main())

    async def later() -> None:
        async with provider:
            with pytest.raises(ProviderError):
                await provider.balance()

    asyncio.run(later())


def test_closing_twice_is_closing_once(tmp_path: Path, run: Run) -> None:
    """One after the other, at the same time, and never opened; all come back when it is closed."""

    async def main() -> None:
        pipeline = a_service(tmp_path)
        await pipeline.aclose()
        async with pipeline:
            closing = [asyncio.create_task(pipeline.aclose()) for _ in range(3)]
            await asyncio.gather(*closing)
            async with a_service(tmp_path):
                pass
        await pipeline.aclose()

    run(main())


def test_closing_that_is_cancelled_closes_all_the_same(tmp_path: Path, run: Run) -> None:
    """The cancellation goes on when the folder is free."""

    async def main() -> None:
        pipeline = a_service(tmp_path)
        await pipeline.open()
        closing = asyncio.create_task(pipeline.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with a_service(tmp_path):
            pass

    run(main())


def test_callers_are_told_when_it_is_closed(tmp_path: Path) -> None:
    """Of a job, a batch, a stream: nobody waits on for what nobody carries."""
    provider = FakeProvider(default=Script(generation_s=1000.0))

    async def a_stream(pipeline: Pipeline) -> None:
        async for _ in pipeline.stream([job("s")]):
            pass

    async def main() -> None:
        pipeline = a_service(tmp_path, provider, max_workers=5)
        await pipeline.open()
        waiting = [
            asyncio.create_task(pipeline.generate(job("a"))),
            asyncio.create_task(pipeline.batch_generate([job("b")])),
            asyncio.create_task(a_stream(pipeline)),
        ]
        await asyncio.sleep(30.0)
        await pipeline.aclose()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in told] == [AsyncpipeError] * 3
        assert {str(each) for each in told} == {
            "the pipeline was closed before the job ended; it is kept"
        }

    run_virtual(main())


def test_the_loops_end_closes_what_nobody_closed(tmp_path: Path, run: Run) -> None:
    """A notebook's kernel that stops; the next loop opens it again."""
    pipeline = a_service(tmp_path)
    tasks: list[asyncio.Task[Any]] = []

    async def main() -> None:
        await pipeline.open()
        tasks[:] = asyncio.all_tasks() - {asyncio.current_task()}
        own = next(task for task in tasks if task.get_name() == "asyncpipe pipeline")
        own.cancel()  # as asyncio.run does in the end
        await asyncio.wait([own])
        assert all(task.done() for task in tasks)

    for _ in range(2):
        run(main())


def held() -> tuple[int, int]:
    """How many files and threads this process has."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files here")
def test_opened_and_closed_often_it_leaks_nothing(tmp_path: Path, run: Run) -> None:
    """No task, no file, no thread; jobs in between, refused ones, too (by hand: 1,000 times)."""
    provider = Quick(default=AT_ONCE)
    times = int(os.environ.get("ASYNCPIPE_OPENED", "40"))

    async def main() -> None:
        pipeline, seen = a_service(tmp_path, provider), []
        for n in range(times):
            await pipeline.open()
            if n % 10 == 0:
                await pipeline.generate(job(f"{n}"))
                pipeline._parts().stops.note(KeyRefused("401"))
                with suppress(KeyRefused):
                    await pipeline.generate(job(f"refused {n}"))
            await pipeline.aclose()
            assert len(asyncio.all_tasks()) == 1
            seen.append(held())
        files, threads = zip(*seen, strict=True)
        assert max(files[5:]) <= max(files[:5])
        assert max(threads) <= min(threads) + 8  # the last pipelines' own are on their way out

    run(main())


class Broken(FakeProvider):
    """Breaks the ledger when the first job is bought."""

    pipeline: Pipeline

    async def submit(self, job: Any) -> Any:
        answer = await super().submit(job)
        ledger: Any = self.pipeline._parts().ledger

        def fail(query: Any) -> Any:
            raise LedgerError("the disk is on fire")

        ledger._transact = fail
        return answer


def test_every_caller_gets_a_copy_of_what_it_failed_of(tmp_path: Path) -> None:
    """The real error, short however many hear it; whoever comes later hears it, too."""
    provider = Broken()

    async def main() -> None:
        pipeline = provider.pipeline = a_service(tmp_path, provider, max_workers=3)
        await pipeline.open()
        jobs = [pipeline.generate(job(f"{n}")) for n in range(50)]
        told = await asyncio.gather(*jobs, return_exceptions=True)
        told += await asyncio.gather(pipeline.generate(job("late")), return_exceptions=True)
        assert {(type(each), str(each)) for each in told} == {(LedgerError, "the disk is on fire")}
        assert len({id(each) for each in told}) == 51
        for each in told:
            assert isinstance(each, LedgerError)
            assert len(traceback.format_exception(each)) < 40
        await pipeline.aclose()

    run_virtual(main())


def test_refused_callers_have_an_error_each(tmp_path: Path) -> None:
    """One key refused: each has its own copy with all its attributes, and none grows."""
    refused = KeyRefused("401", status=401, request_id="r1")

    async def main() -> None:
        provider = FakeProvider(default=Script(submits=[refused] * 10))
        async with a_service(tmp_path, provider) as pipeline:
            jobs = [pipeline.generate(job(f"{n}")) for n in range(300)]
            told = await asyncio.gather(*jobs, return_exceptions=True)
            lines = [
                len("".join(traceback.format_exception(each)).splitlines())
                for each in told
                if isinstance(each, KeyRefused)
            ]
            assert len({id(each) for each in told}) == 300
            assert max(lines) < 60
            said = {(type(e), e.status, e.request_id) for e in told if isinstance(e, KeyRefused)}
            assert said == {(KeyRefused, 401, "r1")}
            assert not pipeline._parts().tickets

    run_virtual(main())


def test_a_copy_keeps_what_an_error_says() -> None:
    """Attributes, notes, and what caused it, whatever its class takes."""
    cause = OSError("no space")
    error = KeyRefused("401", status=401, request_id="r1")
    error.__cause__ = cause
    error.add_note("a note")
    copy = own_copy(error)
    assert (copy.args, copy.status, copy.request_id) == (("401",), 401, "r1")
    assert copy.__cause__ is cause
    copy.add_note("its own")
    assert error.__notes__ == ["a note"]
    assert copy.__traceback__ is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    """A worker that a web server forks lives on; the folder is free when its parent closed it."""
    reading, writing = os.pipe()

    async def main() -> int:
        async with a_service(tmp_path) as pipeline:
            child = os.fork()
            if not child:
                os.close(writing)
                os.read(reading, 1)  # until the parent is done
                os._exit(0)
            assert pipeline.stopped is None
        async with a_service(tmp_path) as pipeline:
            assert (await pipeline.generate(job("a"))).status == "success"
        return child

    child = asyncio.run(main())
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


def test_a_service_of_a_million_jobs_closes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest stays as it was written last; after a batch it is written all the same."""
    manifest = tmp_path / "manifest.json"

    async def main() -> None:
        async with a_service(tmp_path) as pipeline:
            await pipeline.generate(job("a"))
        before = manifest.read_bytes()
        monkeypatch.setattr("asyncpipe.report.manifest.ROW_S", 10.0)
        async with a_service(tmp_path) as pipeline:
            await pipeline.generate(job("b"))
        assert manifest.read_bytes() == before
        async with a_service(tmp_path) as pipeline:
            await pipeline.batch_generate([job("c")])
        assert b'"c"' in manifest.read_bytes()

    run_virtual(main())
