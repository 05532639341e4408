"""Jobs per second and CPU per job of the whole way, against what others make of the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness.line import Line, line, scratch
from benchmarks.harness.rounds import Scale, best, compare, ratios, server, told

COMMAND = "python -m benchmarks throughput"
_AS_USERS = {1_000: (1.10, 1.2, 5, 6), 100_000: (1.05, 1.2, 5, 6), 2_000_000: (1.5, 1.8, 4, 5)}
"""By size: must and aim against aiohttp, and against the article's threads."""


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part."""
    for size in _AS_USERS:
        yield from _as_users(scale, size)
    for size in (1_000, 100_000):
        yield from _pinned(scale, size)
    yield from _on_disk(scale)
    yield from _engine(scale)


def _as_users(scale: Scale, size: int) -> Iterator[Line]:
    """Nobody is kept on a core: threads, disk and ledger take what there is."""
    large = size > 1_000_000
    k = 16 if large else scale.in_flight
    jobs = max(scale.jobs // 10, 20) if large else scale.jobs
    few = max(jobs // 4, 8)
    sides = [("asyncpipe", jobs, k), ("aiohttp", jobs, k)]
    sides += [("threads", few, count) for count in (3, 8, 32)]
    with scratch() as folder, server(size, free=True) as at:
        found = compare(sides, at, folder, scale.rounds)
    new = partial(line, part="throughput", command=COMMAND, server=max(at.shares))
    ours, theirs, name = f"asyncpipe/{k}", f"aiohttp/{k}", f"as users run it, {_size(size)}"
    threads = best(found, "threads")
    must, aim, must_threads, aim_threads = _AS_USERS[size]
    yield new(ratios(found, ours, theirs, "rate"), what=f"jobs/s, {name}, against aiohttp",
              unit="x", must=must, aim=aim)  # fmt: skip
    yield new(ratios(found, ours, threads, "rate"), unit="x", must=must_threads, aim=aim_threads,
              what=f"jobs/s, {name}, against {threads.replace('/', ' x ')}")  # fmt: skip
    for one in (ours, theirs, threads):
        rates = [r[one]["rate"] for r in found]
        yield new(rates, what=f"{name}: {one.replace('/', ' x ')}", unit="jobs/s")


def _pinned(scale: Scale, size: int) -> Iterator[Line]:
    """Each side on one core with all its threads: what a job costs, httpx beside."""
    few, k = max(scale.jobs // 8, 10), scale.in_flight
    sides = [("asyncpipe", scale.jobs, k), ("aiohttp", scale.jobs, k), ("httpx", few, k)]
    with scratch() as folder, server(size) as at:
        found = compare(sides, at, folder, scale.rounds)
    new = partial(line, part="throughput", command=COMMAND, server=max(at.shares))
    ours, theirs, name = f"asyncpipe/{k}", f"aiohttp/{k}", f"on one core, {_size(size)}"
    yield new(ratios(found, ours, theirs, "cpu"), what=f"CPU per job, {name}, against aiohttp",
              unit="x", must=1.35, aim=1.25, less=True)  # fmt: skip
    for other in (theirs, f"httpx/{k}"):
        yield new(ratios(found, ours, other, "rate"), unit="x",
                  what=f"jobs/s, {name}, against {other.partition('/')[0]}")  # fmt: skip
    for one in (ours, theirs, f"httpx/{k}"):
        cpu = [r[one]["cpu"] for r in found]
        what = f"{name}: {one.replace('/', ' x ')}"
        yield new(cpu, what=what, unit="CPU s per 1,000", less=True)


def _on_disk(scale: Scale) -> Iterator[Line]:
    """The same two in the folder for temporary files, which mostly is on a real disk."""
    k = scale.in_flight
    for size in (1_000, 100_000):
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
            small.append(told("parts.engine", folder / "a", "--jobs", scale.many))
            large.append(told("parts.engine", folder / "b", "--jobs", scale.more))
    new = partial(line, part="throughput", command=COMMAND)
    yield new([one["cpu_us_per_job"] for one in small], what="engine's own CPU per job",
              unit="µs", must=110, aim=85, less=True)  # fmt: skip
    rates = [b["jobs_per_s"] / a["jobs_per_s"] for a, b in zip(small, large, strict=True)]
    yield new(rates, what=f"jobs/s at {scale.more:,} jobs against {scale.many:,}",
              unit="x", must=0.9, aim=0.97)  # fmt: skip


def _size(size: int) -> str:
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} KB"
