"""Jobs per second and CPU per job of the whole way, against what others make of the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.line import Line, line
from benchmarks.machine import scratch
from benchmarks.rounds import Scale, best, compare, ratios, server, told

COMMAND = "python -m benchmarks throughput"
_ARTICLE = {0: (5.0, 8.0), 100_000: (4.5, 6.5)}


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part."""
    for size in (0, 100_000):
        yield from _against_all(scale, size)
    yield from _on_disk(scale)
    yield from _engine(scale)


def _against_all(scale: Scale, size: int) -> Iterator[Line]:
    """Everybody on tmpfs: the article's threads at three sizes, httpx, idiomatic aiohttp."""
    few, k = max(scale.jobs // 8, 10), scale.in_flight
    sides = [("asyncpipe", scale.jobs, k), ("aiohttp", scale.jobs, k), ("httpx", few, k)]
    sides += [("threads", few, count) for count in (3, 8, 32)]
    with scratch() as folder, server(size) as at:
        found = compare(sides, at, folder, scale.rounds)
    new = partial(line, part="throughput", command=COMMAND, server=max(at.shares))
    ours, theirs, name = f"asyncpipe/{k}", f"aiohttp/{k}", _size(size)
    threads = best(found, "threads")
    must, aim = _ARTICLE[size]
    yield new(ratios(found, ours, theirs, "rate"), what=f"jobs/s, {name}, against aiohttp",
              unit="x", must=1.0, aim=1.15)  # fmt: skip
    yield new(ratios(found, ours, theirs, "cpu"), what=f"CPU per job, {name}, against aiohttp",
              unit="x", must=1.0, aim=0.85, less=True)  # fmt: skip
    yield new(ratios(found, ours, threads, "rate"), unit="x", must=must, aim=aim,
              what=f"jobs/s, {name}, against {threads.replace('/', ' x ')}")  # fmt: skip
    yield new(ratios(found, ours, f"httpx/{k}", "rate"), unit="x",
              what=f"jobs/s, {name}, against httpx")  # fmt: skip
    for one in (ours, theirs, threads, f"httpx/{k}"):
        told_name = one.replace("/", " x ")
        rates, cpu = ([r[one][what] for r in found] for what in ("rate", "cpu"))
        yield new(rates, what=f"{name}: {told_name}", unit="jobs/s")
        yield new(cpu, what=f"{name}: {told_name}", unit="CPU s per 1,000", less=True)


def _on_disk(scale: Scale) -> Iterator[Line]:
    """The same two in the folder for temporary files, which mostly is on a real disk."""
    k = scale.in_flight
    for size in (0, 100_000):
        sides = [("asyncpipe", scale.jobs // 2, k), ("aiohttp", scale.jobs // 2, k)]
        with scratch(Path(tempfile.gettempdir())) as folder, server(size) as at:
            found = compare(sides, at, folder, scale.rounds)
        yield line(
            ratios(found, f"asyncpipe/{k}", f"aiohttp/{k}", "rate"),
            part="throughput",
            command=COMMAND,
            server=max(at.shares),
            what=f"jobs/s, {_size(size)}, on a real disk with fsync, against aiohttp without",
            unit="x",
            must=0.65,
        )


def _engine(scale: Scale) -> Iterator[Line]:
    """The engine's own share: no network, no files."""
    small, large = [], []
    for _ in range(scale.rounds):
        with scratch() as folder:
            small.append(told("engine", folder / "a", "--jobs", scale.many))
            large.append(told("engine", folder / "b", "--jobs", scale.more))
    new = partial(line, part="throughput", command=COMMAND)
    yield new([one["cpu_us_per_job"] for one in small], what="engine's own CPU per job",
              unit="µs", must=150, aim=100, less=True)  # fmt: skip
    rates = [b["jobs_per_s"] / a["jobs_per_s"] for a, b in zip(small, large, strict=True)]
    yield new(rates, what=f"jobs/s at {scale.more:,} jobs against {scale.many:,}",
              unit="x", must=0.9, aim=0.97)  # fmt: skip


def _size(size: int) -> str:
    return "0 B" if size == 0 else f"{size // 1000} KB"
