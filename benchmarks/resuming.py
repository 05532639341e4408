"""One resume, in a fresh process: how long until the first new submit.

    python -m benchmarks.resuming FOLDER

FOLDER is one that ``benchmarks.bulk`` made; provider and downloader are null.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path
from unittest.mock import patch

from asyncpipe import Pipeline, Polling
from asyncpipe.cli.session import prepare_process
from asyncpipe.jobs.events import Event, Succeeded
from asyncpipe.jobs.record import JobRecord
from benchmarks.bulk import DIGEST
from benchmarks.machine import Peak, new_loop, pin
from benchmarks.null import NullDownloader, NullProvider


async def run(folder: Path, most: int | None) -> dict[str, float]:
    """Resume and finish, or submit nothing more after ``most`` jobs that ended."""
    provider, polling = NullProvider(), Polling(initial_s=1e-4, factor=1.0, maximum_s=1e-4)
    started = time.perf_counter()
    ended = itertools.count(1)

    def count(event: Event, record: JobRecord) -> None:
        if isinstance(event, Succeeded) and next(ended) == most:
            pipeline.drain()

    async with Pipeline(
        provider, folder, max_workers=64, window="fixed", polling=polling, on_event=count
    ) as pipeline:
        opened = time.perf_counter()
        manifest = await pipeline.batch_generate((), digest=DIGEST)
    assert most or manifest.totals.successful == manifest.totals.total, manifest.totals
    assert provider.first_submit is not None
    return {
        "opened_s": opened - started,
        "first_submit_s": provider.first_submit - started,
        "whole_s": time.perf_counter() - started,
    }


def main() -> None:
    """Measure once and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int)
    options = parser.parse_args()
    pin(0)
    prepare_process()
    peak = Peak()
    peak.start()
    with (
        asyncio.Runner(loop_factory=new_loop) as runner,
        patch("asyncpipe.engine.pipeline.Downloader", NullDownloader),
    ):
        told = runner.run(run(options.folder, options.most))
    peak.stop()
    print(json.dumps(told | {"base": peak.base, "peak": peak.most}))


if __name__ == "__main__":
    main()
