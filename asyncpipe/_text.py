"""Text that is safe to print and as wide as it looks."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    """One line without control characters, escapes or marks that change the writing direction."""
    line = " ".join(text[:4000].split())
    return "".join(c if _is_safe(c) else "�" for c in line)


def _is_safe(char: str) -> bool:
    # The joiners, which emoji and Persian are written with, count as formatting in Unicode.
    return unicodedata.category(char) not in _UNSAFE or char in "\u200c\u200d"


def printable_lines(text: str) -> str:
    """Several lines, each as ``printable`` makes it, their indents kept."""
    lines = text.splitlines()
    return "\n".join(line[: len(line) - len(line.lstrip(" "))] + printable(line) for line in lines)


_ESCAPED = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON may hold as it is, and a terminal may obey."""


def json_text(document: bytes) -> str:
    """The same JSON, with what a terminal may obey escaped."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", document.decode())


def wrapped(text: str, cells: int) -> list[str]:
    """Break text into lines, never inside a word: options and file names can be copied."""
    return wrap(text, cells, break_on_hyphens=False, break_long_words=False)


def width(text: str) -> int:
    """How many terminal cells ``text`` takes; Chinese characters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def fit(text: str, cells: int) -> str:
    """Cut or pad one line to exactly ``cells`` terminal cells."""
    from rich.cells import set_cell_size

    line = printable(text)
    if width(line) > cells:
        return set_cell_size(line, cells - 1) + "…"
    return set_cell_size(line, cells)


def columns(rows: Iterable[tuple[str, str]], *, indent: int = 2, gap: int = 3) -> list[str]:
    """Lay out label and value in two columns; labels keep their indent, and are cut at 60 cells."""
    rows = [(_indented(label), value) for label, value in rows]
    wide = min(max((width(label) for label, _ in rows), default=0), 60)
    left, between = " " * indent, " " * gap
    return [f"{left}{_fit(label, wide)}{between}{value}".rstrip() for label, value in rows]


def _indented(label: str) -> str:
    return " " * _indent(label) + printable(label)


def _fit(label: str, cells: int) -> str:
    return " " * _indent(label) + fit(label, cells - _indent(label))


def _indent(label: str) -> int:
    return min(len(label) - len(label.lstrip(" ")), 8)


def seconds(duration_s: float) -> str:
    """Write a duration the way people say it."""
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, rest = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


_LONGEST_SHOWN = 60

_CONTAINERS: tuple[tuple[Any, str], ...] = (
    (Mapping, "a mapping"),
    ((list, tuple, set, frozenset), "a list"),
)


def brief(words: str) -> str:
    """Words of the file as a message repeats them: cut where they are long."""
    return words if len(words) <= _LONGEST_SHOWN else f"{words[:_LONGEST_SHOWN]}…"


def shown(value: Any) -> str:
    """The value as a message shows it: short, and never the inside of a container."""
    for kinds, name in _CONTAINERS:
        if isinstance(value, kinds):
            return name
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    long = isinstance(value, str) and len(value) > _LONGEST_SHOWN
    return f"{value[:_LONGEST_SHOWN]!r}…" if long else repr(value)


def shown_url(url: str) -> str:
    """A URL as a message shows it: no query, which may carry a signature, and no media in it."""
    if url[:5].lower() == "data:":
        return f"{brief(url[:200].partition(',')[0])},…"
    return url.partition("#")[0].partition("?")[0][:200]


def meant(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A did-you-mean for ``word``, or nothing."""
    close = difflib.get_close_matches(brief(word).lower(), list(known), n=1, cutoff=cutoff)
    return f": did you mean {close[0]!r}?" if close else ""
