"""What nobody asks for any more is not bought: refused batches, callers who have left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job
from asyncpipe.engine import ingest
from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import counts_agree, job, opened

OLD = [job(f"old {n}") for n in range(30)]
OWN = [job(f"own {n}") for n in range(6)]
UNPRICED = Job(name="碗", model="nobody/text-to-image", prompt="a bowl")


async def left_pending(folder: Path, provider: FakeProvider, jobs: list[Job]) -> None:
    """Let jobs be in the ledger, and nobody want them."""
    async with opened(folder, provider) as pipeline:
        pipeline.drain()
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
    provider = FakeProvider()

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
    provider = FakeProvider(default=Script(generation_s=50.0))

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
