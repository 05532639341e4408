"""Rows of a job file against the catalogue: every problem at once, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from asyncpipe.catalog.body import BodyCheck
from asyncpipe.catalog.lookup import Lookup
from asyncpipe.errors import Problem
from asyncpipe.jobfile import JobRow
from asyncpipe.jobfile.place import LONGEST_MESSAGE, MOST_PROBLEMS


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fault:
    row: JobRow
    text: str


def unknown_problems(
    rows: Sequence[JobRow], found: Mapping[str, Lookup], file: str
) -> list[Problem]:
    """One problem for each model the catalogue does not know, at the line of its first job."""
    firsts: dict[str, JobRow] = {}
    for row in rows:
        if found[row.job.model].model is None:
            firsts.setdefault(row.job.model, row)
    return [
        _problem(_Fault(row=row, text=_unknown(found[model])), file)
        for model, row in firsts.items()
    ]


def field_problems(
    rows: Sequence[JobRow], checks: Mapping[str, BodyCheck], file: str
) -> list[Problem]:
    """What the schemas in ``checks``, by the jobs' model ids, refuse; equal jobs of a row once."""
    once: dict[tuple[int | None, str], _Fault] = {}
    for row in rows:
        for fault in _faults(row, checks):
            once.setdefault((row.line, fault.text), fault)
    return [_problem(fault, file) for fault in islice(once.values(), MOST_PROBLEMS)]


def unlisted_fields(
    rows: Sequence[JobRow], checks: Mapping[str, BodyCheck]
) -> dict[str, tuple[str, ...]]:
    """By model, the fields of its jobs that its schema neither lists nor forbids."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        check = checks.get(row.job.model)
        for name in check.unlisted(row.job.body) if check else ():
            found.setdefault(row.job.model, {})[name] = None
    return {model: tuple(names) for model, names in found.items()}


def _faults(row: JobRow, checks: Mapping[str, BodyCheck]) -> Iterator[_Fault]:
    check = checks.get(row.job.model)
    for text in check.faults(row.job.body) if check else ():
        yield _Fault(row=row, text=text)


def _unknown(lookup: Lookup) -> str:
    said = f"model: {lookup.id!r} is not in the provider's catalogue"
    if lookup.near:
        return f"{said}: did you mean {' or '.join(repr(each) for each in lookup.near)}?"
    maker, _, name = lookup.id.partition("/")
    word = next(iter(re.findall(r"[A-Za-z]{2,}", name or maker)), "")
    look = f"asyncpipe models --search {word}" if word else "asyncpipe models"
    return f"{said}, nor is any like it: look with `{look}`, or use --allow-unknown-models"


def _problem(fault: _Fault, file: str) -> Problem:
    text, job = fault.text, fault.row.job
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:LONGEST_MESSAGE]}…"
    name = job.title(job.key("atlas"))
    return Problem(message=text, file=file, line=fault.row.line, job=name[:80])
