"""Hooks hear of everything, in order, and harm nobody."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asyncpipe
from asyncpipe.engine import hooks as hooks_module
from asyncpipe.engine.hooks import Listener, hearing
from asyncpipe.errors import UsageError
from asyncpipe.jobs import Event, Job, JobRecord, Polled, Submitted, now
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.batches import jobs, pipeline, run_batch

LIFE = ["Intended", "Submitted", "Generated", "AssetStored", "Succeeded"]


def kind(event: Event) -> str:
    return type(event).__name__


def an_event(n: int, *, poll: bool = False) -> tuple[Event, JobRecord]:
    record = JobRecord(
        id=n, key=str(n), name=f"job {n}", job=Job(model="m/text-to-image", prompt="a mug")
    )
    if poll:
        return Polled(job_id=n, at=now()), record
    return Submitted(job_id=n, at=now(), prediction_id=f"p{n}"), record


class Keeping:
    """An async hook that keeps what it hears; each event takes it a second."""

    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {}
        self.closed = 0

    async def __call__(self, event: Event, record: JobRecord) -> None:
        await asyncio.sleep(1)
        if not isinstance(event, Polled):
            self.heard.setdefault(record.name, []).append(kind(event))

    async def on_close(self) -> None:
        self.closed += 1


def test_an_async_hook_is_awaited_and_hears_each_job_in_order(tmp_path: Path) -> None:
    """Also of what comes last, when the pipeline is closed at once, and then of the end."""
    hook = Keeping()
    manifest, _, _ = run_batch(tmp_path, FakeProvider(), jobs(2), on_event=hook)
    assert manifest.totals.successful == 2
    assert hook.heard == {"杯子 0": LIFE, "杯子 1": LIFE}
    assert hook.closed == 1


def test_a_slow_async_hook_holds_up_no_job(tmp_path: Path) -> None:
    """One that never ends costs a closing pipeline some seconds, and what it missed is counted."""
    forever = asyncio.Event()
    ended: list[float] = []

    async def hook(event: Event, record: JobRecord) -> None:
        await forever.wait()

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with pipeline(tmp_path, FakeProvider(), on_event=hook) as opened:
            assert (await opened.batch_generate(jobs(3))).totals.successful == 3
            ended.append(clock())
        assert clock() - ended[0] <= hooks_module.LEAVING_S + 1

    run_virtual(main())


def test_several_hooks_of_both_kinds_hear_the_same(tmp_path: Path) -> None:
    """Also one of which only its answer shows that it is to be awaited."""
    heard: list[list[str]] = [[], [], []]

    async def awaited(event: Event, record: JobRecord) -> None:
        await asyncio.sleep(0)
        heard[1].append(kind(event))

    def called(event: Event, record: JobRecord) -> None:
        heard[0].append(kind(event))

    async def later(event: Event) -> None:
        heard[2].append(kind(event))

    several = [called, awaited, lambda event, _: later(event)]
    run_batch(tmp_path, FakeProvider(), jobs(2), on_event=several)
    assert len(heard[0]) >= 2 * len(LIFE)
    assert heard[1] == heard[2] == heard[0]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.name for record in caplog.records} <= {"asyncpipe.hooks"}
    return [record.getMessage() for record in caplog.records]


def test_a_hook_that_fails_harms_nobody_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per kind of error, with its traceback; at the end how often."""
    heard: list[str] = []

    async def fails(event: Event, record: JobRecord) -> None:
        raise ValueError(kind(event))

    async def is_cut(event: Event, record: JobRecord) -> None:
        raise asyncio.CancelledError

    several = [fails, is_cut, lambda event, _: heard.append(kind(event))]
    manifest, _, _ = run_batch(tmp_path, FakeProvider(), jobs(20), on_event=several)
    assert manifest.totals.successful == 20
    assert len(heard) > 100
    messages = told(caplog)
    assert len(messages) == 4
    assert sum("fails failed, and goes on being called" in text for text in messages) == 1
    assert sum(f"fails failed {len(heard)} times with ValueError" in m for m in messages) == 1
    assert sum(f"is_cut failed {len(heard)} times with CancelledError" in m for m in messages) == 1
    assert any(record.exc_info for record in caplog.records)


