"""Resident memory and event-loop lag: of jobs in flight, of queued jobs, of large downloads.

    python -m benchmarks.parts.memory MODELS JOBS

measures once, in a fresh process, what pending jobs of so many models take beside 64 in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

from asyncpipe import Job, Pipeline, Rate
from asyncpipe.jobs.settings import Limits
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.testing import FakeProvider, Script, run_virtual
from benchmarks.harness.bulk import make_ledger
from benchmarks.harness.line import MB, Line, line, rss, scratch
from benchmarks.harness.rounds import Scale, server, side, told

COMMAND = "python -m benchmarks memory"
new = partial(line, part="memory", command=COMMAND)


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part."""
    yield from _in_flight(scale)
    yield from _full_speed(scale)
    yield from _queued(scale)
    yield from _of_models(scale)
    yield from _large(scale)


def _in_flight(scale: Scale) -> Iterator[Line]:
    """All jobs between two polls at once."""
    found = []
    with scratch() as folder, server(0, scale.generation_s) as at:
        for _ in range(min(scale.rounds, 3)):
            more = ["--poll", scale.generation_s / 3.5, "--memory", "--lag"]
            found.append(
                side("asyncpipe", at, folder, jobs=scale.many, in_flight=scale.many, more=more)
            )
    each = [(one["peak"] - one["base"]) / scale.many / 1024 for one in found]
    yield new(each, what=f"RSS per job in flight, {scale.many:,} in flight", unit="KB",
              must=16, aim=14, less=True, server=max(at.shares))  # fmt: skip
    yield new([one["lag_p99_ms"] for one in found], unit="ms", must=100, aim=65, less=True,
              what=f"event-loop lag p99, {scale.many:,} in flight",
              server=max(at.shares))  # fmt: skip


def _full_speed(scale: Scale) -> Iterator[Line]:
    with scratch() as folder, server(100_000) as at:
        at_once, more = scale.in_flight, ["--lag"]
        found = [
            side("asyncpipe", at, folder, jobs=scale.jobs, in_flight=at_once, more=more)
            for _ in range(scale.rounds)
        ]
    yield new([one["lag_p99_ms"] for one in found], unit="ms", must=30, aim=20, less=True,
              what=f"event-loop lag p99, {scale.in_flight} in flight at full speed, 100 KB",
              server=max(at.shares))  # fmt: skip


def _queued(scale: Scale) -> Iterator[Line]:
    """The same number of jobs done, with few and with very many more waiting behind them."""
    peaks = []
    for queued in (scale.many, scale.rows):
        with scratch() as folder:
            make_ledger(folder / "out", queued, 0, files=False)
            one = told("parts.resume", folder / "out", "--most", scale.many // 2)
        peaks.append(one["peak"])
    yield new([(peaks[1] - peaks[0]) / MB], unit="MB", must=60, aim=15, less=True,
              what=f"peak RSS with {scale.rows:,} queued over {scale.many:,}")  # fmt: skip


def _of_models(scale: Scale) -> Iterator[Line]:
    """The same number of jobs, of one model and of very many."""
    jobs = 49 * scale.rows // 1000
    one, many = (told("parts.memory", models, jobs)["peak"] for models in (1, 490))
    yield new([(many - one) / MB], unit="MB", must=5, aim=1, less=True,
              what=f"peak RSS with {jobs:,} pending jobs of 490 models over 1 model")  # fmt: skip


async def _hold(models: int, count: int, folder: Path) -> int:
    """Keep 64 of the jobs in flight for a while; returns the most resident bytes seen."""
    names = [f"maker/model-{n}/text-to-image" for n in range(models)]
    jobs = (Job(name=f"{n}", model=names[n % models], prompt=f"a mug {n}") for n in range(count))
    provider = FakeProvider(default=Script(generation_s=100.0))
    prices = dict.fromkeys(names, Rate(per_image=Decimal("0.01")))
    most = 0
    async with Pipeline(
        provider, folder, spending=SpendingLimits(prices=prices), limits=Limits(window="fixed")
    ) as pipeline:
        batch = asyncio.create_task(pipeline.batch_generate(jobs), name="benchmark batch")
        for _ in range(8):
            await asyncio.sleep(50.0)
            most = max(most, rss())
        pipeline.stop()
        await batch
    return most


def main() -> None:
    """Measure once and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=int)
    parser.add_argument("jobs", type=int)
    options = parser.parse_args()
    with scratch() as folder:
        print(json.dumps({"peak": run_virtual(_hold(options.models, options.jobs, folder))}))


def _large(scale: Scale) -> Iterator[Line]:
    size = scale.megabytes * 1_000_000
    with scratch() as folder, server(size) as at:
        found = [
            side("asyncpipe", at, folder, jobs=8, in_flight=8, more=["--memory"])
            for _ in range(scale.rounds)
        ]
    yield new([(one["peak"] - one["base"]) / MB for one in found], unit="MB", must=40, aim=25,
              less=True, what=f"peak RSS of 8 x {scale.megabytes} MB at once, over base",
              server=max(at.shares))  # fmt: skip


if __name__ == "__main__":
    main()
