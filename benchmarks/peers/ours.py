"""The same pictures through asyncpipe: ledger, sha256, fsync, rename, collector, manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asyncpipe import AtlasCloud, Job, Pipeline, Polling
from asyncpipe.jobs.settings import Limits
from asyncpipe.pricing.spending import SpendingLimits
from benchmarks.peers.idiomatic import BODY


def named_jobs(count: int) -> Iterator[Job]:
    """The jobs of a run, one at a time."""
    for number in range(count):
        yield Job(name=f"{number}", model=BODY["model"], prompt=f"a mug {number}")


async def run(
    base_url: str,
    folder: Path,
    jobs: int,
    in_flight: int,
    poll_s: float = 0.001,
    *,
    ledger: str | None = None,
    place: str | None = None,
) -> None:
    """Make ``jobs`` pictures, ``in_flight`` at once; with a ``ledger`` beside other workers."""
    polling = Polling(initial_s=poll_s, factor=1.0, maximum_s=poll_s)
    async with Pipeline(
        AtlasCloud("apikey-0123456789abcdef0123456789abcdef", base_url=base_url),
        folder,
        max_workers=in_flight,
        polling=polling,
        spending=SpendingLimits(quotes=False),
        limits=Limits(downloads=min(in_flight, 32), window="fixed"),
        ledger={"url": ledger, "place": place},
        storage={"min_free_bytes": 0},
    ) as pipeline:
        manifest = await pipeline.batch_generate(named_jobs(jobs))
    assert manifest.totals.successful == jobs, manifest.totals
