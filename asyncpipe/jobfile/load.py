"""Open a job file, load one, or take jobs as Python has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from asyncpipe.errors import JobFileError
from asyncpipe.jobfile.file import JobFile
from asyncpipe.jobfile.lazy import JobRow
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Unreadable
from asyncpipe.jobs import Job


def load_jobs(path: str | Path) -> JobFile:
    """Read and check a job file: YAML or JSON; JSONL, CSV or TSV with one job a line.

    Raises JobFileError with every problem in it, and UsageError for a path that cannot be read.
    """
    file = open_jobs(path)
    len(file.rows)
    return file


def open_jobs(path: str | Path) -> JobFile:
    """Like ``load_jobs``, but rows that are read lazily are checked when they are iterated.

    Raises JobFileError for what is wrong above them, and UsageError as ``load_jobs`` does.
    """
    from asyncpipe.jobfile.formats import opened  # what checks fields takes its time to load

    problems = Problems(found=[], file=str(path))
    try:
        file = opened(Path(path), problems)
    except Unreadable as exc:
        problems.report(str(exc), line=exc.line)
        raise JobFileError(problems.found) from exc
    problems.end()
    return file


def parse_jobs(jobs: Iterable[Mapping[str, Any] | Job]) -> list[Job]:
    """Check jobs that are dicts with a job file's keys; a Job stays as it is.

    Raises JobFileError with every problem; nothing else than a job file's own rules is checked.
    """
    from asyncpipe.jobfile.formats import read_entries

    problems = Problems(found=[])
    rows = read_entries(((job, None) for job in jobs), problems)
    problems.end()
    return [row.job for row in rows]


def as_file(jobs: Iterable[Mapping[str, Any] | Job]) -> JobFile:
    """Treat jobs of a program's own as a job file that says nothing else; raises JobFileError."""
    from asyncpipe.jobfile.settings import RunSettings

    rows = [JobRow(job=job) for job in parse_jobs(jobs)]
    return JobFile(path=Path("jobs"), settings=RunSettings(), rows=rows)


class JobReader:
    """Validates jobs as they come; after a problem it only looks for more."""

    def __init__(self) -> None:
        self._problems = Problems(found=[])
        self._count = 0

    def jobs_of(self, values: Iterable[Mapping[str, Any] | Job]) -> list[Job]:
        """The jobs of the next values; none after a problem."""
        jobs: list[Job] = []
        for value in values:
            self._count += 1
            if isinstance(value, Job):
                jobs.append(value)
            else:
                jobs += _jobs_of(value, self._count, self._problems)
        return [] if self._problems.found else jobs

    def end(self) -> None:
        """Raise JobFileError where there were problems."""
        self._problems.end()


def _jobs_of(value: Any, n: int, problems: Problems) -> list[Job]:
    from asyncpipe.jobfile.template import jobs_of

    return list(jobs_of(value, n, problems))
