"""The engine alone, in a fresh process: provider and downloader null, ledger on.

    python -m benchmarks.parts.engine FOLDER [--jobs 10000] [--in-flight 64]

CPU seconds count from the first submit, when the jobs are validated and in the ledger, to the end
of the last job, and once more with the last manifest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from unittest.mock import patch

from asyncpipe import Pipeline, Polling
from asyncpipe.jobs.settings import Limits
from benchmarks.harness.line import Peak, new_loop, pin
from benchmarks.harness.null import NullDownloader, NullProvider
from benchmarks.harness.side import prepare_process
from benchmarks.peers.ours import named_jobs


async def run(folder: Path, jobs: int, in_flight: int) -> dict[str, float]:
    """Run the jobs; returns seconds, CPU seconds and jobs/s."""
    provider, polling = NullProvider(), Polling(initial_s=1e-4, factor=1.0, maximum_s=1e-4)
    started = time.perf_counter()
    ended = {"at": 0.0, "cpu": 0.0}

    async with Pipeline(
        provider, folder, max_workers=in_flight, polling=polling, limits=Limits(window="fixed")
    ) as pipeline:
        manifests = pipeline._parts().manifests
        write = manifests.write

        async def note_end_and_write() -> object:
            ended["at"], ended["cpu"] = time.perf_counter(), time.process_time()
            return await write()

        with patch.object(manifests, "write", note_end_and_write):
            manifest = await pipeline.batch_generate(named_jobs(jobs))
        whole_cpu = time.process_time()
    assert manifest.totals.successful == jobs, manifest.totals
    assert provider.first_submit is not None
    return {
        "cpu_us_per_job": 1e6 * (ended["cpu"] - provider.cpu_before) / jobs,
        "with_manifest_us": 1e6 * (whole_cpu - provider.cpu_before) / jobs,
        "jobs_per_s": jobs / (ended["at"] - provider.first_submit),
        "first_submit_s": provider.first_submit - started,
    }


def main() -> None:
    """Measure once and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    pin(0)
    prepare_process()
    peak = Peak()
    peak.start()
    with (
        asyncio.Runner(loop_factory=new_loop) as runner,
        patch("asyncpipe.engine.engine.Downloader", NullDownloader),
    ):
        told = runner.run(run(Path(options.folder), options.jobs, options.in_flight))
    peak.stop()
    print(json.dumps(told | {"base": peak.base, "peak": peak.most}))


if __name__ == "__main__":
    main()
