"""Where the rows of job templates come from: tables, JSON Lines, lists, and their matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from asyncpipe._text import brief, shown
from asyncpipe.errors import UsageError
from asyncpipe.jobfile.encoding import NAMES, TextFile, examine
from asyncpipe.jobfile.from_csv import ENDINGS, Header, read_cells, read_header
from asyncpipe.jobfile.from_json import iter_jsonl
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Block, Listing, Unclear, Unreadable, Wrong

JSON_LINES = (".jsonl", ".ndjson")

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers", ".et")
"""Files of spreadsheet programs, which save CSV as well."""

MOST_COMBINATIONS = 10_000_000
"""Of a matrix's values: more are a slip, and would be checked for hours before anybody hears."""

Row = tuple[int | None, Sequence[Any]]
"""The line a row begins on, and its cells in the order of the columns."""


class Rows(Protocol):
    """Rows with named columns; iterating reads them anew each time."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in order."""

    @property
    def file(self) -> TextFile | None:
        """The file they are in, or None where that is the job file."""

    @property
    def told(self) -> str:
        """What they are, in words."""

    def read(self, problems: Problems) -> Iterator[Row]:
        """Yield the rows; those that are none are reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRows:
    """Rows of a CSV or TSV file."""

    file: TextFile
    header: Header

    @property
    def columns(self) -> tuple[str, ...]:
        """The names in its first line."""
        return self.header.columns

    @property
    def told(self) -> str:
        """Its name, encoding and delimiter."""
        return f"{self.file.path.name} ({NAMES[self.file.encoding]}, {self.header.between})"

    def read(self, problems: Problems) -> Iterator[Row]:
        """Yield rows; ragged ones are reported."""
        problems = replace(problems, file=str(self.file.path))
        try:
            for line, cells in read_cells(self.file, self.header):
                if isinstance(cells, Unreadable):
                    problems.report(str(cells), line=line)
                else:
                    yield line, cells
        except Unreadable as exc:
            problems.report(str(exc), line=exc.line)


@dataclass(frozen=True, kw_only=True, slots=True)
class LineRows:
    """Rows of a JSON Lines file: a mapping a line; the first one's keys are the columns."""

    file: TextFile
    columns: tuple[str, ...]

    @property
    def told(self) -> str:
        """Its name."""
        return f"{self.file.path.name} (JSON Lines)"

    def read(self, problems: Problems) -> Iterator[Row]:
        """Yield rows; lines that are no mappings, or have other keys, are reported."""
        problems = replace(problems, file=str(self.file.path))
        yield from _mappings(iter_jsonl(self.file.path), self.columns, problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListRows:
    """Rows written in the job file itself."""

    values: Sequence[tuple[Any, int | None]]
    columns: tuple[str, ...]
    file: TextFile | None = None

    @property
    def told(self) -> str:
        """How many they are."""
        return f"{len(self.values)} rows of its own"

    def read(self, problems: Problems) -> Iterator[Row]:
        """Yield rows; what is no mapping, or has other keys, is reported."""
        yield from _mappings(self.values, self.columns, problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossed:
    """Every row with every combination of a matrix's values; without rows, these alone."""

    rows: Rows | None
    matrix: Mapping[str, Sequence[Any]]
    line: int | None = None
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = self.rows.columns if self.rows else ()
        object.__setattr__(self, "columns", (*own, *self.matrix))

    @property
    def file(self) -> TextFile | None:
        """The file of its rows."""
        return self.rows.file if self.rows else None

    @property
    def told(self) -> str:
        """Its parts in words."""
        parts = [f"{len(values)} {brief(name)}" for name, values in self.matrix.items()]
        return " x ".join([*([self.rows.told] if self.rows else []), *parts])

    def read(self, problems: Problems) -> Iterator[Row]:
        """Yield rows, the last key's values changing first."""
        rows: Iterator[Row] = self.rows.read(problems) if self.rows else iter([(self.line, ())])
        for line, cells in rows:
            for values in itertools.product(*self.matrix.values()):
                yield line, (*cells, *values)


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
            yield line, [value[column] for column in columns]


def open_rows(value: Any, problems: Problems, folder: Path) -> Rows | None:
    """Find the rows that ``rows:`` names or holds; None, and a report, where there are none."""
    if isinstance(value, Listing):
        return _listed(value, problems)
    if isinstance(value, Unclear) or not isinstance(value, str) or not value.strip():
        known = ", ".join((*ENDINGS, *JSON_LINES))
        why = value.why if isinstance(value, Unclear) else f"{shown(value)} is neither"
        problems.report(f"rows: {why}; name a file ({known}), or write a list of mappings")
        return None
    return open_file(folder / value, problems, what="rows: ")


def open_file(path: Path, problems: Problems, *, what: str = "") -> Rows | None:
    """Open a file of rows by its ending; None, and a report, where it is none."""
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
        file = examine(path, only_utf8=ending in JSON_LINES)
        if ending in JSON_LINES:
            return _lines(file, inside)
        return TableRows(file=file, header=read_header(file))
    except UsageError as exc:
        problems.report(f"{what}{exc}")
    except Unreadable as exc:
        inside.report(str(exc), line=exc.line)
    return None


def _lines(file: TextFile, problems: Problems) -> LineRows | None:
    first = next(iter_jsonl(file.path), None)
    columns = _keys(first[0]) if first else ()
    if not columns:
        problems.report("the first line holds no row: a row is a mapping of column: value")
        return None
    return LineRows(file=file, columns=columns)


def _listed(value: Listing, problems: Problems) -> ListRows | None:
    if not value or not _keys(value[0]):
        problems.report("rows: begins with no row: a row is a mapping of column: value")
        return None
    lines: Sequence[int | None] = value.lines or [None] * len(value)
    return ListRows(values=list(zip(value, lines, strict=True)), columns=_keys(value[0]))


def _keys(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, Mapping) else ()


def crossed(rows: Rows | None, value: Any, problems: Problems) -> Rows | None:
    """Cross rows with ``matrix:``; None, and a report, where that is none."""
    if not isinstance(value, Block) or not value:
        why = value.why if isinstance(value, Unclear) else f"is {shown(value)}"
        problems.report(f"matrix: {why}; write lines of name: [value, value] below it")
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
    return Crossed(rows=rows, matrix=dict(value), line=problems.line)


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
