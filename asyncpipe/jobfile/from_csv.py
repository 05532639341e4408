"""Tables as spreadsheets write them: CSV, TSV and Excel's Unicode text; streamed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from asyncpipe._text import brief, shown
from asyncpipe.jobfile.encoding import NAMES, TextFile
from asyncpipe.jobfile.residue import unwrapped
from asyncpipe.jobfile.source import LONGEST_LINE, TOO_LONG, Unreadable
from asyncpipe.jobfile.tabs import Tabbed

ENDINGS = (".csv", ".tsv", ".tab", ".txt")
"""Endings of tables of rows; a table of jobs ends as the first two do."""

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

_HEAD = 1 << 16

MOST_COLUMNS = 16_384
"""As many as spreadsheets have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The first line of a table: its columns, and what stands between cells."""

    columns: tuple[str, ...]
    delimiter: str
    skipped: int = 0  # lines before it: Excel's sep=;

    @property
    def between(self) -> str:
        """The delimiter in words."""
        return _DELIMITERS.get(self.delimiter, repr(self.delimiter))


def read_header(file: TextFile) -> Header:
    """Read a table's first line; the delimiter is the one that stands most often in it.

    Raises Unreadable for a header that is empty, lacks a name or has one twice.
    """
    with _open(file) as text:
        head = text.read(_HEAD)
    skipped, delimiter = _delimiter(head, tabs=file.path.suffix.lower() in (".tsv", ".tab"))
    with _open(file) as text:
        line, cells = next(_records(text, delimiter, skipped), (None, []))
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise Unreadable("the table is empty: its first line names the columns", line or 1)
    _check_names(names, line or 1)
    return Header(columns=tuple(names), delimiter=delimiter, skipped=skipped)


def _delimiter(head: str, *, tabs: bool) -> tuple[int, str]:
    """How many lines to leave out, and the delimiter of the first of the others."""
    first = head.split("\n", 1)[0].strip("\r\ufeff")
    if first[:4].lower() == "sep=" and len(first) == 5:
        return 1, first[4]
    counts = dict.fromkeys(_DELIMITERS, 0)
    quoted = False
    for char in head.lstrip("\r\n"):
        if char == '"':
            quoted = not quoted
        elif not quoted and char in "\r\n":
            break  # the header alone decides: text in cells has signs of its own
        elif not quoted and char in counts:
            counts[char] += 1
    order = ("\t", ",", ";") if tabs else (",", ";", "\t")
    return 0, max(order, key=lambda sign: counts[sign])


def _check_names(names: Sequence[str], line: int) -> None:
    if len(names) > MOST_COLUMNS:
        why = f"the first line names {len(names)} columns, at most {MOST_COLUMNS} are read"
        raise Unreadable(f"{why}: is it the table you mean?", line)
    seen: dict[str, int] = {}
    for n, name in enumerate(names, start=1):
        if not name:
            raise Unreadable(f"column {n} has no name: give it one, or delete the column", line)
        if name in seen:
            why = f"the columns {seen[name]} and {n} are both called {shown(name)}: rename one"
            raise Unreadable(why, line)
        if "{" in name or "}" in name:
            raise Unreadable(f"column {n}, {shown(name)}: a name has no braces: rename it", line)
        seen[name] = n


def read_cells(
    file: TextFile, header: Header, notes: list[str]
) -> Iterator[tuple[int, list[str] | Unreadable]]:
    """Yield each row's line and its cells, blanks around them taken off; empty rows are left out.

    Blank cells that lack at a row's end are filled in, those beyond the header are dropped; a row
    with content there comes as Unreadable. What was read as something else than stands there is
    added to ``notes``. Raises Unreadable for text that no table is.
    """
    count, noted = len(header.columns), False
    with _open(file) as text:
        records = _records(text, header.delimiter, header.skipped)
        next(records, None)
        for line, raw in records:
            cells = [cell.strip() for cell in raw]
            if not any(cells):
                continue
            if len(cells) != count:
                if any(cells[count:]):
                    yield line, _ragged(cells, count, header)
                    continue
                cells = [*cells[:count], *[""] * (count - len(cells))]
            joined = "\t".join(cells)
            if '="' in joined or "'" in joined:
                before, cells = cells, [unwrapped(cell) for cell in cells]
                if cells != before and not noted:
                    noted = True
                    notes.append(_unwrapped(before, cells, line))
            yield line, cells


def _unwrapped(before: Sequence[str], cells: Sequence[str], line: int) -> str:
    was, now = next((was, now) for was, now in zip(before, cells, strict=True) if was != now)
    return f"cells like {brief(was)} are read as {brief(now)} (first on line {line})"


def _ragged(cells: Sequence[str], count: int, header: Header) -> Unreadable:
    beyond = next(cell for cell in cells[count:] if cell)
    return Unreadable(
        f"the row has {len(cells)} cells, the header {count}, and {shown(beyond)} is beyond it: "
        f"correct it (cells are separated by {header.between}; one with such a sign in it needs "
        "quotes)"
    )


@contextmanager
def _open(file: TextFile) -> Iterator[TextIO]:
    try:
        with file.path.open(encoding=file.encoding, newline="") as text:
            yield text
    except UnicodeDecodeError as exc:
        raise Unreadable(
            f"not valid {NAMES.get(file.encoding, file.encoding)}: save it as UTF-8"
        ) from exc
    except OSError as exc:
        raise Unreadable(f"cannot be read any more: {exc.strerror or exc}") from exc


def _records(text: TextIO, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield records with the line each begins on; blank lines are none."""
    for _ in range(skipped):
        text.readline(LONGEST_LINE)
    line = 1 + skipped
    try:
        if delimiter == "\t":
            for used, cells in Tabbed(_lines(text)):
                if cells:
                    yield line, cells
                line += used
            return
        reader = csv.reader(_lines(text), delimiter=delimiter, strict=True, skipinitialspace=True)
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1 + skipped
    except csv.Error as exc:
        raise Unreadable(_csv_trouble(str(exc)), line) from exc


def _lines(text: TextIO) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(TOO_LONG)
        yield line


def _csv_trouble(said: str) -> str:
    if "field larger" in said:
        return (
            f"a cell of more than {csv.field_size_limit()} characters begins in this row: "
            "is a closing quote missing?"
        )
    if "end of data" in said:
        return "a cell that begins in this row has no closing quote: add it"
    if "expected after" in said:
        return 'a quote inside a quoted cell is written twice, "": correct it'
    return TOO_LONG if said == TOO_LONG else f"not a table ({said})"
