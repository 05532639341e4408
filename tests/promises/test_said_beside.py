"""What an API says and has beside outputs is seen and kept, from the wire to the last report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, Manifest, Polling, read_manifest
from asyncpipe.report.export import export_file
from asyncpipe.report.summary import summary
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.poll import FLAGGED, LYRICS
from asyncpipe.simulator.server import Simulator
from tests.support.pipelines import FLUX, a_pipeline
from tests.support.simulator_client import beside_simulator

WIRES = pytest.mark.parametrize("wire", ["canonical", "article"])


def run(folder: Path, count: int, **settings: Any) -> Manifest:
    """Run jobs that ask for two pictures each, twice: nothing more is said by the second run."""

    async def steps(simulator: Simulator) -> Manifest:
        jobs = [
            Job(name=f"杯 {n}", model=FLUX, prompt=f"mug {n}", params={"num_images": 2})
            for n in range(count)
        ]
        provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
        for _ in range(2):
            async with a_pipeline(
                provider, folder, polling=Polling(initial_s=0.02, maximum_s=0.05), min_free_bytes=0
            ) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
        assert simulator.books.submits() == count
        return manifest

    options: dict[str, Any] = {"generation_s": (0.0, 0.0), "body_bytes": 2000}
    manifest: Manifest = beside_simulator(steps, **options, **settings)
    return manifest


def exported(folder: Path, rows: str) -> list[Any]:
    """The notes of every row of an export."""
    export_file(folder, folder / "rows.jsonl", "jsonl", rows=rows)
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["notes"] for line in lines]


def said(folder: Path) -> str:
    """The summary of a folder, as one line."""
    totals = read_manifest(folder).totals
    lines = summary(totals, elapsed_s=1.0, manifest=str(folder), simulated=False)
    return " ".join(" ".join(lines).split())


@WIRES
def test_flags_and_words_beside_outputs_are_in_every_report(tmp_path: Path, wire: str) -> None:
    """A flagged picture is no silent success."""
    manifest = run(tmp_path, 3, wire=wire, faults=Faults(flagged=1.0))
    notes = {"nsfw": [True, False], "error": FLAGGED}
    assert [(result.notes, len(result.assets)) for result in manifest] == [(notes, 2)] * 3
    assert manifest.totals.successful == 3
    assert exported(tmp_path, "jobs") == exported(tmp_path, "attempts") == [notes] * 3
    rows = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))["results"]
    assert [row["notes"] for row in rows] == [notes] * 3
    shown = said(tmp_path)
    assert "flagged as not safe (NSFW) by the provider: 3 jobs" in shown
    assert FLAGGED in shown


@WIRES
def test_files_beside_outputs_are_stored(tmp_path: Path, wire: str) -> None:
    """A cover by its URL and a text out of the answer, after what was asked for."""
    (result,) = run(tmp_path, 1, wire=wire, faults=Faults(beside=1.0))
    assert [asset.name for asset in result.assets] == [
        *("images/杯_0_1.png", "images/杯_0_2.png"),
        *("images/杯_0_extra_1.png", "images/杯_0_extra_2.txt"),
    ]
    assert (tmp_path / result.assets[3].path).read_text(encoding="utf-8") == LYRICS
    assert len({asset.sha256 for asset in result.assets}) == 4
    assert result.notes == {"extras": 2}
    assert "Note" not in said(tmp_path)


@WIRES
def test_fewer_outputs_than_asked_for_are_said(tmp_path: Path, wire: str) -> None:
    """One of two pictures is a success that tells what is missing."""
    (result,) = run(tmp_path, 1, wire=wire, faults=Faults(fewer_outputs=1.0))
    assert (result.notes, len(result.assets)) == ({"given": 1, "asked": 2}, 1)
    assert "1 of 2 outputs came: 1 job (杯 0)" in said(tmp_path)
