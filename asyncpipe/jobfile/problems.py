"""Where problems are gathered, and what each says of its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asyncpipe._text import brief, meant
from asyncpipe.errors import Problem, UsageError
from asyncpipe.jobfile.checks import Check, Fault, Wrong
from asyncpipe.jobfile.placeholders import (
    Cells,
    Columns,
    Hole,
    checked_hole,
    has_braces,
    list_hole,
    open_hole,
    text_hole,
)
from asyncpipe.jobfile.source import Unclear, line_of
from asyncpipe.jobs import DIRECT_FIELDS, Job
from asyncpipe.media import BadInputs, LocalFiles

MOST_PROBLEMS = 1000
"""Problems of one file that are kept: who has more has one mistake, many times."""

TEXT_FIELDS = frozenset({"name", "type", "model", "prompt", "resolution", *DIRECT_FIELDS})
"""Fields of a job in which a lone placeholder is text, whatever is in its cell."""

OPEN_FIELDS = frozenset({"params", "labels"})
"""Fields of a job with names of the user's own inside."""

LONGEST_MESSAGE = 1000
"""Characters of what is said of one problem."""


@dataclass(kw_only=True, slots=True)
class Place:
    """A place in a job file; ``report`` adds to ``found``, which all places of a file share.

    ``path`` is put before the names of fields: ``defaults.`` for those inside ``defaults``. With
    ``columns`` text in braces is a placeholder for one of them. ``files`` looks at the files that
    jobs take in; None: somebody else does.
    """

    found: list[Problem]
    file: str | None = None
    line: int | None = None
    job: str | None = None
    path: str = ""
    columns: Columns | None = None
    files: LocalFiles | None = None

    def below(self, mapping: Mapping[str, Any], key: str) -> Place:
        """The place of what ``key`` of ``mapping`` holds."""
        return replace(self, path=f"{self.path}{key}.", line=line_of(mapping, key, self.line))

    def report(self, message: str, *, line: int | None = None) -> None:
        """Note one problem, unless there are MOST_PROBLEMS already."""
        if len(self.found) >= MOST_PROBLEMS:
            return
        where = line or self.line
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}…"
        self.found.append(Problem(message=message, file=self.file, line=where, job=self.job))

    def check(
        self, mapping: Mapping[str, Any], checks: Mapping[str, Check], *, remedy: str = ""
    ) -> dict[str, Any]:
        """Return the fields of ``mapping`` that pass their check; report the others.

        ``remedy`` is added to what is said of unknown keys.
        """
        passed: dict[str, Any] = {}
        make = self._plainly if self.columns is None else self._checked
        for key, value in mapping.items():
            if key not in checks:
                line = line_of(mapping, key, self.line)
                self._unknown(key, value, checks, remedy, line)
            elif isinstance(value, Unclear):
                line = line_of(mapping, key, self.line)
                self.report(f"{self.path}{key}: {value.why}", line=line)
            else:
                try:
                    passed[key] = make(key, value, checks[key])
                except Wrong as exc:
                    line = line_of(mapping, key, self.line)
                    for fault in exc.faults:
                        name = f"{self.path}{key}{fault.path}"
                        self.report(f"{name}: {fault.message}", line=fault.line or line)
        return passed

    @staticmethod
    def _plainly(key: str, value: Any, check: Check) -> Any:
        return check(value)

    def with_files(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """Yield ``jobs`` with the files they take in; what is wrong with one ends it, reported."""
        try:
            for job in jobs:
                yield job if self.files is None else self.files.attach(job)
        except BadInputs as exc:
            for fault in exc.faults:
                self.report(fault)
                if self.found[-1] in self.found[-20:-1]:  # several jobs of one row
                    self.found.pop()
        except UsageError as exc:
            self.report(str(exc))

    def _checked(self, key: str, value: Any, check: Check) -> Any:
        if self.columns is None or not has_braces(value):
            return check(value)
        if isinstance(value, str) and key not in OPEN_FIELDS:
            return checked_hole(value, self.columns, check, text=key in TEXT_FIELDS)
        if key in DIRECT_FIELDS and isinstance(value, list):
            return list_hole(value, self.columns, check)
        if key not in OPEN_FIELDS or not isinstance(value, Mapping):
            return check(value)
        still = {name: each for name, each in value.items() if not has_braces(each)}
        make = text_hole if key == "labels" else open_hole
        passed = check(still)
        for name, each in value.items():
            if name not in still:
                passed[name] = self._made(make, each, check, name)
        return passed

    def _made(self, make: Any, value: Any, check: Check, name: str) -> Any:
        assert self.columns is not None
        try:
            found = make(value, self.columns)
        except Wrong as exc:
            raise Wrong(*(Fault(f.message, f".{name}{f.path}") for f in exc.faults)) from exc
        if not isinstance(found, Hole):
            return check({name: found})[name]
        fill = found.fill

        def checked(cells: Cells) -> Any:
            value = fill(cells)
            if type(value) in (int, bool):
                return value
            try:
                return check({name: value})[name]
            except Wrong as exc:  # whoever fills the hole says its name
                paths = [(f.message, f.path.removeprefix(f".{name}")) for f in exc.faults]
                raise Wrong(*(Fault(message, path) for message, path in paths)) from exc

        return Hole(checked)

    def _unknown(
        self, key: Any, value: Any, checks: Mapping[str, Check], remedy: str, line: int | None
    ) -> None:
        hint = meant(str(key), checks)
        if isinstance(value, Unclear):
            hint = f": {value.why}"
        elif not hint:
            hint = f"; known are {', '.join(checks)}"
        end = f" {remedy}" if remedy else ""
        joint = "" if hint.endswith("?") or not end else "."
        self.report(f"{self.path}{brief(str(key))}: unknown key{hint}{joint}{end}", line=line)
