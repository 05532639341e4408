"""Whatever a folder went through, every account of it says what it always said.

The words of ``same_words.json`` were written when the ledger still kept every event. A change to
them is one that users see: write them anew with ``python -m tests.report.test_same_words``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from asyncpipe.engine.resolve import Decision, resolve
from asyncpipe.report.export import export_file
from asyncpipe.report.manifest import read_manifest, write_manifest
from asyncpipe.report.purchases import read_entries
from asyncpipe.report.status import read_status, status_document, status_lines
from asyncpipe.report.summary import summary
from tests.support.histories import write_history

SAID = Path(__file__).with_name("same_words.json")
SEEDS = range(24)
SHOWN = 3
"""Histories whose words are kept whole, for people; of the others only what they hash to."""


def status(folder: Path) -> Iterator[str]:
    found = replace(read_status(folder), folder=Path("out"))
    document = status_document(found)
    del document["at"]
    yield orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
    yield from status_lines(found)[1:]


def manifest(folder: Path) -> Iterator[str]:
    document = json.loads(write_manifest(folder).path.read_text(encoding="utf-8"))
    del document["generated_at"]
    document["results"] = sorted(document["results"], key=lambda row: row["name"])
    for name, value in document.items():
        for each in value if name == "results" else [value]:
            yield f"{name}: {json.dumps(each, ensure_ascii=False, sort_keys=True)}"


def jobs(folder: Path) -> Iterator[str]:
    export_file(folder, folder / "jobs.jsonl", "jsonl")
    yield from (folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines()


def attempts(folder: Path) -> Iterator[str]:
    export_file(folder, folder / "attempts.csv", "csv", rows="attempts")
    yield from (folder / "attempts.csv").read_text(encoding="utf-8-sig").splitlines()


def purchases(folder: Path) -> Iterator[str]:
    found = read_entries(folder)
    for (model, day), entries in sorted(found.entries.items()):
        yield f"{model} {day} {entries}"
    yield f"{sorted(found.days)} {sorted(found.settled_free.items())}"


def summing_up(folder: Path) -> Iterator[str]:
    totals = read_manifest(folder).totals
    yield from summary(totals, elapsed_s=1, manifest="m", simulated=False)


def decisions(folder: Path) -> Iterator[str]:
    """What each decision does to a copy of the folder, and what is said of it then."""
    choices = [
        Decision(resubmit=anew, lost_charged=charged)
        for anew in (None, True, False)
        for charged in (None, True, False)
        if (anew, charged) != (None, None)
    ]
    for choice in choices:
        yield f"{choice}"
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / "copy"
            shutil.copytree(folder, copy)
            for each in asyncio.run(resolve(copy, (), choice)):
                yield f"  {each.after.name} {each.after.state.value} {each.after.attempt.error}"
                yield f"  {each.settled} settled, {each.charged} charged, {each.released} released"
            for line in (*status(copy), *purchases(copy), *attempts(copy)):
                yield f"  {without_time(line)}"


def without_time(line: str) -> str:
    """A decision is of today, and what it settles ended today."""
    today = datetime.now(UTC).date()
    return ",".join("" if part.startswith(f"{today}T") else part for part in line.split(","))


ACCOUNTS: list[Callable[[Path], Iterator[str]]] = [
    status, manifest, jobs, attempts, purchases, summing_up, decisions
]  # fmt: skip


def told(seed: int) -> dict[str, str]:
    """By account: all it says of a history."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "out"
        write_history(folder, seed)
        return {account.__name__: "\n".join(account(folder)) for account in ACCOUNTS}


def kept(seed: int, text: str) -> str | list[str]:
    if seed < SHOWN and len(text) < 20_000:
        return text.splitlines()
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def said() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SAID.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_every_account_says_what_it_said(seed: int) -> None:
    """Status, manifest, both exports, reconcile's entries, summary, and after every decision."""
    for account, text in told(seed).items():
        assert kept(seed, text) == said()[str(seed)][account], account


if __name__ == "__main__":
    words = {seed: {a: kept(seed, text) for a, text in told(seed).items()} for seed in SEEDS}
    SAID.write_text(json.dumps(words, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
