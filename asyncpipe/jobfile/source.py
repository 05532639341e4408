"""What a job file holds, before anybody asks what it means: plain values that know their lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEEPEST = 64
"""How deep values may nest; deeper ones are an accident or an attack."""

LONGEST_LINE = 1 << 24
"""Characters, or bytes, of a line of a table or of JSON Lines; a longer one is no row."""

TOO_LONG = f"a line of more than {LONGEST_LINE} characters: is it the file you mean?"


@dataclass(frozen=True, slots=True)
class Spelled:
    """A number or truth value that the file spells in another way than we would: 1.10."""

    value: Any
    text: str

    def __str__(self) -> str:
        return self.text


class Block(dict[str, Any]):
    """A mapping; ``lines`` says on which line each key stands, where the format can tell.

    ``spelled`` has the file's spelling of values that Python would write in another way.
    """

    __slots__ = ("lines", "spelled")

    def __init__(
        self,
        values: Iterable[tuple[str, Any]] = (),
        lines: Mapping[str, int] | None = None,
        spelled: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(values)
        self.lines: Mapping[str, int] = lines or {}
        self.spelled: Mapping[str, str] = spelled or {}


class Listing(list[Any]):
    """A list; ``lines`` holds the line of each element, or nothing where none is known.

    ``spelled`` has the file's spelling of elements that Python would write in another way.
    """

    __slots__ = ("lines", "spelled")

    def __init__(
        self,
        values: Iterable[Any] = (),
        lines: Iterable[int] = (),
        spelled: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(values)
        self.lines = list(lines)
        self.spelled: Mapping[int, str] = spelled or {}


def spelling(value: Any, text: str) -> str | None:
    """``text`` where it is not how a number or truth value is written in prompts; else None."""
    if isinstance(value, bool):
        return None if text == str(value).lower() else text
    return text if isinstance(value, int | float) and text != repr(value) else None


@dataclass(frozen=True, slots=True)
class Unclear:
    """Stands in for a value that the file does not clearly say; ``why`` includes the remedy.

    Reported where it is used, with the field's name; where nobody uses it, it does no harm.
    """

    why: str


class Unreadable(Exception):
    """The file cannot be read past ``line`` (None: at all); the message includes the remedy."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class Wrong(Exception):
    """A value does not fit its place; the message includes the remedy."""


def line_at(value: Any, way: Iterable[int | str], otherwise: int | None) -> int | None:
    """The line of what is found on ``way`` into ``value``, as near as anybody knows."""
    line = otherwise
    for step in way:
        if isinstance(value, Block):
            line, value = value.lines.get(str(step), line), value.get(str(step))
        elif isinstance(value, Listing) and isinstance(step, int):
            line, value = value.lines[step] if value.lines else line, value[step]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            break
    return line


def spelling_at(value: Any, way: Sequence[int | str]) -> str | None:
    """The file's own spelling of the number that is found on ``way`` into ``value``."""
    held: Any = value
    for step in way[:-1]:
        held = held[step] if hasattr(held, "spelled") else None
    known: Mapping[Any, str] = getattr(held, "spelled", {})
    return known.get(way[-1]) if way else None
