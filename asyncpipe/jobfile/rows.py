"""Where the rows of job templates come from: tables, JSON Lines, lists, and their matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from asyncpipe._text import brief, shown
from asyncpipe.errors import UsageError
from asyncpipe.jobfile.encoding import TextFile, examine
from asyncpipe.jobfile.from_csv import ENDINGS, Header, read_cells, read_header
from asyncpipe.jobfile.from_json import iter_jsonl
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Block, Listing, Spelled, Unclear, Unreadable, Wrong

JSON_LINES = (".jsonl", ".ndjson")

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers", ".et")
"""Files of spreadsheet programs, which save CSV as well."""

MOST_COMBINATIONS = 10_000_000
"""Of a matrix's values: more are a slip, and would be checked for hours before anybody hears."""

Row = tuple[int | None, Sequence[Any]]
"""The line a row begins on, and its cells in the order of the columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows with named columns; ``read`` reads them anew each time, and reports those that are none.

    ``told`` says in words what they are; ``file`` is None where they stand in the job file, and
    ``line`` is where their columns are named. ``notes`` are what reading them has to say.
    """

    columns: tuple[str, ...]
    told: str
    read: Callable[[Problems], Iterator[Row]]
    file: TextFile | None = None
    line: int | None = None
    notes: list[str] = field(default_factory=list)


def _table(file: TextFile) -> Rows:
    """The rows of a CSV or TSV file."""
    header, notes = read_header(file), list[str]()
    return Rows(
        columns=header.columns,
        told=f"{file.path.name} ({file.told_encoding}, {header.between})",
        read=partial(_table_rows, file, header, notes),
        file=file,
        line=1 + header.skipped,
        notes=notes,
    )


def _table_rows(
    file: TextFile, header: Header, notes: list[str], problems: Problems
) -> Iterator[Row]:
    problems = replace(problems, file=str(file.path))
    notes.clear()
    try:
        for line, cells in read_cells(file, header, notes):
            if isinstance(cells, Unreadable):
                problems.report(str(cells), line=line)
            else:
                yield line, cells
    except Unreadable as exc:
        problems.report(str(exc), line=exc.line)


def _lines(file: TextFile, problems: Problems) -> Rows | None:
    """The rows of a JSON Lines file: a mapping a line; the first one's keys are the columns."""
    first = next(iter_jsonl(file.path), None)
    columns = _keys(first[0]) if first else ()
    if not columns:
        problems.report("the first line holds no row: a row is a mapping of column: value")
        return None

    def read(problems: Problems) -> Iterator[Row]:
        inside = replace(problems, file=str(file.path))
        return _mappings(iter_jsonl(file.path), columns, inside)

    return Rows(columns=columns, told=f"{file.path.name} (JSON Lines)", read=read, file=file)


def _listed(value: Listing, problems: Problems) -> Rows | None:
    """Rows written in the job file itself."""
    columns = _keys(value[0]) if value else ()
    if not columns:
        problems.report("rows: begins with no row: a row is a mapping of column: value")
        return None
    lines: Sequence[int | None] = value.lines or [None] * len(value)
    told = f"{len(value)} rows of its own"
    pairs = partial(zip, value, lines, strict=True)
    return Rows(columns=columns, told=told, read=lambda p: _mappings(pairs(), columns, p))


def _keys(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, Mapping) else ()


def _mappings(values: Any, columns: tuple[str, ...], problems: Problems) -> Iterator[Row]:
    known = set(columns)
    for value, line in values:
        if not isinstance(value, Mapping):
            why = value.why if isinstance(value, Unclear) else "a row is a mapping of column: value"
            problems.report(why, line=line)
        elif other := next((key for key in value if key not in known), None):
            why = f"{shown(other)} is no column: the first row has {', '.join(columns[:20])}"
            problems.report(f"{why}; give every row the same", line=line)
        elif len(value) < len(columns):
            lacking = next(column for column in columns if column not in value)
            problems.report(f"the row has no {shown(lacking)}: give every row the same", line=line)
        else:
            spelled = value.spelled if isinstance(value, Block) else None
            yield (
                line,
                [
                    Spelled(value[column], spelled[column])
                    if spelled and column in spelled
                    else value[column]
                    for column in columns
                ],
            )


