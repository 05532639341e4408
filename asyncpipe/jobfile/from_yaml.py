"""YAML job files as values with lines.

Built from the parser's events rather than with ``yaml.safe_load``: that forgets lines, keeps the
last of two equal keys in silence, reads ``16:9`` as 969, and an alias bomb or a deep nest takes
the process with it. Aliases share one value here, so nothing grows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asyncpipe._text import brief
from asyncpipe.jobfile.source import DEEPEST, Block, Listing, Unclear, Unreadable, spelling

if TYPE_CHECKING:
    import yaml

LONGEST_NUMBER = 500
"""Plain words beyond this are text: YAML's pattern for numbers in sixties takes 60 bytes of memory
for every byte it reads."""

MOST_MERGED = 1_000_000
"""Keys that ``<<`` may copy in one file; real files stay far below, bombs do not."""

_TAG = "tag:yaml.org,2002:"

_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+", re.ASCII)

_EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+", re.ASCII)

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_yaml(text: str) -> Any:
    """Return the document's value; None for an empty one. Raises Unreadable."""
    import yaml

    if found := _UNPRINTABLE.search(text):
        raise Unreadable(
            f"the character U+{ord(found[0]):04X} may not stand in a YAML file: delete it",
            text.count("\n", 0, found.start()) + 1,
        )
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C where it was built
    loader = loader_class(text)
    try:
        return _Reader(loader).document()
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(exc, text) from exc
    except yaml.YAMLError as exc:
        raise Unreadable(f"not valid YAML ({exc})") from exc
    finally:
        loader.dispose()


