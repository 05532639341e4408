"""What nobody asks for any more is not bought: refused batches, callers who have left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest

from asyncpipe import Job, JobState, Pipeline
from asyncpipe.engine import ingest
from asyncpipe.errors import JobFileError, KeyRefused, UsageError
from asyncpipe.providers import known_prices
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import counts_agree, job, opened

OLD = [job(f"old {n}") for n in range(30)]
KNOWN = known_prices(simulated=True)
OWN = [job(f"own {n}") for n in range(6)]
UNPRICED = Job(name="碗", model="nobody/text-to-image", prompt="a bowl")


def under_way(pipeline: Pipeline, provider: FakeProvider) -> int:
    """Submits that were sent, and those that a driver has in hand and is about to send."""
    states = (JobState.PENDING, JobState.SUBMITTING)
    tickets = pipeline._parts().tickets.values()
    return provider.submits + sum(t.permit is not None and t.state in states for t in tickets)


async def left_pending(folder: Path, provider: FakeProvider, jobs: list[Job]) -> None:
    """Let jobs be in the ledger, and nobody want them."""
    async with opened(folder, provider) as pipeline:
        pipeline.stop()
        await pipeline.batch_generate(jobs)


@pytest.mark.parametrize(
    ("bad", "error"),
    [({"name": "x", "model": "m"}, JobFileError), (UNPRICED, UsageError), (OLD[0], UsageError)],
    ids=["malformed", "no price", "twice"],
)
def test_rows_of_a_refused_batch_are_not_bought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Any, error: type[Exception]
) -> None:
    """Not by the batch that is open beside it either, which goes on with its own."""
    monkeypatch.setattr(ingest, "PAGE", 4)
    provider = FakeProvider(price_book=KNOWN)

    async def main() -> None:
        await left_pending(tmp_path, provider, [*OWN, *OLD])
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(OWN))
            await asyncio.sleep(3)
            for again in range(2):  # once more: what a refused pass wrote over is not forgotten
                new = [job(f"new {again} {n}") for n in range(9)]
                with pytest.raises(error):
                    await pipeline.batch_generate([*OWN[3:], *OLD, *new, bad])
            await batch
            assert sorted(provider.sold) == [str(each.name) for each in OWN]
            await pipeline.batch_generate(OLD)
            assert len(provider.sold) == len(OWN) + len(OLD)
            await counts_agree(pipeline)

    run_virtual(main())


def test_rows_of_a_pass_that_is_cut_short_are_not_bought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a caller who leaves while his jobs are written down, or a source that fails."""
    monkeypatch.setattr(ingest, "PAGE", 4)
    provider = FakeProvider()

    async def main() -> None:
        await left_pending(tmp_path, provider, [*OWN, *OLD])
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(OWN))
            await asyncio.sleep(3)

            def leaving() -> Iterator[Job]:
                for n, each in enumerate([*OWN[3:], *OLD]):
                    if n == 20:
                        other.cancel()
                    yield each

            other = asyncio.ensure_future(pipeline.batch_generate(leaving()))
            await asyncio.wait([other])
            assert other.cancelled()
            await batch
            assert sorted(provider.sold) == [str(each.name) for each in OWN]

    run_virtual(main())


def test_callers_of_what_a_refused_batch_names_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who leaves takes it back: it is nobody's job but theirs."""
    monkeypatch.setattr(ingest, "PAGE", 4)
    provider = FakeProvider(
        price_book=known_prices(simulated=True), default=Script(generation_s=50.0)
    )

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            with pytest.raises(UsageError):
                await pipeline.batch_generate([*OLD, UNPRICED])
            call = asyncio.ensure_future(pipeline.generate(OLD[3]))
            await asyncio.sleep(1)
            late = asyncio.ensure_future(pipeline.generate(OLD[4]))
            await asyncio.sleep(1)
            late.cancel()
            assert (await call).status == "success"
            await asyncio.sleep(1000)
            assert provider.sold == [OLD[3].name]
            await counts_agree(pipeline)

    run_virtual(main())


@pytest.mark.parametrize("ticks", [*range(0, 40, 2), *range(40, 200, 20)])
def test_a_batch_that_is_cancelled_buys_no_more(tmp_path: Path, ticks: int) -> None:
    """At whatever moment: what drivers have in hand is finished, nothing else is begun."""
    provider = FakeProvider(
        price_book=known_prices(simulated=True), default=Script(generation_s=5.0)
    )

    async def main() -> None:
        await left_pending(tmp_path, provider, OLD)
        async with opened(tmp_path, provider, max_workers=3) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(OLD))
            for _ in range(ticks):
                await asyncio.sleep(0)
            batch.cancel()
            most = under_way(pipeline, provider)
            await asyncio.wait([batch])
            await asyncio.sleep(1000)
            assert provider.submits <= most
            await counts_agree(pipeline)
            assert not pipeline._parts().tickets

    run_virtual(main())


