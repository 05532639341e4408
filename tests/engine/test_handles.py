"""One job in the hands of a program: accepted for good, waited for, followed, found, taken back."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Handle, JobState, Outcome, UsageError
from asyncpipe.engine.watch import LIMIT
from asyncpipe.errors import AsyncpipeError, KeyRefused, NotSent, SubmitUnknown
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import clock_restarts, job, opened


def test_a_job_is_accepted_and_waited_for(tmp_path: Path) -> None:
    """By as many as like, now or later; a time limit leaves it going."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            assert (await handle.status()).state is JobState.PENDING
            with pytest.raises(TimeoutError):
                await handle.wait(10.0)
            assert (await handle.status()).state is JobState.SUBMITTED
            results = await asyncio.gather(handle.wait(), handle.wait(600.0))
            assert [result.status for result in results] == ["success", "success"]
            assert await handle.wait() == results[0] == await handle.status()
            assert not pipeline._parts().tickets

    run_virtual(main())
    assert provider.submits == 1


def test_nobody_has_to_wait(tmp_path: Path) -> None:
    """Dropped at once, and whoever waits may leave: it is done all the same."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            await pipeline.submit(job("first"))
            handle = await pipeline.submit(job("a"))
            waiting = asyncio.create_task(handle.wait())
            same = asyncio.create_task(pipeline.generate(job("a")))
            await asyncio.sleep(1.0)
            waiting.cancel()
            same.cancel()  # neither is withdrawn with a caller of generate
            await asyncio.wait([waiting, same])
            await asyncio.sleep(600.0)
            assert (await handle.status()).status == "success"

    run_virtual(main())
    assert provider.sold == ["first", "a"]


def test_the_same_job_is_accepted_once(tmp_path: Path) -> None:
    """By its name, in one session and the next."""
    provider = FakeProvider()

    async def main() -> None:
        for _ in range(2):
            async with opened(tmp_path, provider) as pipeline:
                handles = [await pipeline.submit(job("a")) for _ in range(3)]
                assert len(set(handles)) == 1
                await handles[-1].wait()

    run_virtual(main())
    assert provider.submits == 1


def test_what_was_accepted_is_done_after_a_restart(tmp_path: Path) -> None:
    """Closed, cut, restarted twice; `take_up=False` leaves it alone; a withdrawn one stays so."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def accept() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            handles = [await pipeline.submit(job(f"{n}")) for n in range(5)]
            assert await handles[4].cancel()
            await asyncio.sleep(10.0)

    async def look() -> None:
        async with opened(tmp_path, provider, take_up=False) as pipeline:
            await asyncio.sleep(600.0)
            assert provider.sold == ["0"]
            assert [r.name async for r in pipeline.list(outcome="pending")] == ["3", "2", "1"]

    async def restart() -> None:
        async with opened(tmp_path, provider, max_workers=1):
            await asyncio.sleep(10.0)

    async def finish() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            handle = await pipeline.get("3")
            assert handle is not None
            assert (await handle.wait()).status == "success"
            assert pipeline.totals.successful == 4
            withdrawn = await pipeline.get("4")
            assert withdrawn is not None
            assert (await withdrawn.wait()).state is JobState.CANCELLED

    for part in (accept, look, restart, finish):
        run_virtual(part())
        clock_restarts(provider)
    assert provider.sold == ["0", "1", "2", "3"]


