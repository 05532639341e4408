"""One row per job: for spreadsheets, for programs, from ledgers of any size."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe import Deadlines, Job, Pipeline
from asyncpipe.errors import BalanceExhausted, DiskError, LedgerError, SubmitUnknown, UsageError
from asyncpipe.jobs import JobType
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report import export
from asyncpipe.report.export import COLUMNS, cell, export_file
from asyncpipe.testing import PIXEL, SAMPLES, FakeProvider, Script, run_virtual
from tests.support.command_line import asyncpipe, command, environment
from tests.support.tables import ledger_of

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
EVIL = '=HYPERLINK("http://x","看")\n第二行\x1b[31m\x00, "quoted"; 完'

SCRIPTS = {
    "two": Script(outputs=(PIXEL, PIXEL)),
    "fails": Script(end=PredictionStatus.FAILED, error="@sum no luck"),
    "lost answer": Script(submits=[SubmitUnknown("reset")]),
    "slow": Script(generation_s=10_000),
    "broke": Script(submits=[BalanceExhausted("no money")] * 9),
}


def jobs() -> list[Job]:
    names = ["two", "fails", "lost answer", "slow", "evil", "broke", "never"]
    return [
        Job(
            name=name,
            model=FLUX,
            prompt=EVIL if name == "evil" else "白瓷杯",
            params={"width": 64, "negative_prompt": "模糊"} if name == "two" else {},
        )
        for name in names
    ]


def folder_of(tmp_path: Path) -> Path:
    async def main() -> None:
        async with Pipeline(
            FakeProvider(scripts=SCRIPTS),
            tmp_path / "out",
            seed=1,
            max_workers=1,
            deadlines=Deadlines(image=60),
            recovery={"retries": 0},
        ) as pipeline:
            await pipeline.batch_generate(jobs())

    run_virtual(main())
    return tmp_path / "out"


def large(folder: Path, count: int) -> Path:
    """A folder whose jobs were never started; 2 KB each."""
    rows = [Job(name=f"杯 {n}", model=FLUX, prompt="杯" * 700) for n in range(count)]
    keyed = [(job.key("atlas"), job) for job in rows]

    async def main() -> None:
        ledger = await ledger_of(folder, None)
        await ledger.add_jobs(keyed, run=1, position=0)
        await ledger.aclose()

    run_virtual(main())
    return folder


def read_csv(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_job_is_a_row_in_job_file_order(tmp_path: Path) -> None:
    """Also those that failed, that nobody knows of, and that were never started."""
    folder = folder_of(tmp_path)
    assert export_file(folder, tmp_path / "rows.jsonl", "jsonl") == 7
    rows = {row["name"]: row for row in read_jsonl(tmp_path / "rows.jsonl")}
    assert list(rows) == [job.name for job in jobs()]
    assert all({*row} == {*COLUMNS, "labels"} for row in rows.values())
    two = rows["two"]
    assert two["params"] == {"width": 64, "negative_prompt": "模糊"}
    assert (two["status"], two["outcome"], two["charged_usd"]) == ("success", "succeeded", 0.04)
    assert two["cost_source"] == "FakeProvider"
    assert two["assets"] == ["images/two_1.png", "images/two_2.png"]
    assert (two["asset"], two["asset_bytes"]) == ("images/two_1.png", 70)
    assert len(two["asset_sha256"]) == 64
    assert two["submitted_at"] <= two["completed_at"]
    assert (rows["fails"]["outcome"], rows["fails"]["error"]) == (
        "failed, not charged",
        "@sum no luck",
    )
    assert (rows["lost answer"]["status"], rows["lost answer"]["reserved_usd"]) == ("unknown", 0.04)
    assert (rows["slow"]["status"], rows["slow"]["reserved_usd"]) == ("pending", 0.04)
    never = rows["never"]
    assert (never["status"], never["attempts"], never["error"]) == (
        "pending",
        0,
        "not submitted yet",
    )
    assert never["prompt"] == "白瓷杯"
    assert never["submitted_at"] is None


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    """Empty is null, paths are joined, the rest is as it is."""
    folder = folder_of(tmp_path)
    export_file(folder, tmp_path / "rows.jsonl", "jsonl")
    export_file(folder, tmp_path / "rows.csv", "csv")
    body = (tmp_path / "rows.csv").read_bytes()
    assert body.startswith(b"\xef\xbb\xbfname,key,")
    table, rows = read_csv(body), read_jsonl(tmp_path / "rows.jsonl")
    assert [tuple(row) for row in table] == [COLUMNS] * 7
    for line, row in zip(table, rows, strict=True):
        for name in ("name", "key", "model", "status", "outcome", "prediction_id", "asset"):
            assert line[name] == (row[name] or "")
        assert line["assets"] == ";".join(row["assets"])
        assert float(line["charged_usd"]) == row["charged_usd"]
        assert json.loads(line["params"] or "{}") == row["params"]
    assert table[1]["error"] == "'@sum no luck"
    assert table[4]["prompt"] == "'" + EVIL.replace("\x1b", "").replace("\x00", "")
    assert rows[4]["prompt"] == EVIL


def test_what_is_said_beside_outputs_is_in_every_export(tmp_path: Path) -> None:
    """Of the job and of the very attempt; empty where nothing is said."""
    running = Prediction(id="p1", status=PredictionStatus.RUNNING)
    said = replace(
        running,
        status=PredictionStatus.COMPLETED,
        outputs=(SAMPLES[JobType.IMAGE],),
        notes={"nsfw": [True], "error": "=1 of 2 was blocked"},
    )

    async def main() -> None:
        provider = FakeProvider(scripts={"said": Script(polls=[said])})
        async with Pipeline(provider, tmp_path / "out", max_workers=1) as pipeline:
            await pipeline.batch_generate(
                [Job(name=name, model=FLUX, prompt="mug") for name in ("said", "plain")]
            )

    run_virtual(main())
    for rows in ("jobs", "attempts"):
        export_file(tmp_path / "out", tmp_path / "rows.jsonl", "jsonl", rows=rows)
        found = {row["name"]: row["notes"] for row in read_jsonl(tmp_path / "rows.jsonl")}
        assert found == {"said": {"nsfw": [True], "error": "=1 of 2 was blocked"}, "plain": {}}
        export_file(tmp_path / "out", tmp_path / "rows.csv", "csv", rows=rows)
        cells = {
            row["name"]: row["notes"] for row in read_csv((tmp_path / "rows.csv").read_bytes())
        }
        assert json.loads(cells["said"]) == found["said"]
        assert cells["plain"] == ""


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_no_cell_is_a_formula(first: str) -> None:
    """A leading apostrophe makes it text; so it does when a control character hid the sign."""
    assert cell(f"{first}1+1") == f"'{first}1+1"
    assert cell(f"\x00{first}1+1") == f"'{first}1+1"


def test_line_breaks_and_tabs_inside_cells_survive() -> None:
    """Others of their kind are removed."""
    assert cell("a\r\nb\nc\td\x07\x9b\x7f") == "a\r\nb\nc\td"
    assert cell("\ud800x") == "x"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_comes_back_from_a_cell(text: str) -> None:
    """Through csv and UTF-8, but for what was removed."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow([cell(text), "end"])
    (row,) = csv.reader(io.StringIO(buffer.getvalue().encode().decode(), newline=""))
    assert row == [cell(text), "end"]
    assert cell(text)[:1] not in set("=+-@\t\r\n＝＋－＠")
    kept = [c for c in text if c in "\t\r\n" or not c.isascii() or c.isprintable()]
    assert set(cell(text)) <= {*kept, "'"}