def open_rows(
    value: Any, problems: Problems, folder: Path, encoding: str | None = None
) -> Rows | None:
    """Find the rows that ``rows:`` names or holds; None, and a report, where there are none."""
    if isinstance(value, Listing):
        return _listed(value, problems)
    if isinstance(value, Unclear):  # told with the settings
        return None
    if not isinstance(value, str) or not value.strip():
        known = ", ".join((*ENDINGS, *JSON_LINES))
        why = f"{shown(value)} is neither; name a file ({known}), or write a list of mappings"
        problems.report(f"rows: {why}")
        return None
    return open_file(folder / value, problems, what="rows: ", encoding=encoding)


def open_file(
    path: Path, problems: Problems, *, what: str = "", encoding: str | None = None
) -> Rows | None:
    """Open a file of rows by its ending; None, and a report, where it is none.

    ``encoding`` is what a table is said to be written in.
    """
    ending = path.suffix.lower()
    if ending not in (*ENDINGS, *JSON_LINES):
        known = ", ".join((*ENDINGS, *JSON_LINES))
        remedy = (
            "save it in Excel as CSV UTF-8, and name that file"
            if ending in SPREADSHEETS
            else f"the ending tells its format; give it one of {known}"
        )
        problems.report(f"{what}{path.name}: {remedy}")
        return None
    inside = replace(problems, file=str(path), line=None)
    try:
        file = examine(path, only_utf8=ending in JSON_LINES, encoding=encoding)
        if ending in JSON_LINES:
            return _lines(file, inside)
        return _table(file)
    except UsageError as exc:
        problems.report(f"{what}{exc}")
    except Unreadable as exc:
        inside.report(str(exc), line=exc.line)
    return None


def crossed(rows: Rows | None, value: Any, problems: Problems) -> Rows | None:
    """Cross rows with ``matrix:``; None, and a report, where that is none."""
    if isinstance(value, Unclear):  # told with the settings
        return None
    if not isinstance(value, Block) or not value:
        problems.report(f"matrix: is {shown(value)}; write lines of name: [value, value] below it")
        return None
    before = len(problems.found)
    for name, values in value.items():
        try:
            _check_axis(name, values, rows.columns if rows else ())
        except Wrong as exc:
            problems.report(f"matrix.{name}: {exc}", line=value.lines.get(name))
    if len(problems.found) == before and (count := _combinations(value)) > MOST_COMBINATIONS:
        problems.report(
            f"matrix: makes {count} combinations, at most {MOST_COMBINATIONS} are made: "
            "write fewer values, or the rows that you mean"
        )
    if len(problems.found) > before:
        return None
    combinations = partial(itertools.product, *map(_axis, value.values()))
    parts = [f"{len(values)} {brief(name)}" for name, values in value.items()]
    return Rows(
        columns=(*(rows.columns if rows else ()), *value),
        told=" x ".join([*([rows.told] if rows else []), *parts]),
        read=partial(_crossed_rows, rows, combinations, problems.line),
        file=rows.file if rows else None,
        notes=rows.notes if rows else [],
    )


def _axis(values: Listing) -> list[Any]:
    spelled = values.spelled
    return [Spelled(each, spelled[n]) if n in spelled else each for n, each in enumerate(values)]


def _crossed_rows(
    rows: Rows | None,
    combinations: Callable[[], Iterable[tuple[Any, ...]]],
    line: int | None,
    problems: Problems,
) -> Iterator[Row]:
    """Every row with every combination of a matrix's values, the last key's changing first."""
    for at, cells in rows.read(problems) if rows else [(line, ())]:
        for values in combinations():
            yield at, (*cells, *values)


def _combinations(matrix: Mapping[str, Sequence[Any]]) -> int:
    return math.prod(len(values) for values in matrix.values())


def _check_axis(name: str, values: Any, columns: Sequence[str]) -> None:
    if isinstance(values, Unclear):
        raise Wrong(values.why)
    if not isinstance(values, Listing) or not values:
        raise Wrong(f"is {shown(values)}: write a list of values, [1, 2, 3]")
    if name in columns:
        raise Wrong("is a column of the rows, too: rename one")
    if "{" in name or "}" in name:
        raise Wrong("a name has no braces: rename it")
    seen: list[Any] = []
    for each in values:
        if isinstance(each, Unclear):
            raise Wrong(each.why)
        if each is None or each == "":
            raise Wrong("one of its values is empty: give it one, or delete it")
        if any(each == other and type(each) is type(other) for other in seen[:1000]):
            raise Wrong(f"{shown(each)} stands in it twice: delete one")
        seen.append(each)
