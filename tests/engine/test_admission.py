"""Admission awaits nothing but news: quotes and pages come beside it, and memory stays small."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from asyncpipe.engine.pipeline import Pipeline
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import AsyncpipeError, KeyRefused
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.settings import Limits
from asyncpipe.jobs.states import JobState
from asyncpipe.ledger.rows import Named
from asyncpipe.pricing.quotes import Quote
from asyncpipe.pricing.rates import Rate
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.testing import FakeAccount, FakeProvider, Script, run_virtual
from tests.support.pipelines import a_pipeline

FLUX, OTHER = "black-forest-labs/flux-2-pro/text-to-image", "m/text-to-image"
CENT = Rate(per_image=Decimal("0.01"))


@dataclass
class Hanging(FakeAccount):
    """One model's quotes never come."""

    async def quote(self, job: Job) -> Quote:
        if job.model == FLUX:
            await asyncio.sleep(1e6)
        return await super().quote(job)


def test_a_model_whose_quotes_hang_holds_up_no_other(tmp_path: Path) -> None:
    """They are asked for in a task of their own; the other models' jobs are bought at once."""
    provider = Hanging(prices={OTHER: Decimal("0.01")}, default=Script(generation_s=1.0))
    at: list[float] = []

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        options = {"max_workers": 4, "prices": {OTHER: CENT, FLUX: CENT}, "min_free_bytes": 0}
        async with a_pipeline(provider, tmp_path, **options) as pipeline:
            began = clock()
            slow = asyncio.ensure_future(pipeline.generate(Job(name="慢", model=FLUX, prompt="x")))
            await asyncio.sleep(0.5)
            await pipeline.generate(Job(name="快", model=OTHER, prompt="x"))
            at.append(clock() - began)
            assert "慢" not in provider.sold
            await slow
            assert provider.sold == ["快", "慢"]

    run_virtual(main())
    assert at[0] < 9.0, "a quote is waited for 10 s"


@pytest.mark.timeout(300)  # every allocation is traced
@pytest.mark.parametrize("models", [1, 60])
def test_memory_follows_neither_jobs_nor_models(tmp_path: Path, models: int) -> None:
    """A page is shared among a run's models: of 600 jobs few are held, whatever their models."""
    provider = FakeProvider(default=Script(generation_s=30.0))
    names = [f"m{n}/text-to-image" for n in range(models)]
    jobs = [Job(name=f"{n}", model=names[n % models], prompt="x") for n in range(600)]
    held: list[int] = []

    async def main() -> None:
        async with Pipeline(
            provider,
            tmp_path,
            max_workers=4,
            spending=SpendingLimits(prices=dict.fromkeys(names, CENT)),
            limits=Limits(window="fixed"),
            storage={"min_free_bytes": 0},
        ) as pipeline:

            async def watch() -> None:
                while True:
                    await asyncio.sleep(5.0)
                    held.append(len(pipeline._parts().tickets))

            watching = asyncio.ensure_future(watch())
            manifest = await pipeline.batch_generate(jobs)
            watching.cancel()
        assert manifest.totals.successful == 600

    run_virtual(main())
    workers, downloads = 4, 8
    assert max(held) <= 3 * workers + downloads + models


def test_what_stops_a_run_is_obeyed_wherever_a_job_waits(tmp_path: Path) -> None:
    """In the row, for its next attempt, in the ledger: all stay pending; what is paid goes on.

    What a caller alone asked for is withdrawn with his error.
    """
    provider = FakeProvider(
        scripts={"先": Script(generation_s=100.0)}, default=Script(generation_s=50.0)
    )
    jobs = [Job(name=name, model=FLUX, prompt="x") for name in ("先", *map(str, range(30)))]

    async def main() -> None:
        async with Pipeline(
            provider, tmp_path, max_workers=1, storage={"min_free_bytes": 0}
        ) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
            await asyncio.sleep(10.0)
            caller = asyncio.ensure_future(
                pipeline.generate(Job(name="问", model=FLUX, prompt="x"))
            )
            await asyncio.sleep(1.0)
            pipeline._parts().stops.note(KeyRefused("401", status=401))
            with pytest.raises(AsyncpipeError, match="401"):
                await caller
            manifest = await batch
            assert not pipeline._parts().tickets
        states = {result.name: result.state for result in manifest}
        assert states["先"] is JobState.SUCCEEDED
        assert manifest.totals.pending == 30  # the refused caller's is withdrawn
        assert provider.sold == ["先"]

    run_virtual(main())


def test_a_batch_that_is_cancelled_leaves_what_others_want(tmp_path: Path) -> None:
    """Jobs of another open batch, and of callers, are bought; the rest stays pending."""
    provider = FakeProvider(default=Script(generation_s=60.0))
    both = [Job(name=f"b{n}", model=FLUX, prompt="x") for n in range(3)]
    mine = [Job(name=f"m{n}", model=FLUX, prompt="x") for n in range(3)]

    async def main() -> None:
        async with Pipeline(
            provider, tmp_path, max_workers=1, storage={"min_free_bytes": 0}
        ) as pipeline:
            first = asyncio.ensure_future(pipeline.batch_generate([*mine, *both]))
            await asyncio.sleep(1.0)
            second = asyncio.ensure_future(pipeline.batch_generate(both))
            await asyncio.sleep(1.0)
            caller = asyncio.ensure_future(pipeline.generate(mine[2]))
            await asyncio.sleep(1.0)
            first.cancel()
            manifest = await second
            await caller
        assert manifest.totals.jobs[JobState.SUCCEEDED] >= 4

    run_virtual(main())
    assert sorted(provider.sold) == ["b0", "b1", "b2", "m0", "m2"]


def test_a_job_taken_over_that_ends_at_once_is_not_waited_for(tmp_path: Path) -> None:
    """While the ledger is asked whose it is; a run that joined it then would never end."""

    async def main() -> None:
        async with a_pipeline(FakeProvider(), tmp_path, prices={FLUX: CENT}) as pipeline:
            await pipeline.generate(Job(name="a", model=FLUX, prompt="x"))
            admission, ledger = pipeline._parts().admission, pipeline._parts().ledger
            (record,) = await ledger.records([1])
            named = Named(run=1, last=1, single=1)
            run = await admission.open_run(named, comparing=True, waits=False)
            await admission.join_taken([Ticket(record)])
            admission.compared(run)
            assert run.done.is_set()

    run_virtual(main())
