"""Where problems of a file are gathered, and what each says of its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asyncpipe._text import meant
from asyncpipe.errors import JobFileError, Problem
from asyncpipe.jobfile.source import Unclear, line_at

MOST_PROBLEMS = 1000
"""Problems of one file that are kept: who has more has one mistake, many times."""

LONGEST_MESSAGE = 1000
"""Characters of what is said of one problem."""

_ROWS_BACK = 20


@dataclass(kw_only=True, slots=True)
class Problems:
    """What is wrong at one place of a file; all places of a file share ``found``.

    ``path`` is put before the names of fields: ``defaults.`` for those inside ``defaults``.
    """

    found: list[Problem]
    file: str | None = None
    line: int | None = None
    job: str | None = None
    path: str = ""

    def below(self, mapping: Mapping[str, Any], key: str) -> Problems:
        """Those of what ``key`` of ``mapping`` holds."""
        return replace(self, path=f"{self.path}{key}.", line=line_at(mapping, [key], self.line))

    def report(self, message: str, *, line: int | None = None, once: bool = False) -> None:
        """Note one problem, unless there are MOST_PROBLEMS already.

        With ``once`` it is left out where the same was noted just before, by a job of the same row.
        """
        if len(self.found) >= MOST_PROBLEMS:
            return
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}…"
        where = line or self.line
        problem = Problem(message=message, file=self.file, line=where, job=self.job)
        if not once or problem not in self.found[-_ROWS_BACK:]:
            self.found.append(problem)

    def end(self) -> None:
        """Raise JobFileError with what was found, by line; nothing, where that is nothing."""
        if self.found:
            raise JobFileError(sorted(self.found, key=lambda problem: problem.line or 0))


def unknown_key(key: str, value: Any, known: Sequence[str], remedy: str) -> str:
    """What is said of a key that nobody knows; ``remedy`` is where it may belong."""
    hint = meant(key, known) or f"; known are {', '.join(known)}"
    if isinstance(value, Unclear):
        hint = f": {value.why}"
    end = f" {remedy}" if remedy else ""
    joint = "" if hint.endswith("?") or not end else "."
    return f": unknown key{hint}{joint}{end}"
