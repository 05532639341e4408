"""What each format of a job file comes to: rows, the templates that they fill, and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from asyncpipe._text import shown
from asyncpipe.errors import UsageError
from asyncpipe.jobfile.encoding import check_ordinary, examine, known_encoding
from asyncpipe.jobfile.file import JobFile
from asyncpipe.jobfile.from_csv import ENDINGS
from asyncpipe.jobfile.from_json import iter_jsonl, read_json
from asyncpipe.jobfile.from_yaml import read_yaml
from asyncpipe.jobfile.lazy import JobRow, LazyRows, note_row
from asyncpipe.jobfile.placeholders import Columns
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.rows import JSON_LINES, Rows, crossed, open_file, open_rows
from asyncpipe.jobfile.settings import RunSettings, read_settings
from asyncpipe.jobfile.source import Block, Listing, Unclear, Unreadable
from asyncpipe.jobfile.table import check_columns, label_columns, table_template
from asyncpipe.jobfile.template import (
    NO_DEFAULTS,
    Defaults,
    Template,
    jobs_of,
    label_of,
    read_defaults,
    read_template,
)
from asyncpipe.media import LocalFiles

EXAMPLE = """a job file looks like this:
jobs:
  - name: Mug on oak
    model: black-forest-labs/flux-2-pro/text-to-image
    prompt: A white ceramic mug on an oak table"""

_EMPTY = f"the file is empty; {EXAMPLE}"


def opened(path: Path, problems: Problems) -> JobFile:
    """Open a job file by its ending; what is wrong above its rows is reported.

    Raises UsageError for a path that cannot be read, Unreadable for contents that cannot.
    """
    ending, files = path.suffix.lower(), LocalFiles(path.parent)
    if ending in ENDINGS[:2]:
        return _table(path, problems, files)
    if ending in JSON_LINES:
        return _lines(path, files)
    source, sha256 = read_source(path)
    if isinstance(source, Block) and ("rows" in source or "matrix" in source):
        file = _templated(path, source, problems, files)
    else:
        file = _listed(path, source, problems, files)
    return replace(file, digests=(sha256, *file.digests))


def _table(path: Path, problems: Problems, files: LocalFiles) -> JobFile:
    """A table of jobs: one template of all its columns."""
    with file_of(path):
        rows = open_file(path, problems)
    if rows is None or rows.file is None:
        return JobFile(path=path, settings=RunSettings(), rows=())
    check_columns(rows.columns, replace(problems, line=rows.line))
    name = rows.columns.index("name") if "name" in rows.columns else None
    read = partial(
        _filled,
        rows=rows,
        templates=[table_template(rows.columns, files)],
        label=lambda n, cells: label_of(None if name is None else cells[name], n),
    )
    return JobFile(
        path=path,
        settings=RunSettings(),
        rows=LazyRows(read, str(path), empty=_EMPTY, source=rows.file),
        made_of=rows.told,
        kept=tuple(label_columns(rows.columns)),
        notes=rows.notes,
        digests=(rows.file.sha256,),
    )


def _lines(path: Path, files: LocalFiles) -> JobFile:
    """JSON Lines of jobs: a template a line."""
    with file_of(path):
        file = examine(path, only_utf8=True)

    def read(problems: Problems) -> Iterator[JobRow]:
        here = replace(problems)
        for n, (value, here.line) in enumerate(iter_jsonl(path), start=1):
            for job in jobs_of(value, n, here, files=files):
                yield JobRow(job=job, line=here.line)

    rows = LazyRows(read, str(path), empty=_EMPTY, source=file)
    return JobFile(path=path, settings=RunSettings(), rows=rows, digests=(file.sha256,))


def _listed(path: Path, source: Any, problems: Problems, files: LocalFiles) -> JobFile:
    """A list of jobs: a template each, and no rows."""
    settings, defaults = RunSettings(), NO_DEFAULTS
    if isinstance(source, Block):
        settings, defaults = _top(source, problems, None)
    rows = read_entries(_entries(source, problems), problems, defaults=defaults, files=files)
    return JobFile(path=path, settings=settings, rows=rows)


def read_entries(
    entries: Iterable[tuple[Any, int | None]],
    problems: Problems,
    *,
    defaults: Defaults = NO_DEFAULTS,
    files: LocalFiles | None = None,
) -> list[JobRow]:
    """The jobs of (value, line) pairs; equal ones are reported."""
    found: list[JobRow] = []
    first: dict[str, tuple[int, int | None]] = {}
    here = replace(problems)
    for n, (value, here.line) in enumerate(entries, start=1):
        jobs = list(jobs_of(value, n, here, defaults=defaults, files=files))
        note_row(jobs, n, first, here)
        found += [JobRow(job=job, line=here.line) for job in jobs]
    return found


def _top(
    source: Block, problems: Problems, columns: Columns | None
) -> tuple[RunSettings, Defaults]:
    settings = read_settings(source, problems)
    defaults = source.get("defaults")
    if not isinstance(defaults, Block):  # what else stands there was told with the settings
        return settings, NO_DEFAULTS
    return settings, read_defaults(defaults, problems.below(source, "defaults"), columns)


def _templated(path: Path, source: Block, problems: Problems, files: LocalFiles) -> JobFile:
    """Job templates, filled from ``rows:``, or ``matrix:``, or both."""
    rows = _sources(path, source, problems)
    if rows is None:  # the other problems are still worth knowing, braces mean nothing now
        return JobFile(path=path, settings=read_settings(source, problems), rows=())
    columns = Columns(rows.columns)
    settings, defaults = _top(source, problems, columns)
    templates, here = [], replace(problems)
    for n, (value, here.line) in enumerate(_entries(source, problems), start=1):
        here.job = f"job {n}"
        template = read_template(value, defaults, here, columns=columns, files=files)
        templates += [template] if template else []
    read = partial(
        _filled,
        rows=rows,
        templates=templates,
        label=lambda n, cells: label_of(f"{columns.names[0]} {cells[0]}", n),
    )
    return JobFile(
        path=path,
        settings=settings,
        rows=LazyRows(
            read, str(path), empty=f"{rows.told}: there is no row in it", source=rows.file
        ),
        made_of=rows.told,
        columns=rows.columns,
        unused=tuple(name for name in rows.columns if name not in columns.used),
        notes=rows.notes,
        digests=(rows.file.sha256,) if rows.file else (),
    )


def _sources(path: Path, source: Block, problems: Problems) -> Rows | None:
    rows: Rows | None = None
    if "rows" in source:
        here = replace(problems, line=source.lines.get("rows"))
        rows = open_rows(source["rows"], here, path.parent, _encoding(source, problems))
        if rows is None:
            return None
    if "matrix" in source:
        rows = crossed(rows, source["matrix"], replace(problems, line=source.lines.get("matrix")))
    return rows


def _encoding(source: Block, problems: Problems) -> str | None:
    """What ``encoding:`` says of the table of rows."""
    if not isinstance(said := source.get("encoding"), str):  # told with the settings, if it is one
        return None
    if (encoding := known_encoding(said)) is None:
        why = f"encoding: {shown(said)} is none: write gbk, shift_jis, cp949, cp1251 or the like"
        problems.report(why, line=source.lines.get("encoding"))
    return encoding


def _filled(
    problems: Problems,
    *,
    rows: Rows,
    templates: Sequence[Template],
    label: Callable[[int, Sequence[Any]], str],
) -> Iterator[JobRow]:
    """The jobs of all templates, row by row."""
    file = str(rows.file.path) if rows.file else problems.file
    here = replace(problems, file=file)
    file = None if file == problems.file else file
    for n, (line, cells) in enumerate(rows.read(problems), start=1):
        here.line, here.job = line, label(n, cells)
        for template in templates:
            for job in template.jobs(cells, here):
                yield JobRow(job=job, line=line, file=file)


def _entries(source: Any, problems: Problems) -> Iterable[tuple[Any, int | None]]:
    """The entries of ``jobs:`` with their lines; none, and a report, where there are none."""
    jobs, line = source, None
    if isinstance(source, Block):
        jobs, line = source.get("jobs"), source.lines.get("jobs")
    if isinstance(jobs, Listing) and jobs:
        return zip(jobs, jobs.lines, strict=True)
    if isinstance(source, Unclear):
        problems.report(source.why)
    elif source is None or (isinstance(source, Listing) and not source):
        problems.report(_EMPTY)
    elif isinstance(source, Block) and "jobs" not in source:
        problems.report(f"there is no jobs: in it; {EXAMPLE}")
    elif jobs is None or isinstance(jobs, Listing):
        problems.report(f"jobs: the list is empty; {EXAMPLE}", line=line)
    elif not isinstance(jobs, Unclear):
        problems.report(
            f"jobs: must be a list, each job beginning with a dash; {EXAMPLE}", line=line
        )
    return ()


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
