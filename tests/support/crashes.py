"""Runs in a process that is killed at a chosen step, and what must hold after the next run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from asyncpipe import read_manifest
from asyncpipe.errors import LedgerError
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support import ROOT
from tests.support.tables import tables

T = TypeVar("T")
FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3.1/text-to-video"
killing = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
patient = pytest.mark.timeout(600)


class Runner:
    """Runs in forked processes, each killed at a step or left to end."""

    def __init__(
        self, process: subprocess.Popen[str], url: str, settle: Callable[[], None]
    ) -> None:
        self._process, self._url, self._settle = process, url, settle

    def run(
        self, folder: Path, jobs: list[dict[str, Any]], *, stop_at: int | None, what: str = "run"
    ) -> bool:
        """Run; whether the process was killed. A run that fails by itself fails the test.

        Whatever it had sent by then is in the simulator's books when this returns.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"folder": str(folder), "url": self._url, "jobs": jobs}
        self._process.stdin.write(json.dumps({**asked, "stop_at": stop_at, "what": what}) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        assert ended["killed"] or ended["code"] == 0, f"stop_at={stop_at}: {ended}"
        self._settle()
        return bool(ended["killed"])


async def settled(url: str, ours: set[asyncio.Task[Any] | None]) -> None:
    """Wait until the simulator on this loop has dealt with all that dead processes sent.

    Connections are taken in the order they were made: once a new one is answered, nobody waits at
    the door. Each has a task that ends when its client is gone and its last request was served.
    """
    there = urlsplit(url)
    reader, writer = await asyncio.open_connection(there.hostname, there.port)
    writer.write(b"GET /books HTTP/1.0\r\n\r\n")
    await reader.read()
    writer.close()
    while others := asyncio.all_tasks() - ours - {asyncio.current_task()}:
        await asyncio.wait(others)


def against_simulator(
    tmp_path: Path, steps: Callable[[Runner, Books], T], *, profile: str = "atlas", faults: str = ""
) -> T:
    """Do ``steps`` in a thread beside a simulator: runs that are killed, and its books."""
    path = tmp_path / "books"
    simulated = SimulatorSettings(
        profile=profile,
        faults=Faults.parse(faults),
        generation_s=(0.2, 1.0),
        speed=50,
        body_bytes=3000,
        books=path,
    )

    async def main() -> T:
        loop, ours = asyncio.get_running_loop(), {asyncio.current_task()}
        async with Simulator(simulated) as simulator:
            url = simulator.base_url

            def settle() -> None:
                asyncio.run_coroutine_threadsafe(settled(url, ours), loop).result()

            def work() -> T:
                with process() as child, closing(Books(path)) as books:
                    return steps(Runner(child, url, settle), books)

            return await asyncio.to_thread(work)

    return asyncio.run(main())


@contextmanager
def process() -> Iterator[subprocess.Popen[str]]:
    """The process that forks a run for each line it reads."""
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.support.crash_child"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with child:
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()


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
    # Of the ``unknown`` ones those are found again that were bought: every one.
    assert states["unknown"] <= unknown, [r.error for r in results]
    assert states["unknown"] == len(prompts) - len(per_prompt), [r.error for r in results]
    assert states["success"] == len(per_prompt), [(r.status, r.error) for r in results]
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
            body = (folder / asset.name).read_bytes()
            assert (len(body), hashlib.sha256(body).hexdigest()) == (asset.size, asset.sha256)
            files.add(asset.name)
    report = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    spent = sum(p.price for p in sold)
    cost, reserved = (Decimal(str(report[k])).scaleb(6) for k in ("total_cost", "reserved"))
    assert cost == spent
    assert reserved > 0 or not states["unknown"]
    standing = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    ours = {path for path in standing if path.startswith(".asyncpipe/")}
    assert standing - ours == files | {"manifest.json"}
    assert not any(path.startswith(".asyncpipe/parts/") for path in ours), ours
