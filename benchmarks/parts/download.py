"""Megabytes per second of large media, sha256 on, against those who do not hash."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.harness.line import Line, line, scratch
from benchmarks.harness.rounds import Scale, compare, ratios, server

COMMAND = "python -m benchmarks download"
MEGA = 1_000_000


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part."""
    yield from _sized(scale, size=2 * MEGA, jobs=max(scale.jobs // 10, 20), in_flight=16)
    jobs = 40 if scale.rounds > 1 else 4  # opening a folder and its ledger takes 25 ms, once
    yield from _sized(scale, size=scale.megabytes * MEGA, jobs=jobs, in_flight=4)


def _sized(scale: Scale, *, size: int, jobs: int, in_flight: int) -> Iterator[Line]:
    sides = [("asyncpipe", jobs, in_flight), ("aiohttp", jobs, in_flight)]
    with scratch() as folder, server(size) as at:
        found = compare(sides, at, folder, scale.rounds)
    new = partial(line, part="download", command=COMMAND, server=max(at.shares))
    ours, theirs = f"asyncpipe/{in_flight}", f"aiohttp/{in_flight}"
    name = f"{size // MEGA} MB x {in_flight}"
    must, aim = (0.70, 0.72) if size == 2 * MEGA else (0.85, 1.0)
    yield new(ratios(found, ours, theirs, "rate"), what=f"MB/s, {name}, against aiohttp",
              unit="x", must=must, aim=aim)  # fmt: skip
    for one in (ours, theirs):
        rates = [r[one]["rate"] * size / MEGA for r in found]
        yield new(rates, what=f"{name}: {one.partition('/')[0]}", unit="MB/s")
