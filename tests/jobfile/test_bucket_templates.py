"""``{date}`` and ``{week}`` in the URL of a bucket: templates as those of folders are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncpipe import Pipeline
from asyncpipe.errors import UsageError
from asyncpipe.jobfile import FolderTemplate
from asyncpipe.jobs import place_of
from asyncpipe.testing import FakeProvider
from tests.support.job_files import load, problems

AT = datetime(2026, 11, 28, 13, 5, tzinfo=UTC)
JOBS = "jobs: [{model: black-forest-labs/flux-2-pro/text-to-image, prompt: x}]\n"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("s3://media/weekly/{date}", "s3://media/weekly/2026-11-28"),
        ("s3://media/{week}/shop", "s3://media/2026-W48/shop"),
        ("gs://media/shop-{date}", "gs://media/shop-2026-11-28"),
    ],
)
def test_a_placeholder_is_filled_in(tmp_path: Path, text: str, filled: str) -> None:
    """On the command line and in a job file."""
    template = FolderTemplate.of(text)
    assert str(template.folder(AT)) == filled
    assert load(tmp_path, f"output_dir: '{text}'\n{JOBS}").settings.template == template


@pytest.mark.parametrize("text", ["s3://media/shop", "s3://media"])
def test_others_are_none(tmp_path: Path, text: str) -> None:
    """But one bucket."""
    assert not FolderTemplate.of(text).varies
    assert load(tmp_path, f"output_dir: '{text}'\n{JOBS}").settings.output_dir == place_of(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("s3://media/{time}", "write {date} or {week}"),
        ("s3://media/{dat}", "is no placeholder"),
        ("s3://media/{", "lone brace"),
        ("s3://me/{date}", "is no URL of a bucket"),
    ],
)
def test_what_is_none_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    """Before anything is spent."""
    with pytest.raises(UsageError, match=why):
        FolderTemplate.of(text)
    (problem,) = problems(tmp_path, f"output_dir: '{text}'\n{JOBS}")
    assert why in problem
    assert problem.startswith("jobs.yaml:1") or "jobs.yaml:1:" in problem


def test_a_program_names_one_place() -> None:
    """A pipeline knows no moment."""
    with pytest.raises(UsageError, match="asyncpipe run"):
        Pipeline(FakeProvider(), "s3://media/{date}")
