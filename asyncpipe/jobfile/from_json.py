"""JSON and JSONL job files as values with lines.

The top level and the list of jobs are walked by hand, which is what gives every job its line; what
is inside one job is left to the standard library's decoder.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from asyncpipe.jobfile.source import (
    DEEPEST,
    LONGEST_LINE,
    TOO_LONG,
    Block,
    Listing,
    Spelled,
    Unclear,
    Unreadable,
    spelling,
)

_SPACE = re.compile(r"[ \t\r\n]*")


def read_json(text: str) -> Any:
    """Return the document's value; None for an empty one. Raises Unreadable."""
    if not text.strip(" \t\r\n"):
        return None
    walk = _Walk(text)
    with_errors = _Errors(text, 'for one job a line name the file .jsonl; else one list, "jobs"')
    return with_errors.run(walk.document)


def iter_jsonl(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield each line's value and number, in the memory of one line.

    Blank lines are left out, lines that are not JSON are Unclear; one too long to be a row
    is the last.
    """
    decoder = _decoder()
    with path.open("rb") as file:
        for number, raw in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), start=1):
            if len(raw) == LONGEST_LINE:
                yield Unclear(TOO_LONG), number
                return
            line = raw.removeprefix(BOM_UTF8) if number == 1 else raw
            if line := line.strip(b" \t\r\n"):
                value = _quick(line)
                if value is None:
                    value = _one_line(decoder, line.decode("utf-8", "surrogateescape"))
                yield value, number


_KEY = re.compile(rb'"[ \t]*:')

_LONG_NUMBER = re.compile(rb"[0-9]{18}")

_MINUS_ZERO = re.compile(rb"[\[:, \t]-0")

_SPELLED = re.compile(rb"[0-9]\.[0-9]*[1-9]0|[0-9]\.00|[0-9][eE]")
"""In a number that may be written in another way than we would: 1.10, 1.00, 1e3."""


def _quick(line: bytes) -> Any:
    """What orjson makes of a line; None where it may differ from what the decoder would.

    It keeps the last of two equal keys in silence, so keys are counted in the text: a string may
    hold what looks like one, but none can hide.
    """
    if _LONG_NUMBER.search(line) or (b"-0" in line and _MINUS_ZERO.search(line)):
        return None
    if (b"0" in line or b"e" in line or b"E" in line) and _SPELLED.search(line):
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if _keys(value) == len(_KEY.findall(line)) else None


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_keys(v) for v in value.values() if isinstance(v, dict | list))
    if isinstance(value, list):
        return sum(_keys(each) for each in value if isinstance(each, dict | list))
    return 0


def _one_line(decoder: json.JSONDecoder, line: str) -> Any:
    try:
        return _Errors(line, "one job a line, without commas between").run(
            lambda: _plain(decoder.decode(line))
        )
    except Unreadable as exc:
        return Unclear(str(exc))


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_block,
        parse_constant=_constant,
        parse_float=lambda text: _number(float(text), text),
        parse_int=lambda text: _number(int(text), text),
    )


def _number(value: float, text: str) -> Any:
    return value if spelling(value, text) is None else Spelled(value, text)


def _plain(value: Any) -> Any:
    """A value without its spelling, which whoever holds it keeps; lists keep that of theirs."""
    if isinstance(value, Spelled):
        return value.value
    if type(value) is not list:
        return value
    spelled = {n: each.text for n, each in enumerate(value) if isinstance(each, Spelled)}
    return Listing(map(_plain, value), spelled=spelled)


def _constant(name: str) -> Unclear:
    return Unclear(f"{name} is not a number JSON has: write a number, or leave it out")


def _block(pairs: list[tuple[str, Any]]) -> Block:
    spelled = {key: value.text for key, value in pairs if isinstance(value, Spelled)}
    block = Block(((key, _plain(value)) for key, value in pairs), spelled=spelled)
    if len(block) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                block[key] = Unclear("stands twice: keep one")
            seen.add(key)
    return block


class _Errors:
    """Turn what the decoder raises into Unreadable, with the line and a remedy."""

    def __init__(self, text: str, extra_data: str) -> None:
        self._text = text
        self._extra_data = extra_data

    def run(self, read: Any) -> Any:
        """Return what ``read`` returns."""
        try:
            return read()
        except json.JSONDecodeError as exc:
            remedy = f": {remedy}" if (remedy := self._remedy(exc)) else ""
            raise Unreadable(f"not valid JSON ({exc.msg}){remedy}", exc.lineno) from exc
        except RecursionError as exc:
            raise Unreadable(f"nested more than {DEEPEST} deep") from exc
        except ValueError as exc:  # a number of thousands of digits
            raise Unreadable(f"not usable JSON ({exc})") from exc

    def _remedy(self, exc: json.JSONDecodeError) -> str:
        before = self._text[: exc.pos].rstrip()[-1:]
        here = self._text[exc.pos : exc.pos + 1]
        if exc.msg.startswith("Extra data"):
            return self._extra_data
        if before == "," or (here == "," and exc.msg.startswith("Illegal trailing")):
            return "is there a comma too many?"
        if here == "'":
            return "JSON text stands in double quotes"
        if "escape" in exc.msg:
            return "a backslash is written twice in JSON; write a path with /"
        if exc.msg.startswith("Invalid control"):
            return "a line break inside text is written \\n"
        return ""


class _Walk:
    """Walk a document's top level and its list of jobs, counting lines on the way."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decoder = _decoder()
        self._counted = 0
        self._line = 1

    def document(self) -> Any:
        """The document's value."""
        value, end = self._root(self._skip(0))
        if end < len(self._text):
            raise json.JSONDecodeError("Extra data", self._text, end)
        return value

    def _root(self, at: int) -> tuple[Any, int]:
        if self._text[at] == "{":
            return self._object(at)
        return self._value(at, rows=self._text[at] == "[")

    def _object(self, at: int) -> tuple[Block, int]:
        pairs: list[tuple[str, Any]] = []
        lines: dict[str, int] = {}
        for start in self._parts(at, "}"):
            if self._text[start : start + 1] != '"':
                message = "Expecting property name enclosed in double quotes"
                raise json.JSONDecodeError(message, self._text, start)
            line = self._line_at(start)
            key, end = self._decoder.raw_decode(self._text, start)
            lines.setdefault(key, line)
            after = self._expect(self._skip(end), ":")
            value, self._at = self._value(after, rows=key == "jobs")
            pairs.append((key, value))
        block = _block(pairs)
        block.lines = lines
        return block, self._at

    def _list(self, at: int) -> tuple[Listing, int]:
        values, lines = [], []
        for start in self._parts(at, "]"):
            lines.append(self._line_at(start))
            value, self._at = self._value(start)
            values.append(value)
        return Listing(values, lines), self._at

    def _value(self, at: int, *, rows: bool = False) -> tuple[Any, int]:
        """The value at ``at``; with ``rows``, a list whose elements know their lines."""
        if rows and self._text[at : at + 1] == "[":
            return self._list(at)
        value, end = self._decoder.raw_decode(self._text, at)
        return _plain(value), self._skip(end)

    def _parts(self, at: int, close: str) -> Iterator[int]:
        """Yield where each part between brackets begins; the caller moves ``_at`` past it."""
        self._at = self._skip(at + 1)
        if self._text[self._at : self._at + 1] != close:
            yield self._at
            while self._text[self._at : self._at + 1] == ",":
                yield self._skip(self._at + 1)
            if self._text[self._at : self._at + 1] != close:
                raise json.JSONDecodeError("Expecting ',' delimiter", self._text, self._at)
        self._at = self._skip(self._at + 1)

    def _expect(self, at: int, sign: str) -> int:
        if self._text[at : at + 1] != sign:
            raise json.JSONDecodeError(f"Expecting {sign!r} delimiter", self._text, at)
        return self._skip(at + 1)

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match is not None
        return match.end()

    def _line_at(self, at: int) -> int:
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return self._line
