"""Load a job file, or take jobs as Python has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncpipe.errors import JobFileError, Problem
from asyncpipe.jobfile.expand import Defaults
from asyncpipe.jobfile.place import Place
from asyncpipe.jobfile.read import read_source
from asyncpipe.jobfile.source import Block, Listing, Unclear, Unreadable
from asyncpipe.jobfile.top import read_top
from asyncpipe.jobfile.validate import JobRow, read_rows
from asyncpipe.jobs import Job
from asyncpipe.settings import RunSettings

EXAMPLE = """a job file looks like this:
jobs:
  - name: Mug on oak
    model: black-forest-labs/flux-2-pro/text-to-image
    prompt: A white ceramic mug on an oak table"""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """A job file, read and found valid; ``rows`` holds at least one job, in the file's order."""

    path: Path
    settings: RunSettings
    rows: Sequence[JobRow]

    @property
    def jobs(self) -> list[Job]:
        """The jobs alone, as ``Pipeline.batch_generate`` takes them."""
        return [row.job for row in self.rows]


def load_jobs(path: str | Path) -> JobFile:
    """Read and check a job file: YAML, JSON, or JSONL with one job a line.

    Raises JobFileError with every problem in it, and UsageError for a path that cannot be read.
    """
    path = Path(path)
    place = Place(found=[], file=str(path))
    try:
        source = read_source(path)
    except Unreadable as exc:
        place.report(str(exc), line=exc.line)
        raise JobFileError(place.found) from exc
    file = _job_file(path, source, place)
    if place.found:
        raise JobFileError(sorted(place.found, key=_line))
    return file


def parse_jobs(jobs: Iterable[Mapping[str, Any] | Job]) -> list[Job]:
    """Check jobs that are dicts with a job file's keys; a Job stays as it is.

    Raises JobFileError with every problem; nothing else than a job file's own rules is checked.
    """
    place = Place(found=[])
    rows = read_rows(((job, None) for job in jobs), Defaults(), place)
    if place.found:
        raise JobFileError(place.found)
    return [row.job for row in rows]


def _line(problem: Problem) -> int:
    return problem.line or 0


def _job_file(path: Path, source: Any, place: Place) -> JobFile:
    settings, defaults = RunSettings(), Defaults()
    if isinstance(source, Block):
        settings, defaults = read_top(source, place)
    rows = _rows(source, place)
    if rows is None:
        return JobFile(path=path, settings=settings, rows=())
    return JobFile(path=path, settings=settings, rows=read_rows(rows, defaults, place))


def _rows(source: Any, place: Place) -> Iterable[tuple[Any, int | None]] | None:
    """The rows with their lines; None, and a report, where there are none."""
    jobs, line = source, None
    if isinstance(source, Block):
        jobs, line = source.get("jobs"), source.lines.get("jobs")
    if isinstance(jobs, Listing) and jobs:
        return zip(jobs, jobs.lines, strict=True)
    if isinstance(source, Unclear):
        place.report(source.why)
    elif source is None or (isinstance(source, Listing) and not source):
        place.report(f"the file is empty; {EXAMPLE}")
    elif isinstance(source, Block) and "jobs" not in source:
        place.report(f"there is no jobs: in it; {EXAMPLE}")
    elif jobs is None or isinstance(jobs, Listing):
        place.report(f"jobs: the list is empty; {EXAMPLE}", line=line)
    elif not hasattr(jobs, "why"):
        place.report(f"jobs: must be a list, each job beginning with a dash; {EXAMPLE}", line=line)
    return None