@pytest.mark.parametrize("when", ["drawing", "opening"])
def test_a_batch_that_is_cancelled_while_the_ledger_works_buys_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What is drawn for a run that is closed meanwhile stays pending."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=3) as pipeline:
            ledger = pipeline._parts().ledger
            name = {"drawing": "draw", "opening": "named_of"}[when]
            slow, asked = getattr(ledger, name), asyncio.Event()

            async def slowly(*args: Any, **named: Any) -> Any:
                asked.set()
                found = await slow(*args, **named)
                await asyncio.sleep(5)
                return found

            monkeypatch.setattr(ledger, name, slowly)
            batch = asyncio.ensure_future(pipeline.batch_generate(OLD))
            await asked.wait()
            await asyncio.sleep(1)
            batch.cancel()
            await asyncio.sleep(1000)
            assert (provider.submits, len(pipeline._parts().tickets)) == (0, 0)

    run_virtual(main())


@pytest.mark.parametrize("results", [1, 2, 7])
def test_a_stream_that_is_left_while_a_job_is_written_down_buys_it_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: int
) -> None:
    """It was taken in under a shield for somebody who has gone meanwhile."""
    provider = FakeProvider(default=Script(generation_s=5.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            ledger = pipeline._parts().ledger
            add_job = ledger.add_job

            async def slowly(*args: Any, **named: Any) -> Any:
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(4)
                    return await add_job(*args, **named)

            monkeypatch.setattr(ledger, "add_job", slowly)
            stream = pipeline.stream(OLD)
            for _ in range(results):
                await anext(stream)
            await stream.aclose()
            most = under_way(pipeline, provider)
            await asyncio.sleep(1000)
            assert provider.submits <= most
            await counts_agree(pipeline)
            assert not pipeline._parts().tickets

    run_virtual(main())


@pytest.mark.parametrize("how", ["generate", "stream"])
@pytest.mark.parametrize("when", ["before", "meanwhile", "at its submit"])
def test_what_a_caller_is_refused_is_withdrawn(tmp_path: Path, how: str, when: str) -> None:
    """He is told; left pending, every later run of the folder would end unfinished."""
    refused = KeyRefused("401")
    twice = [refused, refused]  # one may be a slip, and is asked again
    scripts = {"a": Script(submits=twice if when == "at its submit" else ())}
    provider = FakeProvider(scripts=scripts, default=Script(submit_s=5.0))

    async def ask(pipeline: Pipeline) -> None:
        if how == "generate":
            await pipeline.generate(job("a"))
        else:
            async for _ in pipeline.stream([job("a")]):
                pass

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            await pipeline.generate(job("done"))
            if when == "before":
                balance = pipeline._parts().spending.balance
                balance.too_little = AsyncMock(return_value=refused)  # type: ignore[method-assign]
            elif when == "meanwhile":
                other = asyncio.ensure_future(pipeline.generate(job("other")))
                await asyncio.sleep(1)
                asyncio.get_running_loop().call_later(1, pipeline._parts().stops.note, refused)
            with pytest.raises(KeyRefused):
                await ask(pipeline)
            if when == "meanwhile":
                await other
            await counts_agree(pipeline)
            assert pipeline.totals.pending == 0
        async with opened(tmp_path, provider) as again:
            assert (await again.resume()).totals.pending == 0
            assert (await again.generate(job("a"))).status == "success"

    run_virtual(main())
    assert provider.sold.count("a") == 1


def test_what_a_batch_wants_too_is_not_withdrawn_with_a_refused_caller(tmp_path: Path) -> None:
    """It stays pending: the same batch goes on later."""
    provider = FakeProvider(default=Script(submit_s=5.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(OWN))
            await asyncio.sleep(1)
            call = asyncio.ensure_future(pipeline.generate(OWN[5]))
            await asyncio.sleep(1)
            pipeline._parts().stops.note(KeyRefused("401"))
            with pytest.raises(KeyRefused):
                await call
            assert (await batch).totals.pending == 5
            await counts_agree(pipeline)

    run_virtual(main())


def test_what_was_accepted_before_a_drain_is_kept_for_resume(tmp_path: Path) -> None:
    """A service restarts: its callers are told, and what they asked for goes on."""
    provider = FakeProvider(default=Script(submit_s=5.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            calls = [asyncio.ensure_future(pipeline.generate(each)) for each in OWN[:3]]
            await asyncio.sleep(1)
            pipeline.stop()
            await asyncio.wait(calls)
            assert pipeline.totals.pending == 2
        async with opened(tmp_path, provider) as again:
            assert (await again.resume()).totals.successful == 3

    run_virtual(main())
