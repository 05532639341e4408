"""The command line in a process of its own, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from asyncpipe.ledger.database import reading
from asyncpipe.simulator.books import Books
from tests.support import ROOT


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
        with reading(folder) as connection:
            query = "SELECT count(*) FROM attempts WHERE submitted_at IS NOT NULL"
            return int(connection.execute(query).fetchone()[0])
    except Exception:  # the ledger is being made
        return 0
