"""Open a job file, load one, or take jobs as Python has them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from asyncpipe.errors import JobFileError, Problem, UsageError
from asyncpipe.jobfile.encoding import TextFile, check_ordinary, examine
from asyncpipe.jobfile.expand import NO_DEFAULTS, Defaults
from asyncpipe.jobfile.from_csv import ENDINGS
from asyncpipe.jobfile.from_json import read_json
from asyncpipe.jobfile.from_yaml import read_yaml
from asyncpipe.jobfile.lazy import LazyJobs, LazyRows
from asyncpipe.jobfile.placeholders import Columns
from asyncpipe.jobfile.problems import Place
from asyncpipe.jobfile.rows import (
    JSON_LINES,
    Rows,
    TableRows,
    check_columns,
    crossed,
    label_columns,
    line_jobs,
    open_file,
    open_rows,
    table_jobs,
)
from asyncpipe.jobfile.settings import RunSettings, read_top
from asyncpipe.jobfile.source import Block, Listing, Unclear, Unreadable
from asyncpipe.jobfile.template import LONGEST_LABEL, Template
from asyncpipe.jobfile.validate import JobRow, read_row, read_rows, read_template
from asyncpipe.jobs import Job
from asyncpipe.media import LocalFiles

EXAMPLE = """a job file looks like this:
jobs:
  - name: Mug on oak
    model: black-forest-labs/flux-2-pro/text-to-image
    prompt: A white ceramic mug on an oak table"""

EXPANSION = b"1"
"""The version of the rules by which a file becomes jobs; part of every digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """A job file; ``rows`` holds at least one job, in the file's order.

    The rows of a table or of JSON Lines, and those of templates, are read anew whenever they are
    iterated. ``made_of`` says in words what templates are filled from, ``unused`` which columns
    no template names, ``kept`` which columns of a table of jobs are labels.
    """

    path: Path
    settings: RunSettings
    rows: Sequence[JobRow]
    made_of: str | None = None
    columns: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    digests: tuple[str, ...] = field(default=(), repr=False)

    @property
    def jobs(self) -> Sequence[Job]:
        """The jobs alone, as ``Pipeline.batch_generate`` takes them."""
        if isinstance(self.rows, LazyRows):
            return LazyJobs(self.rows)
        return [row.job for row in self.rows]

    def digest(self, *settings: object) -> str:
        """A hash of the file, its rows and ``settings``: the same ones make the same jobs."""
        parts = [*self.digests, *(repr(setting) for setting in settings)]
        return hashlib.sha256(b"\0".join([EXPANSION, *(p.encode() for p in parts)])).hexdigest()


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
    path = Path(path)
    place = Place(found=[], file=str(path), files=LocalFiles(path.parent))
    try:
        file = _open(path, place)
    except Unreadable as exc:
        place.report(str(exc), line=exc.line)
        raise JobFileError(place.found) from exc
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


def iter_jobs(jobs: Iterable[Mapping[str, Any] | Job]) -> Iterator[Job]:
    """Like ``parse_jobs``, one by one: raises at the end, and yields none after a problem.

    Jobs that come twice are not found.
    """
    place = Place(found=[])
    for n, value in enumerate(jobs, start=1):
        found = [value] if isinstance(value, Job) else read_row(value, None, n, NO_DEFAULTS, place)
        if not place.found:
            yield from found
    if place.found:
        raise JobFileError(place.found)


def _line(problem: Problem) -> int:
    return problem.line or 0


def _open(path: Path, place: Place) -> JobFile:
    ending = path.suffix.lower()
    if ending in ENDINGS[:2]:
        return _table(path, place)
    if ending in JSON_LINES:
        return _lines(path, place)
    source, sha256 = read_source(path)
    file = _job_file(path, source, place)
    return replace(file, digests=(sha256, *file.digests))


def _table(path: Path, place: Place) -> JobFile:
    with file_of(path):
        rows = open_file(path, place)
    if not isinstance(rows, TableRows):
        return JobFile(path=path, settings=RunSettings(), rows=())
    check_columns(rows.columns, replace(place, line=1 + rows.header.skipped))
    return JobFile(
        path=path,
        settings=RunSettings(),
        rows=_lazy(partial(table_jobs, rows), place, rows.file),
        made_of=rows.told,
        kept=tuple(label_columns(rows.columns)),
        digests=(rows.file.sha256,),
    )


def _lines(path: Path, place: Place) -> JobFile:
    with file_of(path):
        file = examine(path, only_utf8=True)
    rows = _lazy(partial(line_jobs, path), place, file)
    return JobFile(path=path, settings=RunSettings(), rows=rows, digests=(file.sha256,))


