"""What the benchmarks print, keep and draw; and that their server is one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.harness.chart import chart
from benchmarks.harness.line import Line, keep, line, table
from benchmarks.harness.rounds import Scale, compare, ratios, server


def made(values: list[float], **fields: object) -> Line:
    told: dict[str, object] = {"part": "throughput", "what": "jobs/s <0 B>", "unit": "x"}
    return line(values, **{**told, "command": "c", **fields})


@pytest.mark.parametrize(
    ("value", "less", "verdict"),
    [(1.2, False, "aim"), (1.0, False, "must"), (0.9, False, "missed"),
     (0.8, True, "aim"), (1.0, True, "must"), (1.1, True, "missed")],
)  # fmt: skip
def test_a_line_says_whether_it_holds(value: float, less: bool, verdict: str) -> None:
    """The median counts; nothing is rounded in its favour."""
    aim = 0.85 if less else 1.15
    one = made([0.1, value, 9.0], must=1.0, aim=aim, less=less)
    assert (one.value, one.low, one.high, one.verdict) == (value, 0.1, 9.0, verdict)
    assert f"| {verdict} |" in table([one])


def test_other_parts_numbers_are_kept(tmp_path: Path) -> None:
    """A part that is measured alone replaces its own lines only; all are drawn."""
    path = tmp_path / "results.json"
    keep(path, [made([1.0], must=1.0), made([2.0], part="memory", must=1.0)], {})
    together = keep(path, [made([3.0], must=1.0)], {"cores": 2})
    assert [(one.part, one.value) for one in together] == [("memory", 2.0), ("throughput", 3.0)]
    drawn = ET.fromstring(chart(together))
    assert sum((text.text or "") == "jobs/s <0 B>" for text in drawn.iter()) == 2


def test_sides_do_the_same_jobs(tmp_path: Path) -> None:
    """Ours and the idiomatic script, each in its own process, against the cheap server."""
    scale = Scale(rounds=1, jobs=12, in_flight=4)
    with server(1000) as at:
        found = compare([("asyncpipe", 12, 4), ("aiohttp", 12, 4)], at, tmp_path, scale.rounds)
    assert ratios(found, "asyncpipe/4", "aiohttp/4", "rate")[0] > 0
    assert len(at.shares) == 2