def test_what_stops_submitting_is_told_and_the_job_kept(tmp_path: Path) -> None:
    """Whoever waits hears why; once something is asked for again the job goes on as well."""
    refused = KeyRefused("401", status=401)
    provider = FakeProvider(scripts={"a": Script(submits=[refused] * 2)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            for _ in range(2):
                with pytest.raises(KeyRefused):
                    await handle.wait()
            assert (await handle.status()).state is JobState.PENDING
            await pipeline.submit(job("b"))  # the key is right by now
            async with asyncio.timeout(600.0):
                assert (await followed(handle))[-1] == "Succeeded"

    run_virtual(main())


def test_a_job_is_taken_back_while_it_was_not_sent(tmp_path: Path) -> None:
    """All who wait are told; a sent one goes on, an ended one has ended."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            sent, kept = await pipeline.submit(job("sent")), await pipeline.submit(job("kept"))
            waiting = asyncio.create_task(kept.wait())
            await asyncio.sleep(1.0)
            assert not await sent.cancel()
            assert await kept.cancel()
            assert (await waiting).state is JobState.CANCELLED
            assert not await kept.cancel()
            assert (await sent.wait()).status == "success"
            assert not await sent.cancel()
            again = await pipeline.submit(job("kept"))
            assert (await again.wait()).status == "success"

    run_virtual(main())
    assert provider.sold == ["sent", "kept"]


def test_a_stopped_job_is_taken_back_too(tmp_path: Path) -> None:
    """It is in no one's hands, and in the ledger only."""
    provider = FakeProvider(scripts={"a": Script(submits=[KeyRefused("401")] * 2)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            with suppress(KeyRefused):
                await handle.wait()
            assert await handle.cancel()
            await (await pipeline.submit(job("b"))).wait()
            assert (await handle.status()).state is JobState.CANCELLED

    run_virtual(main())
    assert provider.sold == ["b"]


async def followed(handle: Handle) -> list[str]:
    return [update.name async for update in handle.events()]


def test_a_job_is_followed_from_where_it_stands(tmp_path: Path) -> None:
    """The state first, then what happens, to the end; from the middle, and when all is over."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            await pipeline.submit(job("first"))
            handle = await pipeline.submit(job("a"))
            whole = asyncio.create_task(followed(handle))
            await asyncio.sleep(90.0)
            middle = [update async for update in handle.events()]
            told = [name for name in await whole if name != "Polled"]
            ways = ["Intended", "Submitted", "Generated", "AssetStored", "Succeeded"]
            assert told == ["State", *ways]
            first, last = middle[0], middle[-1]
            assert (first.name, first.state, first.event) == ("State", JobState.SUBMITTED, None)
            assert first.prediction_id == "p2"
            assert last.to_dict() == {
                "event": "Succeeded",
                "state": "succeeded",
                "at": last.at.isoformat() if last.at else None,
                "prediction_id": "p2",
                "error": None,
            }
            assert await followed(handle) == ["State"]
            assert not pipeline._parts().watches._by_job

    run_virtual(main())


def test_who_does_not_come_for_updates_misses_the_oldest(tmp_path: Path) -> None:
    """The end is told in any case; who leaves early leaves nothing behind."""
    provider = FakeProvider(default=Script(generation_s=20_000.0))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit({**as_dict("a"), "deadline_s": 1e6})
            updates = handle.events()
            assert (await anext(updates)).name == "State"
            watch = pipeline._parts().watches._by_job[handle._id][0]
            result = await handle.wait()
            assert result.status == "success"
            assert len(watch._updates) <= LIMIT
            left = [update.name async for update in updates]
            assert left[-1] == "Succeeded"
            early = (await pipeline.submit(job("b"))).events()
            await anext(early)
            await early.aclose()
            assert not pipeline._parts().watches._by_job

    run_virtual(main())


def as_dict(name: str) -> dict[str, Any]:
    return {"name": name, "model": job(name).model, "prompt": "a mug"}


def test_an_unknown_job_is_followed_while_it_is_searched_for(tmp_path: Path) -> None:
    """Found, it goes on; the events do not end before."""
    provider = FakeProvider(
        scripts={"a": Script(lost=1)}, default=Script(), shows_history=True, history_lag_s=30.0
    )

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            names = await followed(handle)
            assert names.index("Unknown") < names.index("Found") < names.index("Succeeded")

    run_virtual(main())


def test_events_end_where_nobody_knows(tmp_path: Path) -> None:
    """A lost answer that is not looked for stays unknown, and nothing more comes."""
    provider = FakeProvider(default=Script(submits=[SubmitUnknown("reset")]))

    async def main() -> None:
        async with opened(tmp_path, provider, ambiguous="hold") as pipeline:
            handle = await pipeline.submit(job("a"))
            assert (await followed(handle))[-1] == "Unknown"
            assert (await handle.wait()).outcome is Outcome.UNKNOWN

    run_virtual(main())


def test_an_expired_job_is_looked_after_and_waited_for_again(tmp_path: Path) -> None:
    """Its first result is that it expired; its events go on to the end."""
    provider = FakeProvider(default=Script(generation_s=5_000.0))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            whole = asyncio.create_task(followed(handle))
            assert (await handle.wait()).state is JobState.EXPIRED
            assert (await whole)[-1] == "Succeeded"
            assert (await handle.wait()).status == "success"

    run_virtual(main())


def test_a_job_is_found_by_whatever_names_it(tmp_path: Path) -> None:
    """Name, key, prediction's id, idempotency key; a batch's job, too; nothing is None."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a", idempotency_key="order 7"))
            result = await handle.wait()
            for found in (
                await pipeline.get("a"),
                await pipeline.get(key=handle.key),
                await pipeline.get(prediction_id=result.prediction_id),
                await pipeline.get(idempotency_key="order 7"),
            ):
                assert found == handle
            assert await pipeline.get("nobody") is None
            for wrong in ({}, {"name": "a", "key": "b"}):
                with pytest.raises(UsageError, match="exactly one of name, key"):
                    await pipeline.get(**wrong)
            await pipeline.batch_generate([job("b")])
            batched = await pipeline.get("b")
            assert batched is not None
            assert (await batched.wait()).status == "success"

    run_virtual(main())


def test_jobs_are_listed_newest_first(tmp_path: Path) -> None:
    """By outcome and label, in pages, up to a limit; what is wrong is said."""
    provider = FakeProvider(scripts={"7": Script(generation_s=1e6)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handles = [
                await pipeline.submit({**as_dict(f"{n}"), "labels": {"week": f"{n % 2}"}})
                for n in range(8)
            ]
            await asyncio.gather(*(handle.wait() for handle in handles))

            async def names(**only: Any) -> str:
                return "".join([result.name async for result in pipeline.list(**only)])

            assert await names() == "76543210"
            assert await names(limit=3) == "765"
            assert await names(label="week=1", outcome=Outcome.SUCCEEDED) == "531"
            assert await names(outcome="pending") == "7"
            for wrong in ({"label": "week"}, {"outcome": "done"}):
                with pytest.raises(UsageError, match=f"{next(iter(wrong))}: '"):
                    await names(**wrong)

    run_virtual(main())


def test_pages_are_followed_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs there are, and exactly as many as a page has."""
    monkeypatch.setattr("asyncpipe.engine.pipeline.PAGE", 2)

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            for n in range(4):
                await pipeline.submit(job(f"{n}"))
            for limit, count in ((None, 4), (3, 3), (4, 4), (9, 4), (0, 0)):
                found = [result async for result in pipeline.list(limit=limit)]
                assert len(found) == count

    run_virtual(main())


def test_a_handle_outlives_a_pipeline(tmp_path: Path) -> None:
    """Closed it says so; opened again it works; whoever waited is told."""
    provider = FakeProvider(default=Script(generation_s=60.0))

    async def main() -> None:
        pipeline = opened(tmp_path, provider)
        async with pipeline:
            handle = await pipeline.submit(job("a"))
            waiting = asyncio.create_task(handle.wait())
            await asyncio.sleep(1.0)
        with pytest.raises(AsyncpipeError, match="closed before the job ended"):
            await waiting
        with pytest.raises(UsageError, match="not open"):
            await handle.status()
        async with pipeline:
            assert (await handle.wait()).status == "success"

    run_virtual(main())


def test_submits_wait_for_a_way_to_the_api(tmp_path: Path) -> None:
    """Accepted while it is down; done when it is back."""
    down = Script(submits=[NotSent("no route to host")] * 8)
    provider = FakeProvider(scripts={"a": down})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            assert (await handle.wait()).status == "success"

    run_virtual(main())


ACCEPT = """
import asyncio, os, sys
from asyncpipe import Pipeline
from asyncpipe.errors import NotSent
from asyncpipe.testing import FakeProvider, Script

async def main():
    down = FakeProvider(default=Script(submits=[NotSent("down")] * 10_000))
    pipeline = Pipeline(down, sys.argv[1], storage={"min_free_bytes": 0})
    await pipeline.open()
    for n in range(20):
        job = {"name": f"{n}", "model": sys.argv[2], "prompt": "a mug"}
        await pipeline.submit(job)
        print(n, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_what_a_killed_process_accepted_is_done_by_the_next(tmp_path: Path) -> None:
    """kill -9 right after the last was accepted: every one it said yes to is there, and is done."""
    command = [sys.executable, "-c", ACCEPT, str(tmp_path), job("a").model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
    assert [line.strip() for line in said] == [f"{n}" for n in range(20)]
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            for n in range(20):
                handle = await pipeline.get(f"{n}")
                assert handle is not None
                assert (await handle.wait()).status == "success"

    run_virtual(main())
    assert sorted(provider.sold) == sorted(f"{n}" for n in range(20))


def test_it_is_on_disk_when_it_is_accepted(tmp_path: Path) -> None:
    """Whoever reads the ledger beside sees it at once, as committed."""
    provider = FakeProvider(default=Script(submit_s=1e6))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            for n in range(3):
                await pipeline.submit(job(f"{n}"))
                with sqlite3.connect(tmp_path / ".asyncpipe" / "ledger.sqlite3") as beside:
                    (count,) = beside.execute("SELECT count(*) FROM jobs").fetchone()
                beside.close()
                assert count == n + 1

    run_virtual(main())
