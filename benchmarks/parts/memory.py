"""Resident memory and event-loop lag: of jobs in flight, of queued jobs, of large downloads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.harness.bulk import make_ledger
from benchmarks.harness.line import MB, Line, line, scratch
from benchmarks.harness.rounds import Scale, server, side, told

COMMAND = "python -m benchmarks memory"
new = partial(line, part="memory", command=COMMAND)


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part."""
    yield from _in_flight(scale)
    yield from _full_speed(scale)
    yield from _queued(scale)
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
