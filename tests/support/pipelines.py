"""Pipelines in virtual time: opened, cut off, and counted by ledger and totals."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from pathlib import Path
from typing import Any

from asyncpipe import Job, Pipeline
from asyncpipe.jobs.places import BucketUrl
from asyncpipe.jobs.settings import LedgerAt, Limits, Recovery, Storage
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.providers.base import Provider
from asyncpipe.report.totals import Totals
from asyncpipe.testing import FakeProvider

MONEY = {f.name for f in fields(SpendingLimits)}
UNDER_WAY = {f.name for f in fields(Limits)}
GROUPS = {"recovery": Recovery, "storage": Storage}


def a_pipeline(provider: Provider, folder: Path | BucketUrl, **options: Any) -> Pipeline:
    """A pipeline of options that are told flat: those of its groups are sorted into them."""
    money = {name: options.pop(name) for name in MONEY & options.keys()}
    under_way = {name: options.pop(name) for name in UNDER_WAY & options.keys()}
    if "limits" in options:
        under_way |= options.pop("limits")
    if options.pop("resubmit_unknown", False):
        options["ambiguous"] = "resubmit"
    groups: dict[str, Any] = {"spending": SpendingLimits(**money), "limits": Limits(**under_way)}
    for word, kind in GROUPS.items():
        names = {f.name for f in fields(kind)} & options.keys()
        groups[word] = kind(**{name: options.pop(name) for name in names})
    at = {name: options.pop(name) for name in ("place", "lease_s") if name in options}
    if at:
        options["ledger"] = LedgerAt(url=options.get("ledger"), **at)
    return Pipeline(provider, folder, **groups, **options)


FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def job(name: str, **fields: Any) -> Job:
    return Job(name=name, model=FLUX, prompt="a mug", **fields)


def opened(folder: Path, provider: FakeProvider, **options: Any) -> Pipeline:
    return a_pipeline(provider, folder, seed=1, min_free_bytes=0, **options)


def clock_restarts(provider: FakeProvider) -> None:
    for made in provider._made.values():
        made.ready = 0.0


async def cut_after(seconds: float, pipeline: Pipeline, jobs: list[Job]) -> None:
    async with pipeline:
        batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
        await asyncio.sleep(seconds)
        batch.cancel()
        await asyncio.wait([batch])


async def counts_agree(pipeline: Pipeline) -> None:
    """The totals that were counted along are those of the ledger."""
    pipeline._parts().recorder.tell()
    counted, true = pipeline.totals, Totals.of(await pipeline._parts().ledger.sums())
    assert {s: n for s, n in counted.jobs.items() if n} == {s: n for s, n in true.jobs.items() if n}
    assert {c: n for c, n in counted.failures.items() if n} == dict(true.failures)
    assert {c: n for c, n in counted.losses.items() if n} == dict(true.losses)
    assert counted.noted == true.noted
    for name in ("charged", "reserved", "held", "lost_answers", "in_doubt", "removed"):
        assert getattr(counted, name) == getattr(true, name), name
