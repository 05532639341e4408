"""Job files written for one test, read by ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe.errors import JobFileError
from asyncpipe.jobfile import JobFile, load_jobs

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3.1/text-to-video"
ROW = f"{{model: {FLUX}, prompt: p}}"


def load(tmp_path: Path, content: str | bytes, name: str = "jobs.yaml") -> JobFile:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_jobs(path)


def problems(tmp_path: Path, content: str | bytes, name: str = "jobs.yaml") -> list[str]:
    """What is said of a file, without the folder it lies in."""
    with pytest.raises(JobFileError) as caught:
        load(tmp_path, content, name)
    return [str(problem).replace(f"{tmp_path / name}", name) for problem in caught.value.problems]
