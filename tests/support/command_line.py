"""The command line in a process of its own, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from asyncpipe.simulator.books import Books
from tests.support import ROOT
from tests.support.tables import tables


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "asyncpipe", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables}


def asyncpipe(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
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
        with tables(folder) as connection:
            query = "SELECT count(*) FROM attempts WHERE submitted_at IS NOT NULL"
            return int(connection.execute(query).fetchone()[0])
    except Exception:  # the ledger is being made
        return 0


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


def sold_by(url: str) -> int:
    import urllib.request

    request = urllib.request.Request(
        url.replace("/api/v1", "/books"), headers={"User-Agent": "test"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.loads(answer.read())["predictions"])
