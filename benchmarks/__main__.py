"""Measure: ``python -m benchmarks [part …] [--short] [--rounds N] [--write]``.

Parts are start, throughput, download, memory, resume, cluster, limits, polling and flow; without
one, all.
``--short`` does everything once with next to nothing, to see that it runs. ``--write`` keeps the
numbers in ``results.json`` and ``results.svg`` beside this file. ``--jobs`` is of cluster.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.chart import chart
from benchmarks.harness.line import Line, describe, keep, table
from benchmarks.harness.rounds import FULL, SHORT, Scale

MEASURED = ("start", "throughput", "download", "memory", "resume", "cluster", "limits")
SIMULATED = ("polling", "flow")
"""Parts that are decided in virtual time, and print for themselves."""

SHORTLY = {
    "polling": ["--jobs", "200", "--seeds", "1", "--laws", "lognormal"],
    "flow": ["--short"],
}

HERE = Path(__file__).parent


def measure(part: str, scale: Scale) -> list[Line]:
    """Measure one part, saying each number as it comes."""
    lines = []
    for each in importlib.import_module(f"benchmarks.parts.{part}").measure(scale):
        print(f"  {each.what}: {each.value:.3g} {each.unit}", file=sys.stderr, flush=True)
        lines.append(each)
    return lines


def simulate(part: str, *, short: bool) -> bool:
    """Run a part that prints for itself; whether it missed a goal. In short none can be told."""
    module = importlib.import_module(f"benchmarks.parts.{part}")
    return bool(module.main(SHORTLY[part] if short else [])) and not short


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print a table, keep it if wanted; 1 when a simulated part misses.

    What is measured by the clock misses by a busy machine, too, and does not count.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", default=[])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    parts = options.parts or [*MEASURED, *SIMULATED]
    if unknown := set(parts) - {*MEASURED, *SIMULATED}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    scale = SHORT if options.short else FULL
    scale = replace(
        scale, rounds=options.rounds or scale.rounds, shared=options.jobs or scale.shared
    )
    lines = [one for part in parts if part in MEASURED for one in measure(part, scale)]
    print(table(lines))
    if options.write:
        together = keep(HERE / "results.json", lines, describe())
        (HERE / "results.svg").write_text(chart(together), encoding="utf-8")
    missed = [simulate(part, short=options.short) for part in parts if part in SIMULATED]
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
