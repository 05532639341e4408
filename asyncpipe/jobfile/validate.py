"""From rows of a job file to jobs; whatever is wrong is reported, nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.checks import mapping
from asyncpipe.jobfile.expand import Defaults, Layer, copies, is_wordless
from asyncpipe.jobfile.fields import DEFAULT_FIELDS, JOB_FIELDS, MEDIA, job_type
from asyncpipe.jobfile.problems import Place
from asyncpipe.jobfile.source import Unclear, line_of
from asyncpipe.jobfile.template import Template
from asyncpipe.jobs import BODY_FIELDS, Job, JobType, any_type

_NO_PARAMS = frozenset({"model", "prompt", *BODY_FIELDS, *MEDIA})

JOB_REMEDY = "Fields of the model's own go under params:"

LONGEST_LABEL = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRow:
    """One job, the line its row begins on, and the file of rows where that is not the job file."""

    job: Job
    line: int | None = None
    file: str | None = None


def read_defaults(value: Any, place: Place) -> Defaults:
    """Check ``defaults``; ``place`` is its own."""
    if not isinstance(value, Mapping):
        place.report("defaults: must be a mapping of job fields")
        return Defaults()
    types = {kind.value: mapping for kind in JobType}
    fields = {"type": job_type, **DEFAULT_FIELDS, **types}
    checked = place.check(value, fields, remedy=JOB_REMEDY)
    _check_conflicts(value, place)
    faulty = {*fields} & {*value} - {*checked}
    by_type = {}
    for kind in JobType:
        typed = checked.pop(kind.value, {})
        inner = place.below(value, kind.value)
        passed = inner.check(typed, DEFAULT_FIELDS, remedy=JOB_REMEDY)
        _check_conflicts(typed, inner)
        by_type[kind] = Layer.of(passed)
        faulty |= {*DEFAULT_FIELDS} & {*typed} - {*passed}
    return Defaults(Layer.of(checked), by_type, frozenset(faulty))


def read_rows(
    rows: Iterable[tuple[Any, int | None]], defaults: Defaults, place: Place
) -> list[JobRow]:
    """Turn (value, line) pairs into jobs; equal ones are reported."""
    found: list[JobRow] = []
    first: dict[str, tuple[int, int | None]] = {}
    for n, (value, line) in enumerate(rows, start=1):
        here = replace(place, line=line, job=_label(value, n))
        jobs = list(_row(value, defaults, here))
        _check_twice(jobs, n, first, here)
        found += [JobRow(job=job, line=line) for job in jobs]
    return found


def _label(value: Any, n: int) -> str:
    name: Any = None
    if isinstance(value, Mapping):
        name = value.get("name")
    elif isinstance(value, Job):
        name = value.name
    if not isinstance(name, str) or not name.strip():
        return f"job {n}"
    return name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}…"


def read_row(value: Any, line: int | None, n: int, defaults: Defaults, place: Place) -> list[Job]:
    """The jobs of one row, the ``n``-th; ``place`` moves there, and what is wrong is reported."""
    place.line, place.job = line, _label(value, n)
    return list(_row(value, defaults, place))


def read_template(value: Any, defaults: Defaults, place: Place) -> Template | None:
    """Check a job template; ``place`` is its own and knows the columns."""
    if not isinstance(value, Mapping):
        place.report(_not_a_mapping(value))
        return None
    columns = place.columns
    assert columns is not None
    before, elsewhere = len(place.found), {*columns.used}
    columns.used.clear()
    own = Layer.of(place.check(value, JOB_FIELDS, remedy=JOB_REMEDY))
    _check_conflicts(value, place)
    layers = (defaults.common, *defaults.by_type.values())
    wordless = is_wordless(own.body, defaults.type_of(own))
    for key in ("model",) if wordless else ("model", "prompt"):
        said = {*value, *defaults.faulty}
        if key not in said and not any(key in layer.fields for layer in layers):
            place.report(f"{key}: missing; write it on the job or in defaults")
    if len(place.found) == before and not (columns.used or elsewhere):
        example = next(iter(columns.index))
        place.report(f"uses no column, so each row would make the same job: write {{{example}}}")
    columns.used.update(elsewhere)
    if len(place.found) > before:
        return None
    return Template(own, defaults, columns, place)


def _row(value: Any, defaults: Defaults, place: Place) -> Iterator[Job]:
    if isinstance(value, Job):
        yield value
    elif isinstance(value, Mapping):
        yield from _mapping(value, defaults, place)
    else:
        place.report(_not_a_mapping(value))


def _not_a_mapping(value: Any) -> str:
    if isinstance(value, Unclear):
        return value.why
    wrong = "a job is a mapping of key: value, with at least model and prompt"
    if isinstance(value, str) and (":" in value or "：" in value):
        return f"{wrong}; here a key lacks its colon and space"
    return wrong


def _mapping(value: Mapping[str, Any], defaults: Defaults, place: Place) -> Iterator[Job]:
    before = len(place.found)
    checked = place.check(value, JOB_FIELDS, remedy=JOB_REMEDY)
    _check_conflicts(value, place)
    own = Layer.of(checked)
    kind = defaults.type_of(own)
    whole = defaults.under(own, kind)
    _check_missing(value, whole, kind, defaults, place)
    wrong = len(place.found) > before or {"model", "prompt"} & defaults.faulty - {*whole.fields}
    if wrong or kind is None:
        return
    yield from place.with_files(copies(whole, kind))


def _check_missing(
    value: Mapping[str, Any], whole: Layer, kind: JobType | None, defaults: Defaults, place: Place
) -> None:
    """Report what a job lacks; what is there but wrong was reported where it stands."""
    said = {*value, *defaults.faulty}
    needed = ("model",) if is_wordless(whole.body, kind) else ("model", "prompt")
    lacking = [k for k in needed if k not in whole.fields and k not in said]
    by_type = any("model" in layer.fields for layer in defaults.by_type.values())
    if kind is None and "type" not in said and "model" not in value:
        if by_type or "model" in whole.fields:
            lacking = [*(k for k in lacking if k != "model"), "type"]
    elif kind is None and "type" not in said and "model" in whole.fields:
        lacking.append("type")
    where = "on the job or in defaults" if place.file else "on the job"
    for key in lacking:
        if key == "type":
            place.report(_no_type(whole))
        else:
            place.report(f"{key}: missing; write it {where}")


def _no_type(whole: Layer) -> str:
    why = "no model tells it"
    if "model" in whole.fields:
        why = f"model {whole.fields['model']!r} does not tell what it makes"
    return f"type: missing, and {why}; add type: {any_type()}"


def _check_conflicts(value: Mapping[str, Any], place: Place) -> None:
    """Report what stands in ``params`` and belongs, or stands as well, on the job itself."""
    params = value.get("params")
    if not isinstance(params, Mapping):
        return
    for key in sorted(_NO_PARAMS & params.keys()):
        line = line_of(params, key, line_of(value, "params", place.line))
        if key in value:
            place.report(
                f"{place.path}params.{key}: {key} stands on the job too: keep one", line=line
            )
        elif key in ("model", "prompt"):
            place.report(
                f"{place.path}params.{key}: write {key} on the job, not in params", line=line
            )


def _check_twice(
    jobs: list[Job], n: int, first: dict[str, tuple[int, int | None]], place: Place
) -> None:
    """Report a row that stands for a job some earlier row stands for; once per row."""
    earlier: tuple[int, int | None] | None = None
    try:
        keys = [job.key("atlas") for job in jobs]
    except UsageError as exc:  # a Job made by hand may hold what JSON has not
        place.report(str(exc))
        return
    for key in keys:
        known = first.setdefault(key, (n, place.line))
        if known[0] != n:
            earlier = earlier or known
    if earlier is not None:
        line = f" on line {earlier[1]}" if earlier[1] else ""
        place.report(f"the same job as job {earlier[0]}{line}: to make several of one, use count:")
