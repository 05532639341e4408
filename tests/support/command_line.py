"""The command line in a process of its own, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from asyncpipe.simulator.books import BookedPrediction, Books
from tests.support import ROOT, forked
from tests.support.tables import tables


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "asyncpipe", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables}


def asyncpipe(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: forked, unless ``variables`` are for an interpreter that begins."""
    if hasattr(os, "fork") and not any(name.startswith("PYTHON") for name in variables):
        words = [str(argument) for argument in arguments]
        return forked.command(words, cwd=cwd, env=environment(**variables), timeout_s=100)
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=250,
        check=False,
    )


def manifest(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return loaded


def books(folder: Path) -> Books:
    return Books(folder / ".asyncpipe" / "simulator.sqlite3")


def write_jobs(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def submitted(folder: Path) -> int:
    try:
        return _attempts(folder, "submitted_at IS NOT NULL")
    except Exception:  # the ledger is being made
        return 0


def intended(folder: Path) -> int:
    """Submits that a ledger says were sent, or about to be: a killed run adds none any more.

    (To the books it may: what it still had in a socket is booked when the simulator gets to it.)
    """
    return _attempts(folder, "true")


def _attempts(folder: Path, which: str) -> int:
    with tables(folder) as connection:
        query = f"SELECT count(*) FROM attempts WHERE {which}"
        return int(connection.execute(query).fetchone()[0])


@contextmanager
def started(*arguments: object, cwd: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that runs beside the test, and not beyond it."""
    options = {"env": environment(), **options}
    with subprocess.Popen(command(*arguments), cwd=cwd, encoding="utf-8", **options) as process:
        try:
            yield process
        finally:
            process.kill()


def job_lines(count: int, size: int = 64) -> str:
    polling = "polling: {initial_s: 0.05, maximum_s: 0.2}"
    return f"output_dir: out\nmax_workers: 4\n{polling}\njobs:\n" + "".join(
        f"  - {{name: 杯 {n}, model: black-forest-labs/flux-2-pro/text-to-image,"
        f" prompt: mug {n}, width: {size}, height: {size}}}\n"
        for n in range(count)
    )


def start_simulator(home: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a simulator as a server of its own; return its process and base URL."""
    server = subprocess.Popen(
        command("simulate", "--port", 0, "--books", home / "books.sqlite3", "--speed", 60),
        cwd=home,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert server.stdout is not None
    return server, server.stdout.readline().split()[2]


@contextmanager
def a_simulator(home: Path, *options: object) -> Iterator[str]:
    """A simulator of its own that lives as long as the block; gives its base URL."""
    fixed = ("simulate", "--port", 0, "--books", home / "books.sqlite3", "--speed", 60, "--hang", 1)
    with subprocess.Popen(
        command(*fixed, *options),
        cwd=home,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[2]
        finally:
            server.kill()


def server_books(home: Path) -> tuple[list[BookedPrediction], Decimal]:
    """What the simulator of ``home`` has sold, and USD charged for it."""
    with closing(Books(home / "books.sqlite3")) as books:
        return books.predictions(), books.charged()


def sold_by(url: str) -> int:
    import urllib.request

    request = urllib.request.Request(
        url.replace("/api/v1", "/books"), headers={"User-Agent": "test"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.loads(answer.read())["predictions"])
