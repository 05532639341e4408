"""Lines with tabs between cells: quoted as Excel does, or with quotes that are only text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_QUOTED = re.compile(r' *"((?:[^"]|"")*)" *(?=\t|\Z)')

_CLOSES = re.compile(r'((?:[^"\t]|"")*)" *(?=\t|\Z)')

_GOES_ON = re.compile(r'(?:[^"\t]|"")*')

_MOST_LINES = 1000
"""Of one cell; a quote that stays open longer is an inch sign."""


class Tabbed:
    """The records of some lines, each with the number of lines that it takes.

    Quotes around a cell, those inside written twice, are taken off; any other quote is text. A
    quoted cell takes in the next line only where it closes before any tab: it swallows no row.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._ahead: list[str] = []
        self._end = ""  # of the line that is read

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        wide: int | None = None  # the header's cells
        while (whole := self._next()) is not None:
            line = whole.rstrip("\r\n")
            self._end = whole[len(line) :]
            used, cells = (1, line.split("\t")) if '"' not in line else self._quoted(line, wide)
            wide = wide or len(cells)
            yield used, [] if cells == [""] else cells

    def _next(self) -> str | None:
        if self._ahead:
            return self._ahead.pop(0)
        return next(self._lines, None)

    def _quoted(self, line: str, wide: int | None) -> tuple[int, list[str]]:
        cells: list[str] = []
        at, used, plain = 0, 1, line.count("\t") + 1 == wide
        while at <= len(line):
            end = line.find("\t", at)
            end = len(line) if end < 0 else end
            found = _QUOTED.match(line, at)
            if found and not (plain and found.end() > end):
                cells.append(found[1].replace('""', '"'))
                end = found.end()
            elif wide != 1 and line[at:end].lstrip(" ").startswith('"') and end == len(line):
                more, rest = self._rest_of(line[at:].lstrip(" ")[1:])
                used += more
                if more:
                    line = line[:at] + rest
                    continue
                cells.append(line[at:end])
            else:
                cells.append(line[at:end])
            at = end + 1
        return used, cells

    def _rest_of(self, opened: str) -> tuple[int, str]:
        """How many more lines an opened cell takes, and all of it; 0 where it is none."""
        if not _GOES_ON.fullmatch(opened):
            return 0, ""
        whole, taken = opened + self._end, list[str]()
        while len(taken) < _MOST_LINES and (line := self._next()) is not None:
            taken.append(line)
            text = line.rstrip("\r\n")
            if _CLOSES.match(text):
                return len(taken), f'"{whole}{text}'
            if not _GOES_ON.fullmatch(text):
                break
            whole += line
        self._ahead = [*taken, *self._ahead]
        return 0, ""