class _Reader:
    """Turn events into values; one use."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._anchors: dict[str, tuple[Any, str | None]] = {}
        self._spelled: str | None = None  # how the last value is written, if not as we would
        self._merged = 0

    def document(self) -> Any:
        """The value of the only document."""
        import yaml

        self._next()  # the stream begins
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        value = self._value(self._next(), 0)
        self._next()  # the document ends
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise Unreadable("a second YAML document begins: keep one, without ---", _line(event))
        return value

    def _next(self) -> yaml.Event:
        event: yaml.Event = self._loader.get_event()
        return event

    def _value(self, event: yaml.Event, depth: int) -> Any:
        import yaml

        if isinstance(event, yaml.AliasEvent):
            value, self._spelled = self._alias(event)
            return value
        if depth > DEEPEST:
            raise Unreadable(f"nested more than {DEEPEST} deep", _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(event, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, depth)
        else:
            assert isinstance(event, yaml.ScalarEvent)
            value = self._scalar(event)
        self._spelled = None
        if isinstance(event, yaml.ScalarEvent):
            self._spelled = spelling(value, event.value)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = value, self._spelled
        return value

    def _alias(self, event: yaml.AliasEvent) -> tuple[Any, str | None]:
        if event.anchor not in self._anchors:
            name = brief(event.anchor or "")
            raise Unreadable(
                f"*{name} stands for nothing: no &{name} ends before it",
                _line(event),
            )
        return self._anchors[event.anchor]

    def _sequence(self, event: yaml.SequenceStartEvent, depth: int) -> Any:
        import yaml

        values, lines = [], []
        spelled: dict[int, str] = {}
        while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
            lines.append(_line(inner))
            values.append(self._value(inner, depth + 1))
            if self._spelled is not None:
                spelled[len(values) - 1] = self._spelled
        return _foreign(event.tag, "seq") or Listing(values, lines, spelled)

    def _mapping(self, event: yaml.MappingStartEvent, depth: int) -> Any:
        import yaml

        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        spelled: dict[str, str] = {}
        merged: list[Block] = []
        while not isinstance(key_event := self._next(), yaml.MappingEndEvent):
            line = _line(key_event)
            if not isinstance(key_event, yaml.ScalarEvent):
                raise Unreadable("a key must be text; is this a missing quote?", line)
            value = self._value(self._next(), depth + 1)
            tag, key = self._tag(key_event), key_event.value
            if tag == f"{_TAG}merge":
                merged += self._merges(value, line)
            elif key in own:
                own[key] = Unclear(f"stands twice, first on line {lines[key]}: keep one")
                lines[key] = line
            else:
                text = tag in (f"{_TAG}str", f"{_TAG}value")
                own[key] = (
                    value if text else Unclear(f'a key must be text: write "{key}" in quotes')
                )
                lines[key] = line
                if self._spelled is not None:
                    spelled[key] = self._spelled
        block = Block(own.items(), lines, spelled)
        return _foreign(event.tag, "map") or self._merge(merged, block)

    def _merges(self, value: Any, line: int) -> list[Block]:
        blocks = value if isinstance(value, Listing) else [value]
        if not all(isinstance(block, Block) for block in blocks):
            raise Unreadable("<<: takes a mapping such as *name, or a list of them", line)
        return blocks

    def _merge(self, merged: list[Block], own: Block) -> Block:
        """``own`` before the merged ones, and of those the first before the others."""
        if not merged:
            return own
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        spelled: dict[str, str] = {}
        for block in (*reversed(merged), own):
            self._merged += len(block)
            if self._merged > MOST_MERGED:
                raise Unreadable(f"<<: copies more than {MOST_MERGED} keys: use defaults: instead")
            values |= block
            lines |= block.lines
            spelled = {k: text for k, text in spelled.items() if k not in block}
            spelled.update(block.spelled)
        return Block(values.items(), lines, spelled)

    def _tag(self, event: yaml.ScalarEvent) -> str:
        import yaml

        if event.tag is not None and event.tag != "!":
            return event.tag
        if len(event.value) > LONGEST_NUMBER:
            return f"{_TAG}str"
        tag: str = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        return tag

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        import yaml

        tag, text = self._tag(event), event.value
        kind = tag.removeprefix(_TAG)
        plain = event.tag is None and event.implicit[0]
        if plain and (why := _unclear(kind, text)):
            return Unclear(why)
        if kind in ("str", "value", "merge") or (plain and ":" in text):
            # YAML 1.1 counts 16:9 and 1:30 in sixties; everybody who writes them means text.
            return text
        if kind not in ("int", "float", "bool", "null"):
            return _foreign(tag, "str")
        try:
            return getattr(self._loader, f"construct_yaml_{kind}")(yaml.ScalarNode(tag, text))
        except (ValueError, KeyError):
            return Unclear(f"{text!r} is not {kind}")


def _unclear(kind: str, text: str) -> str | None:
    """Why a plain scalar is read differently by different people or programs, or None."""
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f'YAML reads the bare word {text} as yes or no: write "{text}", or true or false'
    if kind in ("int", "str") and _LEADING_ZERO.fullmatch(text):
        return (
            f'{text} with its leading zero is another number to YAML: write it without, or "{text}"'
        )
    if kind == "str" and _EXPONENT.fullmatch(text):
        return f'{text} is a number to some and text to others: write it out, or "{text}" in quotes'
    if kind == "timestamp":
        return f'YAML reads {text} as a date: write "{text}" in quotes'
    return None


def _foreign(tag: str | None, kind: str) -> Unclear | None:
    if tag is None or tag in ("!", f"{_TAG}{kind}"):
        return None
    short = brief(tag.replace(_TAG, "!!"))
    return Unclear(f"the tag {short} means nothing in a job file: leave it out")


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


_BACKSLASH = (
    "a backslash in double quotes begins a special sign: write a path in single quotes, or with /"
)

_REMEDIES = (
    ("mapping values are not allowed", 'text with ": " in it needs quotes'),
    ("escape", _BACKSLASH),
    ("hexdecimal", _BACKSLASH),
    ("quoted scalar", "a closing quote is missing"),
    ("cannot start any token", "text that begins with one of @ ` % needs quotes"),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("expected", "check the indentation, quotes and brackets here and just above"),
)

_SLIPS = (
    (
        re.compile(r"\s*(?:- +)?(?:\w+: +)?\{[^{}:,]*\} *[^\s,}\]#]"),
        'text that begins with {placeholder} needs quotes around all of it: "{sku} ..."',
    ),
    (re.compile(r" *\t"), "the line is indented with a tab: use spaces"),
    (
        re.compile(r"\s*(?:- +)?\w+\s*："),
        "the full-width colon ： is text to YAML: use : and a space",
    ),
    (re.compile(r"\s*(?:- +)?[a-z_]+:[^\s/]"), "a key needs a colon and a space after it"),
)


def _syntax_error(exc: yaml.MarkedYAMLError, text: str) -> Unreadable:
    """The parser's words with the likely slip; it often stands on the line before."""
    mark = exc.problem_mark or exc.context_mark
    lines = text.rstrip().split("\n")
    at = min(mark.line if mark else 0, len(lines) - 1)
    if exc.context_mark and "quoted scalar" in (exc.context or ""):
        at = min(exc.context_mark.line, len(lines) - 1)  # where the quote opens, not the file's end
    said = " ".join(filter(None, (exc.context, exc.problem)))
    if "nesting depth" in said:  # newer parsers give up before their first event
        return Unreadable(f"nested more than {DEEPEST} deep", at + 1)
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in said), "")
    for slip, why in _SLIPS:
        found = next((n for n in (at, at - 1) if n >= 0 and slip.match(lines[n])), None)
        if found is not None:
            at, remedy = found, why
            break
    return Unreadable(f"not valid YAML ({said})" + (f": {remedy}" if remedy else ""), at + 1)
