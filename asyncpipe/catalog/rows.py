"""Rows of a job file against the catalogue: every problem at once, each with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from asyncpipe.errors import Problem
from asyncpipe.jobfile.problems import LONGEST_MESSAGE, MOST_PROBLEMS
from asyncpipe.jobfile.validate import JobRow
from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.models import Lookup


class RowCheck:
    """Check rows one by one; ``spent`` tells whether one was submitted before and is left alone.

    ``unlisted`` holds, by model, the fields that its schema neither lists nor forbids.
    """

    def __init__(
        self, file: str, spent: Callable[[JobRow], bool], *, allow_unknown: bool = False
    ) -> None:
        self._file, self._spent, self._allow_unknown = file, spent, allow_unknown
        self._found: dict[str, Lookup] = {}
        self._checks: dict[str, BodyCheck] = {}
        self._unknown: dict[str, Problem] = {}
        self._faults: dict[tuple[str | None, int | None, str], Problem] = {}
        self.unlisted: dict[str, dict[str, None]] = {}

    def learn(self, found: Mapping[str, Lookup], checks: Mapping[str, BodyCheck]) -> None:
        """Take what is known of some models, by the jobs' model ids."""
        self._found.update(found)
        self._checks.update(checks)

    def look(self, row: JobRow) -> None:
        """Check one row; equal faults of a row count once, an unknown model at its first job."""
        model = row.job.model
        lookup = self._found.get(model)
        if lookup is None:
            return
        unknown = lookup.model is None and not self._allow_unknown
        if unknown and model not in self._unknown and not self._spent(row):
            self._unknown[model] = self._problem(row, _unknown(lookup))
        if (check := self._checks.get(model)) is not None:
            body = row.job.body
            if faults := check.faults(body):
                self._refuse(row, faults)
            for name in check.unlisted(body):
                self.unlisted.setdefault(model, {})[name] = None

    def _refuse(self, row: JobRow, faults: Iterable[str]) -> None:
        if len(self._faults) >= MOST_PROBLEMS or self._spent(row):
            return
        for text in faults:
            place = (row.file, row.line, text)
            if place not in self._faults:
                self._faults[place] = self._problem(row, text)

    def problems(self) -> list[Problem]:
        """All that is wrong, by line."""
        found = [*self._unknown.values(), *islice(self._faults.values(), MOST_PROBLEMS)]
        return sorted(found, key=lambda problem: problem.line or 0)

    def _problem(self, row: JobRow, text: str) -> Problem:
        if len(text) > LONGEST_MESSAGE:
            text = f"{text[:LONGEST_MESSAGE]}…"
        name = row.job.title(row.job.key("atlas"))
        file = row.file or self._file
        return Problem(message=text, file=file, line=row.line, job=name[:80])


def _unknown(lookup: Lookup) -> str:
    said = f"model: {lookup.id!r} is not in the provider's catalogue"
    if lookup.near:
        return f"{said}: did you mean {' or '.join(repr(each) for each in lookup.near)}?"
    maker, _, name = lookup.id.partition("/")
    word = next(iter(re.findall(r"[A-Za-z]{2,}", name or maker)), "")
    look = f"asyncpipe models --search {word}" if word else "asyncpipe models"
    return f"{said}, nor is any like it: look with `{look}`, or use --allow-unknown-models"