def test_a_failing_export_leaves_the_old_file(tmp_path: Path) -> None:
    """A damaged row is an error in the middle: no half file, and nothing beside it."""
    folder, path = folder_of(tmp_path), tmp_path / "rows.csv"
    path.write_text("old")
    with sqlite3.connect(ledger_path(folder)) as connection:
        connection.execute("UPDATE jobs SET spec='{' WHERE name='never'")
    connection.close()
    with pytest.raises(LedgerError, match="job 7"):
        export_file(folder, path, "csv")
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "rows.csv"]


def test_places_where_no_file_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a folder that is not there, a full disk: said in words, with the way out."""
    folder = large(tmp_path / "out", 1)
    with pytest.raises(UsageError, match="is a folder"):
        export_file(folder, tmp_path, "csv")
    with pytest.raises(UsageError, match="no folder"):
        export_file(folder, tmp_path / "no" / "rows.csv", "csv")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_rows", full)
    with pytest.raises(DiskError, match="No space left"):
        export_file(folder, tmp_path / "rows.csv", "csv")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_number_of_jobs(tmp_path: Path, form: str) -> None:
    """3,000 rows of 2 KB within 1 MB."""
    folder = large(tmp_path / "out", 3000)
    export_file(folder, tmp_path / "first", form)  # imports
    tracemalloc.start()
    assert export_file(folder, tmp_path / "rows", form) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "rows").stat().st_size > 6_000_000
    assert peak < 1_000_000


def test_the_command_writes_a_file_or_stdout(tmp_path: Path) -> None:
    """Stdout without the mark that spreadsheets need; exit 3 without a ledger, 2 without format."""
    large(tmp_path / "out", 3)
    to_file = asyncpipe("export", "out", "--format", "csv", "-o", "rows.csv", cwd=tmp_path)
    assert (to_file.returncode, to_file.stdout) == (0, "")
    assert "3 jobs" in to_file.stderr
    done = subprocess.run(
        command("export", "out", "--format", "csv"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=True,
        timeout=250,
    )
    assert b"\xef\xbb\xbf" + done.stdout == (tmp_path / "rows.csv").read_bytes()
    assert asyncpipe("export", "nowhere", "--format", "csv", cwd=tmp_path).returncode == 3
    assert asyncpipe("export", "out", cwd=tmp_path).returncode == 2


def test_a_reader_that_leaves_early_is_no_bug(tmp_path: Path) -> None:
    """As with ``| head``: no traceback, exit 3."""
    large(tmp_path / "out", 1000)
    process = subprocess.Popen(
        command("export", "out", "--format", "jsonl"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(250) == 3
    process.stderr.close()