def _lazy(read: Any, place: Place, source: TextFile) -> Sequence[JobRow]:
    empty = f"the file is empty; {EXAMPLE}"
    return LazyRows(read, str(place.file), empty=empty, files=place.files, source=source)


def _job_file(path: Path, source: Any, place: Place) -> JobFile:
    if isinstance(source, Block) and ("rows" in source or "matrix" in source):
        return _templated(path, source, place)
    settings, defaults = RunSettings(), Defaults()
    if isinstance(source, Block):
        settings, defaults = read_top(source, place, None)
    rows = _rows(source, place)
    if rows is None:
        return JobFile(path=path, settings=settings, rows=())
    return JobFile(path=path, settings=settings, rows=read_rows(rows, defaults, place))


def _templated(path: Path, source: Block, place: Place) -> JobFile:
    rows = _sources(path, source, place)
    columns = Columns({name: n for n, name in enumerate(rows.columns)} if rows else {})
    if rows is None:  # the top level's other problems are still worth knowing
        without = Block(((k, v) for k, v in source.items() if k != "defaults"), source.lines)
        settings, _ = read_top(without, place, None)
        return JobFile(path=path, settings=settings, rows=())
    settings, defaults = read_top(source, place, columns)
    templates = _templates(source, defaults, columns, place)
    inside = str(rows.file.path) if rows.file else None
    read = partial(_filled, rows=rows, templates=templates, file=inside)
    return JobFile(
        path=path,
        settings=settings,
        rows=LazyRows(
            read,
            str(path),
            empty=f"{rows.told}: there is no row in it",
            files=place.files,
            source=rows.file,
        ),
        made_of=rows.told,
        columns=rows.columns,
        unused=tuple(name for name in rows.columns if name not in columns.used),
        digests=(rows.file.sha256,) if rows.file else (),
    )


def _sources(path: Path, source: Block, place: Place) -> Rows | None:
    rows: Rows | None = None
    if "rows" in source:
        here = replace(place, line=source.lines.get("rows"))
        rows = open_rows(source["rows"], here, path.parent)
        if rows is None:
            return None
    if "matrix" in source:
        rows = crossed(rows, source["matrix"], replace(place, line=source.lines.get("matrix")))
    return rows


def _templates(source: Block, defaults: Defaults, columns: Columns, place: Place) -> list[Template]:
    found = []
    for n, (value, line) in enumerate(_rows(source, place) or (), start=1):
        here = replace(place, line=line, job=f"job {n}", columns=columns)
        if (template := read_template(value, defaults, here)) is not None:
            found.append(template)
    return found


def _filled(
    place: Place, *, rows: Rows, templates: Sequence[Template], file: str | None
) -> Iterator[JobRow]:
    """The jobs of all templates, row by row."""
    if file is not None:
        place = replace(place, file=file)
    here, name = replace(place), rows.columns[0]
    for line, cells in rows.read(place):
        here.line, here.job = line, f"{name} {cells[0]}"[:LONGEST_LABEL]
        for template in templates:
            for job in template.jobs(cells, here):
                yield JobRow(job=job, line=line, file=file)


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


FORMATS: dict[str, Callable[[str], Any]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
}
"""Formats that are read whole; tables and JSON Lines are streamed."""

JOB_FILE_ENDINGS = (*FORMATS, ".jsonl", ".ndjson", ".csv", ".tsv")
"""Endings of job files."""


def read_source(path: Path) -> tuple[Any, str]:
    """Return what the job file at ``path`` holds, None for an empty one, and its sha256.

    Raises UsageError for a path that cannot be read, Unreadable for contents that cannot.
    """
    read = FORMATS.get(path.suffix.lower())
    content = _content(path)
    if read is None:
        known = ", ".join(JOB_FILE_ENDINGS)
        raise UsageError(f"{path}: the ending tells a job file's format; give it one of {known}")
    return read(_text(content)), hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    with file_of(path) as file:
        return file.read()


@contextmanager
def file_of(path: Path) -> Iterator[BinaryIO]:
    """Open a job file; raises UsageError for a path that cannot be read."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a job file: name the file in it")
    check_ordinary(path)
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as exc:
        raise UsageError(
            f"there is no job file {path}: check the path, or write one with `asyncpipe init`"
        ) from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise UsageError(f"the job file {path} cannot be read: {reason}") from exc


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Unreadable(f"not UTF-8: {_encoding_hint(content)}save it as UTF-8", line) from exc


def _encoding_hint(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "this is UTF-16; "
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return "it may be GB18030 (GBK), as Chinese editors on Windows write; "
