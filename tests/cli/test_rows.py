"""Catalogs from table to manifest, by the command line on the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.cli.app import run_command
from asyncpipe.commands import survey as look
from tests.support.job_files import FLUX

TEMPLATE = f"""\
rows: shop.csv
defaults: {{model: {FLUX}}}
jobs:
- name: "{{sku}}"
  prompt: "{{name}}, product photo"
  labels: {{shop: north}}
"""
ROWS = "sku;name;price\nA;白瓷杯;19,90\nB;=mug;5,00\n"


class Shop:
    """A folder with a table, a template, and runs over them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.write("jobs.yaml", TEMPLATE)
        self.write("shop.csv", ROWS)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="gb18030" if name == "shop.csv" else "utf-8")

    def run(self, *options: str, file: str = "jobs.yaml") -> tuple[int, str]:
        command = ["run", str(self.folder / file), "--simulate", "--simulate-speed", "200"]
        code = run_command([*command, "-o", str(self.folder / "out"), *options])
        captured = self._capsys.readouterr()
        return code, captured.out + captured.err

    @property
    def results(self) -> dict[str, Any]:
        manifest = json.loads((self.folder / "out" / "manifest.json").read_bytes())
        return {row["name"]: row for row in manifest["results"]}


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, capsys)


def test_a_catalog_is_made_and_its_columns_reach_the_manifest(shop: Shop) -> None:
    """What was taken for the encoding is said; the same command again reads no row."""
    code, said = shop.run()
    assert code == 0
    assert "rows: shop.csv (read as GB18030 (GBK): " in said
    assert "columns no template names (kept as labels): price" in said
    assert shop.results["A"]["labels"] == {
        "sku": "A",
        "name": "白瓷杯",
        "price": "19,90",
        "shop": "north",
    }
    code, said = shop.run()
    assert code == 0
    assert "2 jobs from" in said
    assert "unchanged since the last run" in said


@pytest.mark.parametrize("option", ["--retry-failed", "--ambiguous=resubmit"])
def test_what_is_submitted_again_is_checked_again(shop: Shop, option: str) -> None:
    """An unchanged file is not: its models and prices may not be what they were."""
    assert shop.run()[0] == 0
    assert "unchanged since the last run" not in shop.run(option)[1]


def test_a_row_more_is_one_job_more(shop: Shop) -> None:
    """A changed table is read again, and only what is new is bought."""
    assert shop.run()[0] == 0
    shop.write("shop.csv", f"{ROWS}C;cup;7,00\n")
    code, said = shop.run()
    assert code == 0
    assert "unchanged" not in said
    assert {name: row["attempts"] for name, row in shop.results.items()} == dict.fromkeys("ABC", 1)
    shop.write("jobs.yaml", TEMPLATE.replace("north", "south"))
    assert shop.run()[0] == 0
    assert {row["labels"]["shop"] for row in shop.results.values()} == {"south"}
    assert {row["attempts"] for row in shop.results.values()} == {1}


def test_tables_and_lines_of_jobs_run(shop: Shop) -> None:
    """A CSV of fields, then JSON Lines of one of the same jobs: bought once."""
    shop.write("plain.csv", f"name,model,prompt,price\nA,{FLUX},a mug,9\nB,{FLUX},a cup,8\n")
    assert shop.run(file="plain.csv")[0] == 0
    assert shop.results["B"]["labels"] == {"price": "8"}
    line = {"name": "A", "model": FLUX, "prompt": "a mug", "labels": {"price": "10"}}
    shop.write("plain.jsonl", json.dumps(line))
    code, _ = shop.run(file="plain.jsonl")
    assert code == 0
    assert shop.results["A"]["attempts"] == 1
    assert shop.results["A"]["labels"] == {"price": "10"}


def test_a_long_look_says_how_far_it_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked, then written down: nobody waits before a silent screen."""
    monkeypatch.setattr(look, "BEAT_S", 0.0)
    shop.write("shop.csv", "sku,name,price\n" + "".join(f"{n},mug,1\n" for n in range(2500)))
    code, said = shop.run("--max-cost", "0.01")
    assert code == 3
    for line in ("1000 jobs checked", "2000 jobs checked", "2000 jobs written down"):
        assert line in said
