"""Megabytes per second of large media, sha256 on, against those who do not hash."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.line import Line, line
from benchmarks.machine import scratch
from benchmarks.rounds import Scale, best, compare, ratios, server

COMMAND = "python -m benchmarks download"
MEGA = 1_000_000


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part."""
    yield from _sized(scale, size=2 * MEGA, jobs=max(scale.jobs // 10, 20), in_flight=16)
    jobs = 40 if scale.rounds > 1 else 4  # opening a folder and its ledger takes 25 ms, once
    yield from _sized(scale, size=scale.megabytes * MEGA, jobs=jobs, in_flight=4)


def _sized(scale: Scale, *, size: int, jobs: int, in_flight: int) -> Iterator[Line]:
    sides = [("asyncpipe", jobs, in_flight), ("aiohttp", jobs, in_flight)]
    if size == 2 * MEGA:
        sides += [("threads", max(jobs // 2, 8), count) for count in (3, 8, 32)]
    with scratch() as folder, server(size) as at:
        found = compare(sides, at, folder, scale.rounds)
    new = partial(line, part="download", command=COMMAND, server=max(at.shares))
    ours, theirs = f"asyncpipe/{in_flight}", f"aiohttp/{in_flight}"
    name = f"{size // MEGA} MB x {in_flight}"
    yield new(ratios(found, ours, theirs, "rate"), what=f"MB/s, {name}, against aiohttp",
              unit="x", must=1.0, aim=1.3)  # fmt: skip
    if size == 2 * MEGA:
        threads = best(found, "threads")
        yield new(ratios(found, ours, threads, "rate"), unit="x", must=2.5, aim=3.5,
                  what=f"jobs/s, 2 MB, against {threads.replace('/', ' x ')}")  # fmt: skip
    for one in (ours, theirs):
        rates = [r[one]["rate"] * size / MEGA for r in found]
        yield new(rates, what=f"{name}: {one.partition('/')[0]}", unit="MB/s")
