"""How long the command line takes to answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.harness.line import Line, line
from benchmarks.harness.rounds import Scale


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the line of this part."""
    took_s = []
    for _ in range(3 * scale.rounds):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "asyncpipe", "--help"], check=True, capture_output=True
        )
        took_s.append(time.perf_counter() - started)
    yield line(took_s, part="start", command="python -m benchmarks start", what="asyncpipe --help",
               unit="s", must=0.25, aim=0.15, less=True)  # fmt: skip
