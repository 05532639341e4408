"""Jobs per second on the simulator, as a ratio against idiomatic aiohttp in the same run.

    python -m benchmarks.throughput [--jobs 500] [--in-flight 64] [--bytes 100000] [--rounds 3]

Client and simulator are processes of their own; on a machine with two cores they compete when
anything else runs. The order of the two alternates by round; the ratio is the median.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncpipe import AtlasCloud, Job, Pipeline, Polling
from benchmarks import baseline


@contextmanager
def simulator(size: int) -> Iterator[str]:
    """Run the simulator in another process; yields its base URL."""
    command = [sys.executable, "-m", "benchmarks.server", str(size)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.terminate()


async def ours(base_url: str, folder: Path, jobs: int, in_flight: int) -> None:
    """The same pictures through the pipeline: ledger, hash, fsync, rename, manifest."""
    polling = Polling(initial_s=0.001, maximum_s=0.01)
    provider = AtlasCloud("k", base_url=base_url)
    async with Pipeline(
        provider, folder, max_workers=in_flight, downloads=32, polling=polling
    ) as pipeline:
        manifest = await pipeline.batch_generate(
            Job(name=f"{n}", model=baseline.BODY["model"], prompt=f"a mug {n}") for n in range(jobs)
        )
    assert manifest.totals.successful == jobs, manifest.totals


def timed(which: str, base_url: str, folder: Path, options: argparse.Namespace) -> float:
    """Run one side once; returns jobs per second."""
    shutil.rmtree(folder, ignore_errors=True)
    run = ours if which == "asyncpipe" else baseline.run
    started = time.perf_counter()
    asyncio.run(run(base_url, folder, options.jobs, options.in_flight))
    return float(options.jobs / (time.perf_counter() - started))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"asyncpipe": [], "aiohttp": []}
    with tempfile.TemporaryDirectory() as scratch, simulator(options.bytes) as base_url:
        for turn in range(options.rounds):
            for which in sorted(rates, reverse=bool(turn % 2)):
                rates[which].append(timed(which, base_url, Path(scratch) / which, options))
    print(f"{options.jobs} jobs, {options.in_flight} in flight, {options.bytes} bytes each")
    for which, measured in rates.items():
        span = f"{min(measured):.0f} to {max(measured):.0f}"
        print(f"  {which:<10} {statistics.median(measured):7.0f} jobs/s   ({span})")
    ratios = [a / b for a, b in zip(rates["asyncpipe"], rates["aiohttp"], strict=True)]
    print(f"  asyncpipe / aiohttp: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
