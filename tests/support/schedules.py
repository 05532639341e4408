"""A job file whose output folder is a template, and weeks that pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.command_line import books, job_lines, write_jobs

RUN = ("run", "jobs.yaml", "--simulate")


def scheduled(home: Path, count: int = 3, template: str = "weekly/{date}") -> Path:
    text = job_lines(count).replace("output_dir: out", f"output_dir: {template}")
    return write_jobs(home / "jobs.yaml", text)


RUN = ("run", "jobs.yaml", "--simulate")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def a_week_older(folder: Path) -> Path:
    """The same folder as a week would leave it: folders may be moved."""
    day = datetime.fromisoformat(folder.name) - timedelta(days=7)
    return folder.rename(folder.with_name(day.date().isoformat()))


def sold(folder: Path) -> int:
    return len(books(folder).predictions())
