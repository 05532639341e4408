"""Job templates over a table of rows, written for one test, read by ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe.errors import JobFileError
from asyncpipe.jobfile import JobFile, load_jobs
from tests.support.job_files import FLUX

HEAD = f"rows: rows.csv\ndefaults: {{model: {FLUX}}}\n"
TEMPLATE = HEAD + 'jobs:\n- name: "{sku}"\n  prompt: "{text}"\n'


def load(folder: Path, text: str, rows: str | bytes, name: str = "rows.csv") -> JobFile:
    (folder / name).write_bytes(rows.encode() if isinstance(rows, str) else rows)
    path = folder / "jobs.yaml"
    path.write_text(text.replace("rows.csv", name), encoding="utf-8")
    return load_jobs(path)


def problems(folder: Path, text: str, rows: str | bytes, name: str = "rows.csv") -> list[str]:
    """What is said of a file of rows, without the folder it lies in."""
    with pytest.raises(JobFileError) as caught:
        load(folder, text, rows, name)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def named(file: JobFile) -> list[tuple[str | None, str]]:
    return [(job.name, job.prompt) for job in file.jobs]
