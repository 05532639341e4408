"""``{column}`` in the text of a job template: found once, filled for every row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from asyncpipe._text import brief, meant, shown
from asyncpipe.jobfile.checks import Check, Wrong, encodable
from asyncpipe.jobfile.source import DEEPEST, Unclear

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


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a template may name, by their place in a row; ``used`` are those it does."""

    index: Mapping[str, int]
    used: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Hole:
    """A value that is made anew for every row; ``fill`` raises Wrong."""

    fill: Fill


def has_braces(value: Any, depth: int = 0) -> bool:
    """Whether there is a brace in any text of ``value``, also a full-width one."""
    if isinstance(value, str):
        return any(brace in value for brace in "{}｛｝")
    if depth > DEEPEST or isinstance(value, Unclear):
        return False
    if isinstance(value, Mapping):
        return any(has_braces(inner, depth + 1) for inner in value.values())
    return isinstance(value, list) and any(has_braces(inner, depth + 1) for inner in value)


def text_hole(value: str, columns: Columns) -> str | Hole:
    """Text with the cells in their places; without any, the text with its braces undoubled."""
    pieces = _pieces(value, columns)
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(map(str, pieces))
    names = _names(columns)
    wanted = [(None, piece) if isinstance(piece, str) else (piece, "") for piece in pieces]

    def fill(cells: Cells) -> str:
        parts = [said if at is None else as_text(cells[at], names, at) for at, said in wanted]
        if (size := sum(map(len, parts))) > _LONGEST_FILLED:
            raise Wrong(f"becomes {size} characters long, at most {_LONGEST_FILLED}: shorten it")
        return "".join(parts)

    return Hole(fill)


def value_hole(value: str, columns: Columns, convert: Callable[[Any], Any]) -> Any:
    """Like ``text_hole``, but a lone placeholder is its cell, ``convert`` made of it what it is."""
    whole = _PART.fullmatch(value.strip())
    if whole is None or whole[1] is None or whole[1].strip().endswith(_AS_TEXT):
        return text_hole(value, columns)
    at, names = _place(whole[1], columns), _names(columns)

    def fill(cells: Cells) -> Any:
        cell = cells[at]
        if cell is None or cell == "":
            raise _blank(names, at)
        return convert(cell)

    return Hole(fill)


def checked_hole(value: str, columns: Columns, check: Check, *, text: bool) -> Any:
    """The value of one field of a job: a hole whose filling is checked, or a checked value."""
    found = text_hole(value, columns) if text else value_hole(value, columns, as_number)
    if not isinstance(found, Hole):
        return check(found)
    fill = found.fill
    return Hole(lambda cells: check(fill(cells)))


def list_hole(values: Sequence[Any], columns: Columns, check: Check) -> Hole:
    """A list of texts with placeholders in them; checked as it is filled."""
    each_of = [text_hole(v, columns) if isinstance(v, str) else v for v in values]
    return Hole(lambda cells: check([filled(each, cells) for each in each_of]))


def open_hole(value: Any, columns: Columns) -> Any:
    """Any value of ``params``: its texts' placeholders filled, however deep they stand."""
    if isinstance(value, str):
        return value_hole(value, columns, as_value)
    if isinstance(value, Mapping):
        inner = {key: open_hole(each, columns) for key, each in value.items()}
        if any(isinstance(each, Hole) for each in inner.values()):
            return Hole(lambda cells: {key: filled(each, cells) for key, each in inner.items()})
        return inner
    if isinstance(value, list):
        each_of = [open_hole(each, columns) for each in value]
        if any(isinstance(each, Hole) for each in each_of):
            return Hole(lambda cells: [filled(each, cells) for each in each_of])
        return each_of
    return value


def filled(value: Any, cells: Cells) -> Any:
    """A hole's value for a row; any other value as it is."""
    return value.fill(cells) if isinstance(value, Hole) else value


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
        return _TRUTH.get(cell.lower(), cell) if len(cell) <= 5 else encodable(cell)
    return cell


def as_text(cell: Any, names: Sequence[str], at: int) -> str:
    """A cell within text; raises Wrong where it is empty, or a list or mapping."""
    if cell is None or cell == "":
        raise _blank(names, at)
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        return repr(cell)
    why = cell.why if isinstance(cell, Unclear) else f"{shown(cell)} cannot stand in text"
    raise Wrong(f"column {shown(names[at])}: {why}")


def label_text(cell: Any) -> str:
    """A cell as a label keeps it."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        return repr(cell)
    return "" if cell is None or isinstance(cell, Unclear) else orjson.dumps(cell).decode()


def _blank(names: Sequence[str], at: int) -> Wrong:
    return Wrong(f"the cell of column {shown(names[at])} is empty: fill it in")


def _names(columns: Columns) -> list[str]:
    return sorted(columns.index, key=lambda name: columns.index[name])


def _pieces(value: str, columns: Columns) -> list[str | int]:
    """Text and places of columns, in turn; raises Wrong for braces that mean nothing."""
    _refuse_wide(value, columns)
    pieces: list[str | int] = []
    at = 0
    for part in _PART.finditer(value):
        pieces.append(value[at : part.start()])
        at = part.end()
        if part[0] in ("{{", "}}"):
            pieces.append(part[0][0])
        elif part[1] is None:
            raise Wrong(f"a lone {part[0]} in {shown(value)}: write {part[0] * 2} to mean it")
        else:
            pieces.append(_place(part[1], columns))
    pieces.append(value[at:])
    return [piece for piece in pieces if piece != ""]


def _refuse_wide(value: str, columns: Columns) -> None:
    """Raise Wrong for a column between full-width braces: every row would be bought with that."""
    for part in _WIDE.finditer(value):
        name = part[0][1:-1].strip()
        if name.removesuffix(_AS_TEXT).strip() in columns.index:
            raise Wrong(f"{brief(part[0])} has full-width braces: write {{{brief(name)}}}")


def _place(said: str, columns: Columns) -> int:
    name = said.strip()
    if name not in columns.index and name.endswith(_AS_TEXT):
        name = name.removesuffix(_AS_TEXT).strip()
    if name not in columns.index:
        known = ", ".join(brief(column) for column in list(columns.index)[:20])
        hint = meant(name, columns.index) or f"; there are {known}"
        braces = "" if hint.endswith("?") else ". To mean the braces write {{ and }}"
        raise Wrong(f"{{{brief(name)}}} is no column{hint}{braces}")
    columns.used.add(name)
    return columns.index[name]
