"""The public API as users write it; mypy reads this file, nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import assert_type

from asyncpipe import (
    Asset,
    AsyncpipeError,
    AtlasCloud,
    Deadlines,
    DownloadError,
    Event,
    FolderInUse,
    Job,
    JobFileError,
    JobRecord,
    JobState,
    JobType,
    LedgerError,
    Manifest,
    Outcome,
    Pipeline,
    Polling,
    Prediction,
    PredictionStatus,
    Provider,
    ProviderError,
    Rate,
    Result,
    UsageError,
    load_jobs,
    read_manifest,
)
from asyncpipe.jobfile.prices import load_price_file
from asyncpipe.jobs.settings import Limits
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.testing import FakeProvider, Script, run_virtual

JOB = {"name": "mug", "model": "m/text-to-image", "prompt": "a mug"}


class Own:
    """The least that a provider has."""

    name = "own"
    origin = "https://api.example"
    simulated = False

    async def __aenter__(self) -> Own:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def submit(self, job: Job) -> Prediction:
        return Prediction(id=job.prompt)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        return Prediction(id=prediction_id, status=PredictionStatus.COMPLETED, outputs=("u",))


def a_provider_needs_no_base_class() -> list[Provider]:
    return [Own(), AtlasCloud("key"), FakeProvider(default=Script(generation_s=1.0))]


def heard(event: Event, record: JobRecord) -> None:
    assert_type(event.at, datetime)
    assert_type(record.state, JobState)


async def every_option(provider: Provider) -> None:
    pipeline = Pipeline(
        provider,
        Path("out"),
        max_workers=64,
        retries=2,
        deadlines=Deadlines(image=20, video=600),
        polling=Polling(policy="backoff", initial_s=2.0, maximum_s=8.0),
        patience_s=600.0,
        min_free_bytes=0,
        resubmit_unknown=False,
        on_event=heard,
        on_remark=print,
        seed=1,
        spending=SpendingLimits(
            max_cost=Decimal(20),
            min_balance=Decimal(1),
            prices={"m": Rate(per_image=Decimal("0.04"))},
            price_book=load_price_file("prices.yaml"),
            quotes=False,
        ),
        limits=Limits(requests_per_second=2.0, models={"m": 3}, window="learned", downloads=8),
    )
    assert_type(pipeline.stopped, AsyncpipeError | None)
    assert_type(await pipeline.left_s(), float | None)
    pipeline.drain()


async def each_way_to_run(later: AsyncIterator[Job]) -> None:
    async with Pipeline(AtlasCloud(), output_dir="out") as pipeline:
        assert_type(pipeline, Pipeline)
        assert_type(await pipeline.generate(JOB), Result)
        assert_type(await pipeline.generate(Job(name="a", model="m", prompt="p")), Result)
        async for result in pipeline.stream([JOB]):
            assert_type(result, Result)
        async for result in pipeline.stream(later):
            assert_type(result, Result)
        assert_type(await pipeline.batch_generate(load_jobs("jobs.yaml").jobs), Manifest)
        assert_type(await pipeline.collect(), Manifest)


def what_comes_out() -> None:
    manifest = read_manifest(Path("out"))
    assert_type(manifest, Manifest)
    assert_type(manifest.path, Path)
    assert_type(manifest.totals.successful, int)
    for result in manifest:
        assert_type(result, Result)
        assert_type(result.outcome, Outcome)
        assert_type(result.type, JobType)
        assert_type(result.cost, Decimal)
        assert_type(result.assets, tuple[Asset, ...])
        assert_type(result.error, str | None)


def what_goes_wrong() -> str:
    try:
        load_jobs("jobs.yaml")
    except (JobFileError, UsageError) as exc:
        return assert_type(str(exc), str)
    except (FolderInUse, LedgerError) as exc:
        return f"this folder: {exc}"
    except (ProviderError, DownloadError) as exc:
        assert_type(exc.__cause__, BaseException | None)
        return f"the provider: {exc}"
    except AsyncpipeError as exc:
        return f"caught by one name: {exc}"
    return ""


async def one() -> Result:
    async with Pipeline(FakeProvider(), "out") as pipeline:
        return await pipeline.generate(JOB)


def in_a_test() -> None:
    assert_type(run_virtual(one()), Result)