def test_what_a_hook_cannot_take_is_counted_polls_first(caplog: pytest.LogCaptureFixture) -> None:
    """Memory stays bounded, nothing is left out silently, and what it was given comes in order."""
    go = asyncio.Event()
    heard: list[int] = []

    async def slow(event: Event, record: JobRecord) -> None:
        await go.wait()
        heard.append(event.job_id)

    async def main() -> Listener:
        async with hearing(()) as all_hooks:
            listener = all_hooks.add(slow, limit=10)
            for n in range(5):
                all_hooks.hear(*an_event(n))
            all_hooks.hear(*an_event(5, poll=True))
            for n in range(6, 20):
                all_hooks.hear(*an_event(n))
            assert (listener.waiting, listener.dropped) == (10, 10)
            go.set()
        return listener

    listener = asyncio.run(main())
    assert heard == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert listener.dropped == 10
    assert "5 events wait for it" in told(caplog)[0]
    assert "has not heard of 10 events" in told(caplog)[1]


def test_a_slow_sync_hook_goes_to_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It may hold up the loop a few times; then it is said, and nobody waits for it any more."""
    threads: list[int] = []

    def slow(event: Event, record: JobRecord) -> None:
        time.sleep(hooks_module.SLOW_S)
        threads.append(threading.get_ident())

    async def main() -> None:
        async with hearing([slow]) as all_hooks:
            for n in range(hooks_module.SLOW_CALLS + 3):
                all_hooks.hear(*an_event(n))

    asyncio.run(main())
    here = [each == threading.get_ident() for each in threads]
    assert here == [True] * hooks_module.SLOW_CALLS + [False] * 3
    assert "called in a thread" in told(caplog)[0]


def test_sync_hooks_let_the_loop_have_its_turns() -> None:
    """A thousand events that wait are no reason to hold up everybody else for all of them."""
    turns = 0

    def busy(event: Event, record: JobRecord) -> None:
        time.sleep(hooks_module.SLICE_S / 4)

    async def main() -> None:
        nonlocal turns
        async with hearing([busy]) as all_hooks:
            for n in range(50):
                all_hooks.hear(*an_event(n))
            while all_hooks._listeners[0].waiting:
                await asyncio.sleep(0)
                turns += 1

    asyncio.run(main())
    assert turns >= 10


def test_a_hook_that_has_left_hears_of_nothing_new() -> None:
    """Hooks come and go while a pipeline is open."""
    heard: list[int] = []

    async def main() -> None:
        async with hearing(()) as all_hooks:
            listener = all_hooks.add(lambda event, _: heard.append(event.job_id))
            all_hooks.hear(*an_event(1))
            all_hooks.tell()
            all_hooks.remove(listener)
            all_hooks.hear(*an_event(2))
            all_hooks.tell()
            assert not all_hooks

    asyncio.run(main())
    assert heard == [1]


@pytest.mark.parametrize("wrong", ["print", [print, None], 3])
def test_what_cannot_be_called_is_refused(tmp_path: Path, wrong: Any) -> None:
    """When the pipeline is made, not when the first event comes."""
    with pytest.raises((UsageError, TypeError)):
        asyncpipe.Pipeline(FakeProvider(), tmp_path, on_event=wrong)


def test_on_close_may_be_sync_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """A pipeline closes all the same."""
    closed: list[str] = []

    class Hook:
        def __init__(self, close: Callable[[], object]) -> None:
            self.on_close = close

        def __call__(self, event: Event, record: JobRecord) -> None: ...

    def fails() -> None:
        raise OSError("the disk is full")

    async def main() -> None:
        async with hearing([Hook(fails), Hook(lambda: closed.append("second"))]):
            pass

    asyncio.run(main())
    assert closed == ["second"]
    assert "the disk is full" in told(caplog)[0]


def test_every_logger_is_in_the_readme_and_is_there() -> None:
    """Their names are public: who reads logs filters by them."""
    package = Path(asyncpipe.__file__).parent
    readme = (package.parent / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| logger | says |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`(asyncpipe\.\w+)`", table))
    named = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r'getLogger\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert named == listed
    assert logging.getLogger("asyncpipe").level == logging.NOTSET


def test_a_hook_is_told_of_the_pipeline_that_opens(tmp_path: Path) -> None:
    """Before anything happens in it; so a hook can read totals without being told of them twice."""
    seen: list[int] = []

    class Hook:
        async def on_open(self, pipeline: asyncpipe.Pipeline) -> None:
            seen.append(pipeline.totals.total)

        def __call__(self, event: Event, record: JobRecord) -> None:
            seen.append(record.id)

    run_batch(tmp_path, FakeProvider(), jobs(1), on_event=Hook())
    assert seen[:2] == [0, 1]
