"""``{column}`` in the text of a job template: found once, filled for every row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from asyncpipe._text import brief, meant, shown
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Unclear, Wrong

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

_WIDE = re.compile("｛[^{}｛｝]*[｝}]|{[^{}｛｝]*｝")
"""What may be a placeholder whose braces a Chinese keyboard wrote."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)

_LONGEST_NUMBER = 15
"""Digits up to which every program reads a number alike; what is longer is an article number."""

_LONGEST_FILLED = 1_000_000
"""Characters of a text with its placeholders filled; a prompt has no more bytes."""

_AS_TEXT = ":text"

_TRUTH = {"true": True, "false": False}

Cells = Sequence[Any]

Fill = Callable[[Cells], Any]

Convert = Callable[[Any], Any]
"""What becomes of the cell of a placeholder that stands alone."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a template may name, in order; ``used`` are those it does."""

    names: tuple[str, ...]
    used: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell alone: it may be a number, or whatever ``convert`` makes of it."""

    at: int
    column: str
    convert: Convert

    def fill(self, cells: Cells) -> Any:
        cell = cells[self.at]
        if cell is None or cell == "":
            raise _blank(self.column)
        return self.convert(cell)


@dataclass(frozen=True, slots=True)
class _Text:
    """Text with cells in it, each of ``parts`` being text or a cell's place and column."""

    parts: tuple[str | tuple[int, str], ...]

    def fill(self, cells: Cells) -> str:
        filled = [p if isinstance(p, str) else _as_text(cells[p[0]], p[1]) for p in self.parts]
        text = "".join(filled)
        if len(text) > _LONGEST_FILLED:
            raise Wrong(
                f"becomes {len(text)} characters long, at most {_LONGEST_FILLED}: shorten it"
            )
        return text


class Placeholder:
    """A value of a job that each row fills anew; ``way`` leads to it: ``("params", "seed")``.

    One that is ``optional`` says nothing where its cell is empty.
    """

    __slots__ = ("_at", "fill", "optional", "way")

    def __init__(self, way: tuple[str, ...], value: Any, *, optional: bool = False) -> None:
        self.way, self.optional = way, optional
        self._at = value.at if optional else -1
        plain = isinstance(value, _Cell | _Text)
        self.fill: Fill = value.fill if plain else partial(_filled, value)

    def is_blank(self, cells: Cells) -> bool:
        """Whether a row leaves it out."""
        return self.optional and cells[self._at] == ""


def value_of(value: Any, cells: Cells) -> Any:
    """A value for a row; None where it is wrong, which is told when all of them are filled."""
    if not isinstance(value, Placeholder):
        return value
    try:
        return None if value.is_blank(cells) else value.fill(cells)
    except Wrong:
        return None


def filled(placeholders: Iterable[Placeholder], cells: Cells, problems: Problems) -> dict[str, Any]:
    """What a row says, by the keys of a job; what cannot be filled in is reported."""
    said: dict[str, Any] = {}
    for each in placeholders:
        if each.optional and each.is_blank(cells):
            continue
        try:
            value = each.fill(cells)
        except Wrong as exc:
            problems.report(f"{'.'.join(each.way)}: {exc}")
            continue
        _put(said, each.way, value)
    return said


def nested(placeholders: Iterable[Placeholder]) -> dict[str, Any]:
    """The placeholders themselves, by the keys of a job."""
    said: dict[str, Any] = {}
    for each in placeholders:
        _put(said, each.way, each)
    return said


def _put(said: dict[str, Any], way: tuple[str, ...], value: Any) -> None:
    if len(way) == 1:
        said[way[0]] = value
    elif way[0] in said:
        said[way[0]][way[1]] = value
    else:
        said[way[0]] = {way[1]: value}


def column(way: tuple[str, ...], at: int, name: str, convert: Convert) -> Placeholder:
    """A column of a table of jobs: its cell as it is, or nothing where that is empty."""
    return Placeholder(way, _Cell(at, name, convert), optional=True)


def has_braces(value: Any) -> bool:
    """Whether there is a brace in any text of ``value``, also a full-width one."""
    if isinstance(value, str):
        return any(brace in value for brace in "{}｛｝")
    if isinstance(value, Mapping):
        return any(map(has_braces, value.values()))
    return isinstance(value, list) and any(map(has_braces, value))


def find(way: tuple[str, ...], value: Any, columns: Columns, convert: Convert | None) -> Any:
    """``value`` with its braces read: a Placeholder, or the value where no column is named.

    A text that is one placeholder alone is its cell, made what it is by ``convert``; without that
    it is text as all others. Raises Wrong for braces that mean nothing.
    """
    read = _read(value, columns, convert)
    return Placeholder(way, read) if _varies(read) else read


