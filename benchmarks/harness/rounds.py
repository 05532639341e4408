"""Sides in fresh processes, in rotated rounds, against one server."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much of everything: for numbers, or just enough to see that it runs."""

    rounds: int
    jobs: int
    in_flight: int = 64
    many: int = 10_000
    more: int = 100_000
    shared: int = 20_000
    workers: tuple[int, ...] = (1, 2, 4)
    rows: int = 1_000_000
    megabytes: int = 50
    generation_s: float = 14.0
    limits_s: float = 240.0


FULL = Scale(rounds=5, jobs=3000)
SHORT = Scale(
    rounds=1,
    jobs=40,
    in_flight=8,
    many=60,
    more=120,
    shared=100,
    workers=(1, 2),
    rows=2000,
    megabytes=2,
    generation_s=0.2,
    limits_s=3.0,
)


@dataclass(kw_only=True)
class Server:
    """The benchmark server in its own process."""

    url: str
    free: bool = False
    shares: list[float] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Its CPU seconds so far."""
        with urllib.request.urlopen(self.url.removesuffix("/api/v1") + "/stats") as answer:
            return float(json.load(answer)["cpu_s"])


@contextmanager
def server(size: int, generation_s: float = 0.0, *, free: bool = False) -> Iterator[Server]:
    """Run the server on core 1; ``free``: on whichever there is, like the sides it serves."""
    command = [sys.executable, "-m", "benchmarks.harness.server", "--bytes", str(size)]
    command += ["--generation", str(generation_s), *(["--core", "-1"] if free else [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield Server(url=child.stdout.readline().strip(), free=free)
        finally:
            child.terminate()


def told(module: str, *arguments: object) -> dict[str, float]:
    """Run a measuring module in a fresh process and return what it printed."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def side(name: str, at: Server, folder: Path, *, jobs: int, in_flight: int, more: Sequence[Any] = ()
         ) -> dict[str, float]:  # fmt: skip
    """Measure one side once; adds jobs/s, CPU per 1,000 jobs and the server's share."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    before = at.cpu_s()
    counts = ["--jobs", jobs, "--in-flight", in_flight]
    free = ["--free"] if at.free else []
    found = told("harness.side", name, at.url, folder / "out", *counts, *free, *more)
    shutil.rmtree(folder / "out", ignore_errors=True)
    share = (at.cpu_s() - before) / found["seconds"]
    at.shares.append(share)
    rates = {"rate": jobs / found["seconds"], "cpu": 1000 * found["cpu_s"] / jobs}
    return found | rates | {"server": share}


def compare(
    names: Sequence[tuple[str, int, int]], at: Server, folder: Path, rounds: int
) -> list[dict[str, dict[str, float]]]:
    """Measure sides (name, jobs, in flight) in turn; the order rotates from round to round."""
    found = []
    for turn in range(rounds):
        order = list(names[turn % len(names) :]) + list(names[: turn % len(names)])
        found.append(
            {f"{n}/{k}": side(n, at, folder, jobs=jobs, in_flight=k) for n, jobs, k in order}
        )
    return found


def ratios(
    found: Sequence[dict[str, dict[str, float]]], ours: str, theirs: str, what: str
) -> list[float]:
    """Ours over theirs, per round."""
    return [one[ours][what] / one[theirs][what] for one in found]


def best(found: Sequence[dict[str, dict[str, float]]], prefix: str) -> str:
    """The side whose name begins so and whose median rate is the highest."""
    names = [name for name in found[0] if name.startswith(prefix)]
    return max(names, key=lambda name: statistics.median(one[name]["rate"] for one in found))
