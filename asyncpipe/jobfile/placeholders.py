"""``{column}`` in the text of a job template: found once, filled for every row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from asyncpipe._text import brief, meant, shown
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.residue import wrong_with
from asyncpipe.jobfile.source import Spelled, Unclear, Wrong

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
"""What a row says in one place."""

Convert = Callable[[Any], Any]
"""What becomes of the cell of a placeholder that stands alone."""

NOTHING: Any = object()
"""What a row says with an empty cell of a table of jobs."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a template may name, in order; ``used`` are those it does."""

    names: tuple[str, ...]
    used: set[str] = field(default_factory=set)


class Placeholder:
    """A value that each row says anew."""

    __slots__ = ()

    def fill(self, cells: Cells) -> Any:
        """The value for a row; raises Wrong where a cell cannot stand there."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Cell(Placeholder):
    """A cell alone, made what it is by ``convert``; an ``optional`` one may be empty."""

    at: int
    column: str
    convert: Convert
    optional: bool = False

    def fill(self, cells: Cells) -> Any:
        """What the cell is."""
        cell = cells[self.at]
        if cell is None or cell == "":
            if self.optional:
                return NOTHING
            raise _blank(self.column)
        if type(cell) is Spelled:
            return self.convert(cell.value)
        if type(cell) is str and self.convert is not label_text and (why := wrong_with(cell)):
            raise Wrong(f"column {shown(self.column)}: {why}")
        return self.convert(cell)


@dataclass(frozen=True, slots=True)
class _Text(Placeholder):
    """Text with cells in it: ``pattern`` has a %s for each of ``places``, a cell and its column."""

    pattern: str
    places: tuple[tuple[int, str], ...]

    def fill(self, cells: Cells) -> str:
        text = self.pattern % tuple([_as_text(cells[at], column) for at, column in self.places])
        if len(text) > _LONGEST_FILLED:
            raise Wrong(
                f"becomes {len(text)} characters long, at most {_LONGEST_FILLED}: shorten it"
            )
        return text


def has_braces(value: Any) -> bool:
    """Whether there is a brace in any text of ``value``, also a full-width one."""
    if isinstance(value, str):
        return any(brace in value for brace in "{}｛｝")
    if isinstance(value, Mapping):
        return any(map(has_braces, value.values()))
    return isinstance(value, list) and any(map(has_braces, value))


def read_braces(value: Any, columns: Columns, convert: Convert | None) -> Any:
    """``value`` with a Placeholder for each text that names a column, however deep it stands.

    A text that is one placeholder alone is its cell, made what it is by ``convert``; without that
    it is text as all others. Raises Wrong for braces that mean nothing.
    """
    if isinstance(value, str):
        alone = _PART.fullmatch(value.strip()) if convert is not None else None
        if alone is None or alone[1] is None or alone[1].strip().endswith(_AS_TEXT):
            return _text(value, columns)
        assert convert is not None
        return Cell(*_place(alone[1], columns), convert)
    if isinstance(value, Mapping):
        return {key: read_braces(inner, columns, convert) for key, inner in value.items()}
    if isinstance(value, list):
        return [read_braces(inner, columns, convert) for inner in value]
    return value


def varies(value: Any) -> bool:
    """Whether there is a Placeholder in it."""
    if isinstance(value, dict):
        return any(map(varies, value.values()))
    if isinstance(value, list):
        return any(map(varies, value))
    return isinstance(value, Placeholder)


def filler(value: Any) -> Fill:
    """What says ``value`` for a row; raises Wrong for the first cell that cannot stand there."""
    if isinstance(value, Placeholder):
        return value.fill
    if isinstance(value, dict):
        fills = [(key, filler(inner)) for key, inner in value.items()]
        return lambda cells: {
            key: said for key, fill in fills if (said := fill(cells)) is not NOTHING
        }
    if isinstance(value, list):
        each = [filler(inner) for inner in value]
        return lambda cells: [fill(cells) for fill in each]
    return lambda cells: value


def fill_each(
    values: Mapping[str, Any], cells: Cells, problems: Problems, path: str = ""
) -> dict[str, Any]:
    """What a row says by name; what cannot be filled in is reported and left out."""
    said = {}
    for key, value in values.items():
        try:
            said[key] = filler(value)(cells)
        except Wrong as exc:
            if isinstance(value, dict) and not path:
                said[key] = fill_each(value, cells, problems, f"{key}.")
            else:
                problems.report(f"{path}{key}: {exc}")
    return {key: value for key, value in said.items() if value is not NOTHING}


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
        if why := wrong_with(cell):
            raise Wrong(f"column {shown(name)}: {why}")
        return cell
    if cell is None or cell == "":
        raise _blank(name)
    if isinstance(cell, str | bool | int | float):
        return label_text(cell)
    if isinstance(cell, Spelled):
        ours = label_text(cell.value)
        why = f'{cell.text} would become {ours} in text: put it in quotes, "{cell.text}"'
    else:
        why = cell.why if isinstance(cell, Unclear) else f"{shown(cell)} cannot stand in text"
    raise Wrong(f"column {shown(name)}: {why}")


def label_text(cell: Any) -> str:
    """A cell as a label keeps it."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Spelled):
        return cell.text
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
    places = tuple(part for part in parts if isinstance(part, tuple))
    if not places:
        return "".join(map(str, parts))
    return _Text(
        "".join(p.replace("%", "%%") if isinstance(p, str) else "%s" for p in parts), places
    )


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
