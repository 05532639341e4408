"""Batches in virtual time, against a provider that follows a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asyncpipe import Job, Manifest, Pipeline, Result
from asyncpipe.report.totals import Totals
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.pipelines import a_pipeline

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def jobs(count: int, model: str = FLUX, name: str = "杯子", **fields: Any) -> list[Job]:
    return [Job(name=f"{name} {n}", model=model, prompt="a mug", **fields) for n in range(count)]


@asynccontextmanager
async def pipeline(folder: Path, provider: FakeProvider, **options: Any) -> AsyncIterator[Pipeline]:
    async with a_pipeline(provider, folder, seed=1, **options) as opened:
        yield opened


def run_batch(
    folder: Path, provider: FakeProvider, batch: list[Job], **options: Any
) -> tuple[Manifest, list[Result], Exception | None]:
    retry_failed = options.pop("retry_failed", False)

    async def main() -> tuple[Manifest, list[Result], Exception | None]:
        async with pipeline(folder, provider, **options) as opened:
            manifest = await opened.batch_generate(batch, retry_failed=retry_failed)
            return manifest, list(manifest), opened.stopped

    return run_virtual(main())


def run_counted(
    folder: Path, provider: FakeProvider, batch: list[Job], **options: Any
) -> tuple[Manifest, Exception | None]:
    async def main() -> tuple[Manifest, Exception | None]:
        async with a_pipeline(provider, folder, seed=1, **options) as pipeline:
            manifest = await pipeline.batch_generate(batch)
            folded = pipeline.totals
            summed = Totals.of(await pipeline._parts().ledger.sums())
            folded.jobs += type(folded.jobs)()  # drop zero counts
            summed.jobs += type(summed.jobs)()
            folded.failures += type(folded.failures)()
            assert folded == summed
            return manifest, pipeline.stopped

    return run_virtual(main())


def assets(folder: Path) -> list[Path]:
    return sorted((folder / "images").iterdir())


def collect(folder: Path, provider: FakeProvider) -> Manifest:
    async def main() -> Manifest:
        async with Pipeline(provider, folder) as pipeline:
            return await pipeline.collect()

    return run_virtual(main())