def _read(value: Any, columns: Columns, convert: Convert | None) -> Any:
    if isinstance(value, str):
        alone = _PART.fullmatch(value.strip()) if convert is not None else None
        if alone is None or alone[1] is None or alone[1].strip().endswith(_AS_TEXT):
            return _text(value, columns)
        assert convert is not None
        return _Cell(*_place(alone[1], columns), convert)
    if isinstance(value, Mapping):
        return {key: _read(inner, columns, convert) for key, inner in value.items()}
    if isinstance(value, list):
        return [_read(inner, columns, convert) for inner in value]
    return value


def _varies(read: Any) -> bool:
    if isinstance(read, dict):
        return any(map(_varies, read.values()))
    if isinstance(read, list):
        return any(map(_varies, read))
    return isinstance(read, _Cell | _Text)


def _filled(read: Any, cells: Cells) -> Any:
    if isinstance(read, _Cell | _Text):
        return read.fill(cells)
    if isinstance(read, dict):
        return {key: _filled(inner, cells) for key, inner in read.items()}
    if isinstance(read, list):
        return [_filled(inner, cells) for inner in read]
    return read


def as_it_is(cell: Any) -> Any:
    """The cell of a table where its field takes text."""
    return cell


def as_number(cell: Any) -> Any:
    """A number where the cell's text is one, for a field that takes numbers."""
    if isinstance(cell, str) and _NUMBER.fullmatch(cell) and len(cell) <= 30:
        return float(cell) if "." in cell else int(cell)
    return cell


def as_value(cell: Any) -> Any:
    """What a cell's text is where nobody says: a number, true or false, else text."""
    if isinstance(cell, str):
        if len(cell) <= _LONGEST_NUMBER and _NUMBER.fullmatch(cell):
            return float(cell) if "." in cell else int(cell)
        return _TRUTH.get(cell.lower(), cell) if len(cell) <= 5 else cell
    return cell


def _as_text(cell: Any, name: str) -> str:
    """A cell within text; raises Wrong where it is empty, or a list or mapping."""
    if type(cell) is str and cell:
        return cell
    if cell is None or cell == "":
        raise _blank(name)
    if isinstance(cell, str | bool | int | float):
        return label_text(cell)
    why = cell.why if isinstance(cell, Unclear) else f"{shown(cell)} cannot stand in text"
    raise Wrong(f"column {shown(name)}: {why}")


def label_text(cell: Any) -> str:
    """A cell as a label keeps it."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        return repr(cell)
    return "" if cell is None or isinstance(cell, Unclear) else orjson.dumps(cell).decode()


def _blank(name: str) -> Wrong:
    return Wrong(f"the cell of column {shown(name)} is empty: fill it in")


def _text(value: str, columns: Columns) -> str | _Text:
    """Text and columns in turn; raises Wrong for braces that mean nothing."""
    _refuse_wide(value, columns)
    parts: list[str | tuple[int, str]] = []
    at = 0
    for part in _PART.finditer(value):
        parts.append(value[at : part.start()])
        at = part.end()
        if part[0] in ("{{", "}}"):
            parts.append(part[0][0])
        elif part[1] is None:
            raise Wrong(f"a lone {part[0]} in {shown(value)}: write {part[0] * 2} to mean it")
        else:
            parts.append(_place(part[1], columns))
    parts.append(value[at:])
    if any(isinstance(part, tuple) for part in parts):
        return _Text(tuple(part for part in parts if part != ""))
    return "".join(map(str, parts))


def _refuse_wide(value: str, columns: Columns) -> None:
    """Raise Wrong for a column between full-width braces: every row would be bought with that."""
    for part in _WIDE.finditer(value):
        name = part[0][1:-1].strip()
        if name.removesuffix(_AS_TEXT).strip() in columns.names:
            raise Wrong(f"{brief(part[0])} has full-width braces: write {{{brief(name)}}}")


def _place(said: str, columns: Columns) -> tuple[int, str]:
    name = said.strip()
    if name not in columns.names and name.endswith(_AS_TEXT):
        name = name.removesuffix(_AS_TEXT).strip()
    if name not in columns.names:
        known = ", ".join(brief(each) for each in columns.names[:20])
        hint = meant(name, columns.names) or f"; there are {known}"
        braces = "" if hint.endswith("?") else ". To mean the braces write {{ and }}"
        raise Wrong(f"{{{brief(name)}}} is no column{hint}{braces}")
    columns.used.add(name)
    return columns.names.index(name), name
