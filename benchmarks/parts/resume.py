"""A folder with very many jobs: how long until something new is submitted.

    python -m benchmarks.parts.resume FOLDER

measures one resume of a folder that the part made, in a fresh process; provider and downloader are
null.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

from asyncpipe import Pipeline, Polling
from asyncpipe.jobs.events import Event, Succeeded
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.settings import Limits
from benchmarks.harness.bulk import DIGEST, make_ledger
from benchmarks.harness.line import MB, Line, Peak, line, new_loop, pin, scratch
from benchmarks.harness.null import NullDownloader, NullProvider
from benchmarks.harness.rounds import Scale, told
from benchmarks.harness.side import prepare_process

COMMAND = "python -m benchmarks resume"


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part; one round, and a minute to make the folder."""
    new = partial(line, part="resume", command=COMMAND)
    with scratch() as folder:
        make_ledger(folder / "out", scale.rows, scale.rows * 999 // 1000)
        one = told("parts.resume", folder / "out")
    name = f"resume of {scale.rows:,} jobs, 99.9 % done"
    yield new([one["first_submit_s"]], what=f"{name}: first new submit", unit="s",
              must=10, aim=2, less=True)  # fmt: skip
    yield new([one["whole_s"]], what=f"{name}: all of it, manifest written", unit="s", less=True)
    yield new([(one["peak"] - one["base"]) / MB], what=f"{name}: peak RSS over base",
              unit="MB", less=True)  # fmt: skip
    with scratch() as folder:
        found = told("parts.first_pass", "--rows", scale.rows, "--folder", folder)
    yield new([found["check_s"] + found["write_s"]], unit="s", must=35, aim=25, less=True,
              what=f"first pass over {scale.rows:,} rows, checked and written")  # fmt: skip


async def run(folder: Path, most: int | None) -> dict[str, float]:
    """Resume and finish, or submit nothing more after ``most`` jobs that ended."""
    provider, polling = NullProvider(), Polling(initial_s=1e-4, factor=1.0, maximum_s=1e-4)
    started = time.perf_counter()
    ended = itertools.count(1)

    def count(event: Event, record: JobRecord) -> None:
        if isinstance(event, Succeeded) and next(ended) == most:
            pipeline.stop()

    async with Pipeline(
        provider,
        folder,
        max_workers=64,
        polling=polling,
        on_event=count,
        limits=Limits(window="fixed"),
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
        patch("asyncpipe.engine.engine.Downloader", NullDownloader),
    ):
        told = runner.run(run(options.folder, options.most))
    peak.stop()
    print(json.dumps(told | {"base": peak.base, "peak": peak.most}))


if __name__ == "__main__":
    main()
