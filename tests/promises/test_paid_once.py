"""A process that is killed at every step it takes, and goes on; the simulator's books judge.

ASYNCPIPE_CHAOS=long kills each run at a second and a third step as well, many times over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe import read_manifest
from asyncpipe.errors import LedgerError
from asyncpipe.ledger.database import reading
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support import ROOT

LONG = os.environ.get("ASYNCPIPE_CHAOS") == "long"
FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3.1/text-to-video"

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL"),
    pytest.mark.timeout(600),
]


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
        with reading(folder) as connection:
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


def test_killed_at_every_step_nothing_is_paid_twice_or_lost(tmp_path: Path) -> None:
    """Every ledger write, request, rename and fsync of a run is its last one once.

    The run after that goes on; in the long form it is killed as well, at random.
    """

    def kill_everywhere(url: str) -> int:
        rng, stop_at, killed = Random(1), 0, True
        with runner(url) as runs, closing(Books(tmp_path / "books")) as books:
            while killed:
                stop_at += 1
                for again in range(20 if LONG else 1):
                    folder = tmp_path / f"{stop_at}-{again}"
                    jobs = two_jobs(folder.name)
                    unknown, at = 0, stop_at
                    for _ in range(3 if LONG else 1):
                        killed = runs.run(folder, jobs, stop_at=at) or at != stop_at
                        unknown += submitting(folder)
                        at = rng.randrange(1, 120)
                    assert not runs.run(folder, jobs, stop_at=None)
                    judge(folder, jobs, books, unknown)
        return stop_at

    async def main() -> int:
        async with Simulator(settings(tmp_path)) as simulator:
            return await asyncio.to_thread(kill_everywhere, simulator.base_url)

    assert asyncio.run(main()) > 80, "there are not that few steps in a run"


@pytest.mark.parametrize("what", ["collect", "verify"])
def test_killed_while_recovering_nothing_is_bought(tmp_path: Path, what: str) -> None:
    """collect and verify, killed at every step: they buy nothing and can be repeated."""

    def kill_everywhere(url: str) -> int:
        stop_at, killed = 0, True
        with runner(url) as runs, closing(Books(tmp_path / "books")) as books:
            while killed:
                stop_at += 1
                folder = tmp_path / f"{stop_at}"
                jobs = two_jobs(f"{what} {stop_at}")
                if what == "verify":
                    assert not runs.run(folder, jobs, stop_at=None)
                    next((folder / "images").iterdir()).unlink()
                    clip = next((folder / "videos").iterdir())
                    clip.write_bytes(clip.read_bytes()[:-1] + b"?")
                else:
                    assert runs.run(folder, jobs, stop_at=75)
                unknown, sold = submitting(folder), len(books.predictions())
                killed = runs.run(folder, jobs, stop_at=stop_at, what=what)
                assert not runs.run(folder, jobs, stop_at=None, what=what)
                assert len(books.predictions()) == sold
                assert not runs.run(folder, jobs, stop_at=None)
                for changed in folder.glob("videos/*.changed"):
                    changed.unlink()
                judge(folder, jobs, books, unknown)
        return stop_at

    async def main() -> int:
        async with Simulator(settings(tmp_path)) as simulator:
            return await asyncio.to_thread(kill_everywhere, simulator.base_url)

    assert asyncio.run(main()) > 20


def test_killed_around_a_skipped_pass_nothing_is_lost_or_removed(tmp_path: Path) -> None:
    """The same file again, killed at every step until it has submitted, and once more."""

    def passes(folder: Path) -> tuple[int, int]:
        with reading(folder) as connection:
            whole = connection.execute("SELECT count(*) FROM runs WHERE seen=id").fetchone()
            skipped = connection.execute("SELECT count(*) FROM runs WHERE seen<id").fetchone()
            return int(whole[0]), int(skipped[0])

    def kill_everywhere(url: str) -> int:
        skips = 0
        with runner(url) as runs, closing(Books(tmp_path / "books")) as books:
            for stop_at in range(10, 46, 3):
                folder = tmp_path / f"{stop_at}"
                jobs = two_jobs(f"same {stop_at}")
                assert runs.run(folder, jobs, stop_at=45, what="same")  # its pass has ended
                unknown = submitting(folder)
                assert runs.run(folder, jobs, stop_at=stop_at, what="same")
                unknown += submitting(folder)
                assert not runs.run(folder, jobs, stop_at=None, what="same")
                judge(folder, jobs, books, unknown)
                whole, skipped = passes(folder)
                assert whole == 1, "a pass was made again"
                skips += skipped
        return skips

    async def main() -> int:
        async with Simulator(settings(tmp_path)) as simulator:
            return await asyncio.to_thread(kill_everywhere, simulator.base_url)

    assert asyncio.run(main()) > 15, "no run was killed after it skipped its pass"


def known_uploads(folder: Path) -> int:
    """Files whose URL the ledger holds."""
    try:
        with reading(folder) as connection:
            return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])
    except LedgerError:
        return 0


def test_killed_around_an_upload_nothing_is_lost_or_sent_again(tmp_path: Path) -> None:
    """From the start to the submit's answer: a URL the ledger holds is used by the next run.

    Before the intent nothing is unknown, however far the upload came.
    """

    def kill_everywhere(url: str) -> Counter[str]:
        stop_at, seen = 35, Counter[str]()  # what comes before is the same in every run
        with runner(url) as runs, closing(Books(tmp_path / "books")) as books:
            while not seen["bought"]:
                stop_at += 1
                folder, photo = tmp_path / f"{stop_at}", tmp_path / f"照片 {stop_at}.png"
                photo.write_bytes(b"\x89PNG\r\n\x1a\n" + folder.name.encode() + bytes(700_000))
                digest = hashlib.sha256(photo.read_bytes()).hexdigest()
                params = {"image": str(photo), "num_images": 1}
                jobs = [{"name": "杯", "model": FLUX, "prompt": f"up {stop_at}", "params": params}]
                assert runs.run(folder, jobs, stop_at=stop_at)
                sent, held, unknown = books.uploads(), known_uploads(folder), submitting(folder)
                bought = any(p.body["prompt"] == f"up {stop_at}" for p in books.predictions())
                assert not runs.run(folder, jobs, stop_at=None)
                judge(folder, jobs, books, unknown)
                again = books.uploads().get(digest, 0) - sent.get(digest, 0)
                assert again == (0 if held else 1)
                assert sent.get(digest, 0) >= held
                assert unknown <= held
                seen.update(sent=sent.get(digest, 0) and not held, held=held, bought=bought)
        return seen

    async def main() -> Counter[str]:
        async with Simulator(settings(tmp_path)) as simulator:
            return await asyncio.to_thread(kill_everywhere, simulator.base_url)

    seen = asyncio.run(main())
    assert seen["sent"] > 1, "no run was killed between an upload and its record"
    assert seen["held"] > 1, "no run was killed between an upload and its submit"
