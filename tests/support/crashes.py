"""Runs in a process that is killed at a chosen step, and what must hold after the next run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import read_manifest
from asyncpipe.errors import LedgerError
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support import ROOT
from tests.support.tables import tables

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3.1/text-to-video"
killing = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
patient = pytest.mark.timeout(600)


class Runner:
    """Runs in forked processes, each killed at a step or left to end."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process, self._url = process, url

    def run(
        self, folder: Path, jobs: list[dict[str, Any]], *, stop_at: int | None, what: str = "run"
    ) -> bool:
        """Run; whether the process was killed. A run that fails by itself fails the test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"folder": str(folder), "url": self._url, "jobs": jobs}
        self._process.stdin.write(json.dumps({**asked, "stop_at": stop_at, "what": what}) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        assert ended["killed"] or ended["code"] == 0, f"stop_at={stop_at}: {ended}"
        return bool(ended["killed"])


@contextmanager
def runner(url: str) -> Iterator[Runner]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.support.crash_child"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            yield Runner(process, url)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def two_jobs(mark: str) -> list[dict[str, Any]]:
    """A picture of two outputs and a clip, told apart in the books by ``mark``."""
    return [
        {"name": "杯", "model": FLUX, "prompt": f"mug {mark}", "params": {"num_images": 2}},
        {"name": "clip", "model": VEO, "prompt": f"clip {mark}", "duration": 4},
    ]


def submitting(folder: Path) -> int:
    """Jobs whose intent is recorded and whose answer is not: they have to become unknown."""
    try:
        with tables(folder) as connection:
            query = "SELECT count(*) FROM jobs WHERE state='submitting'"
            return int(connection.execute(query).fetchone()[0])
    except LedgerError:
        return 0


def judge(folder: Path, jobs: list[dict[str, Any]], books: Books, unknown: int) -> None:
    """Everything the promises say, after the last run."""
    prompts = {job["prompt"] for job in jobs}
    sold = [p for p in books.predictions() if p.body["prompt"] in prompts]
    per_prompt = Counter(p.body["prompt"] for p in sold)
    assert max(per_prompt.values(), default=0) <= 1, f"paid twice: {per_prompt}"
    results = list(read_manifest(folder))
    states = Counter(result.status for result in results)
    assert states["unknown"] == unknown, [r.error for r in results]
    assert states["success"] == len(jobs) - unknown, [(r.status, r.error) for r in results]
    bought = {p.id: p for p in sold}
    files = set()
    for result in results:
        if result.status != "success":
            assert result.reserved > 0
            continue
        assert result.prediction_id in bought, "the manifest names a prediction nobody sold"
        assert result.cost == Decimal(bought[result.prediction_id].price).scaleb(-6)
        assert len(result.assets) == bought[result.prediction_id].outputs
        for asset in result.assets:
            body = (folder / asset.path).read_bytes()
            assert (len(body), hashlib.sha256(body).hexdigest()) == (asset.size, asset.sha256)
            files.add(asset.path)
    report = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    spent = sum(p.price for p in sold)
    cost, reserved = (Decimal(str(report[k])).scaleb(6) for k in ("total_cost", "reserved"))
    assert cost <= spent <= cost + reserved
    assert unknown or cost == spent
    standing = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    ours = {path for path in standing if path.startswith(".asyncpipe/")}
    assert standing - ours == files | {"manifest.json"}
    assert not any(path.startswith(".asyncpipe/parts/") for path in ours), ours


def settings(tmp_path: Path) -> SimulatorSettings:
    return SimulatorSettings(
        generation_s=(0.2, 1.0), speed=20, body_bytes=3000, books=tmp_path / "books"
    )
