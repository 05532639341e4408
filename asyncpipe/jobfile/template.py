"""From what is typed to jobs: one entry of ``jobs:``, its defaults, and the row that fills it.

Every job file is rows times templates: a plain list is templates with one empty row, a table of
jobs one template of all its columns. What is the same in every row is checked once; what a row
fills in is checked with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.models import DefaultsIn, JobIn, TypedDefaultsIn, fitting
from asyncpipe.jobfile.placeholders import (
    Cells,
    Columns,
    Convert,
    Placeholder,
    as_number,
    as_value,
    filled,
    find,
    has_braces,
    label_text,
    nested,
    value_of,
)
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Block, Unclear, Wrong, line_at
from asyncpipe.jobs import (
    BODY_FIELDS,
    DIRECT_FIELDS,
    Job,
    JobType,
    any_type,
    is_media_field,
    type_of_model,
)
from asyncpipe.media import BadInputs, LocalFiles

TEXT_FIELDS = frozenset({"name", "type", "model", "prompt", "resolution", *DIRECT_FIELDS})
"""Fields of a job in which a lone placeholder is text, whatever is in its cell."""

OPEN_FIELDS: Mapping[str, Convert | None] = {"params": as_value, "labels": None}
"""Fields of a job with names of the user's own inside, and what a lone placeholder becomes."""

_IN_BODY = frozenset({*BODY_FIELDS, *DIRECT_FIELDS})

_NO_PARAMS = frozenset({"model", "prompt", *_IN_BODY})

_KINDS: Mapping[Any, JobType] = {kind.value: kind for kind in JobType}

_REMEDY = "Fields of the model's own go under params:"

LONGEST_LABEL = 80
"""Characters of what a job is called in problems."""

_NO_ROW: Cells = ()


@dataclass(slots=True)
class Fields:
    """What one place says of a job, of its request body, and as labels.

    Values are checked, but for those that are Placeholders: these each row says anew.
    """

    job: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)

    def take(self, said: Mapping[str, Any]) -> Fields:
        """Add checked fields of a job; ``params`` and fields such as ``width`` are one body."""
        for key, value in said.items():
            if key in _IN_BODY:
                self.body[key] = value
            elif key == "params":
                self.body |= value
            elif key == "labels":
                self.labels |= value
            else:
                self.job[key] = value
        return self

    def over(self, lower: Fields) -> Fields:
        """Both, this one winning, name by name."""
        return Fields(
            {**lower.job, **self.job},
            {**lower.body, **self.body},
            {**lower.labels, **self.labels},
        )

    def parted(self) -> tuple[Fields, list[Placeholder]]:
        """What is the same in every row, and what each row says anew."""
        parts = (self.job, self.body, self.labels)
        varying = [v for part in parts for v in part.values() if isinstance(v, Placeholder)]
        same = [{k: v for k, v in part.items() if not isinstance(v, Placeholder)} for part in parts]
        return Fields(*same), varying


@dataclass(frozen=True, slots=True)
class Defaults:
    """What jobs take where they say nothing themselves; by type goes before the common ones.

    ``faulty`` are fields that stand there and were reported: no job is said to lack them.
    """

    common: Fields = field(default_factory=Fields)
    by_type: Mapping[JobType, Fields] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()

    def under(self, own: Fields, kind: JobType | None) -> Fields:
        """A job of ``kind`` with what it does not say filled in."""
        if self is NO_DEFAULTS:
            return own
        typed = self.by_type.get(kind) if kind else None
        return own.over(typed.over(self.common) if typed else self.common)


NO_DEFAULTS = Defaults()
"""Where nothing is said for a job but by itself."""


def read_defaults(value: Block, problems: Problems, columns: Columns | None) -> Defaults:
    """Check ``defaults``; ``problems`` are its own, ``columns`` may stand there in braces."""
    typed = {kind: value[kind] for kind in JobType if isinstance(value.get(kind), Mapping)}
    common = Block(((k, v) for k, v in value.items() if k not in typed), value.lines)
    fields, faulty = _read_fields(common, DefaultsIn, problems, columns)
    by_type = {}
    for kind, said in typed.items():
        inside = problems.below(value, kind)
        by_type[kind], more = _read_fields(said, TypedDefaultsIn, inside, columns)
        faulty |= more
    return Defaults(fields, by_type, frozenset(faulty))


def _read_fields(
    value: Mapping[str, Any], model: Any, problems: Problems, columns: Columns | None
) -> tuple[Fields, set[str]]:
    """What a mapping says, and the keys that were reported."""
    if columns is None:
        checked = fitting(value, model, problems, remedy=_REMEDY)
        _check_conflicts(value, problems)
        return Fields().take(checked), {*value} - {*checked}
    braces = _Braces(value, columns, problems)
    checked = fitting(braces.taken_out(model), model, problems, remedy=_REMEDY)
    _check_conflicts(value, problems)
    braces.take_from_inside(checked)
    faulty = {*value} - {*checked} - {each.way[0] for each in braces.found}
    return Fields().take(checked).take(nested(braces.found)), faulty


class _Braces:
    """Find the placeholders in one mapping; those that mean nothing are reported."""

    def __init__(self, value: Mapping[str, Any], columns: Columns, problems: Problems) -> None:
        self.found: list[Placeholder] = []
        self._value, self._columns, self._problems = value, columns, problems

    def taken_out(self, model: Any) -> Block:
        """The fields that are the same in every row, still unchecked."""
        known = {*model.__annotations__} - {*OPEN_FIELDS}
        said = Block(self._value.items(), getattr(self._value, "lines", None))
        for key, each in self._value.items():
            lists = isinstance(each, list) and key in DIRECT_FIELDS
            if key in known and (lists or isinstance(each, str)) and has_braces(each):
                convert = None if key in TEXT_FIELDS else as_number
                self._find((key,), said, convert)
        return said

    def take_from_inside(self, checked: dict[str, Any]) -> None:
        """Take those inside ``params`` and ``labels`` out of what was ``checked``."""
        for key, convert in OPEN_FIELDS.items():
            inside = checked.get(key, {})
            for name in [name for name, each in inside.items() if has_braces(each)]:
                self._find((key, name), inside, convert)

    def _find(self, way: tuple[str, ...], said: dict[str, Any], convert: Convert | None) -> None:
        value = said.pop(way[-1])
        try:
            read = find(way, value, self._columns, convert)
        except Wrong as exc:
            line = line_at(self._value, way, self._problems.line)
            self._problems.report(f"{self._problems.path}{'.'.join(way)}: {exc}", line=line)
            return
        if isinstance(read, Placeholder):
            self.found.append(read)
        else:
            said[way[-1]] = read


def read_template(
    value: Any,
    defaults: Defaults,
    problems: Problems,
    *,
    columns: Columns | None = None,
    files: LocalFiles | None = None,
) -> Template | None:
    """Check one entry of ``jobs:``; None, and a report, where something is wrong.

    With ``columns`` text in braces is a placeholder for one of them.
    """
    if not isinstance(value, Mapping):
        problems.report(_not_a_mapping(value))
        return None
    before = len(problems.found)
    here = Columns(columns.names) if columns else None
    own, _ = _read_fields(value, JobIn, problems, here)
    template = Template(own, defaults, columns, files, varies=columns is not None)
    template.check(problems, said={*value})
    if columns is not None and here is not None:
        if len(problems.found) == before and not (here.used or columns.used):
            why = "uses no column, so each row would make the same job"
            problems.report(f"{why}: write {{{columns.names[0]}}}")
        columns.used.update(here.used)
    return template if len(problems.found) == before else None


def jobs_of(
    value: Any,
    n: int,
    problems: Problems,
    *,
    defaults: Defaults = NO_DEFAULTS,
    files: LocalFiles | None = None,
) -> Iterator[Job]:
    """The jobs of the ``n``-th entry of a list that no rows fill."""
    problems.job = _label(value, n)
    if isinstance(value, Job):
        yield value
        return
    template = read_template(value, defaults, problems, files=files)
    if template is not None:
        yield from template.jobs(_NO_ROW, problems)


def _label(value: Any, n: int) -> str:
    said = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return label_of(said, n)


def label_of(name: Any, n: int) -> str:
    """What problems call a job: its name, or where it has none its number."""
    if not isinstance(name, str) or not name.strip():
        return f"job {n}"
    return name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}…"


def _not_a_mapping(value: Any) -> str:
    if isinstance(value, Unclear):
        return value.why
    wrong = "a job is a mapping of key: value, with at least model and prompt"
    if isinstance(value, str) and (":" in value or "：" in value):
        return f"{wrong}; here a key lacks its colon and space"
    return wrong


def _check_conflicts(value: Mapping[str, Any], problems: Problems) -> None:
    """Report what stands in ``params`` and belongs, or stands as well, on the job itself."""
    params = value.get("params")
    if not isinstance(params, Mapping) or _NO_PARAMS.isdisjoint(params):
        return
    for key in sorted(_NO_PARAMS & params.keys()):
        line = line_at(value, ("params", key), problems.line)
        path = f"{problems.path}params.{key}"
        if key in value:
            problems.report(f"{path}: {key} stands on the job too: keep one", line=line)
        elif key in ("model", "prompt"):
            problems.report(f"{path}: write {key} on the job, not in params", line=line)


@dataclass(slots=True)
class Template:
    """One entry of ``jobs:``: ``jobs`` makes those of a row.

    ``columns`` are those of the rows that fill it, whose cells become labels as well; None: they
    do not. One that does not vary says everything itself. ``files`` looks at what jobs take in.
    """

    own: Fields
    defaults: Defaults
    columns: Columns | None
    files: LocalFiles | None
    varies: bool
    _parted: dict[JobType | None, tuple[Fields, list[Placeholder]]] = field(default_factory=dict)
    _only: JobType | None = None  # of every row

    def check(self, problems: Problems, said: set[str]) -> None:
        """Report what no row can make good; ``said`` is told already, if it is wrong."""
        tellers = [fields.job.get(key) for fields in self._tellers for key in ("type", "model")]
        if not self.varies or not any(isinstance(each, Placeholder) for each in tellers):
            kind = self._only = self._kind(_NO_ROW)
            self._check(self.defaults.under(self.own, kind), kind, said, problems)
            return
        whole = self.own.over(self.defaults.common)
        for typed in self.defaults.by_type.values():  # it may be of any type
            whole = whole.over(typed)
        self._check(whole, None, said | {"type"}, problems)

    def jobs(self, cells: Cells, problems: Problems) -> Iterator[Job]:
        """The jobs of one row; what is wrong with it is reported."""
        before = len(problems.found)
        kind = self._kind(cells)
        fields = self._filled(kind, cells, problems)
        if len(problems.found) > before or kind is None or not self._enough(fields, kind):
            return
        try:
            for job in _copies(fields, kind):
                yield job if self.files is None else self.files.attach(job)
        except BadInputs as exc:
            for fault in exc.faults:
                problems.report(fault, once=True)
        except UsageError as exc:
            problems.report(str(exc))

    def _filled(self, kind: JobType | None, cells: Cells, problems: Problems) -> Fields:
        if not self.varies:
            return self.defaults.under(self.own, kind)
        if kind not in self._parted:
            self._parted[kind] = self.defaults.under(self.own, kind).parted()
        fixed, varying = self._parted[kind]
        said = filled(varying, cells, problems)
        fields = Fields({**fixed.job}, {**fixed.body}, self._labels(cells) | fixed.labels)
        fields.take(fitting(said, JobIn, problems))
        if kind is None or not self._enough(fields, kind):
            told = {*said, *(each.way[0] for each in varying if not each.optional)}
            self._check(fields, kind, told, problems)
        return fields

    def _labels(self, cells: Cells) -> dict[str, str]:
        if self.columns is None:
            return {}
        return {
            name: text
            for name, cell in zip(self.columns.names, cells, strict=True)
            if (text := cell if type(cell) is str else label_text(cell))
        }

    @property
    def _tellers(self) -> tuple[Fields, Fields]:
        """What may tell the type, the nearest first: the job, its model included, then defaults."""
        return self.own, self.defaults.common

    def _kind(self, cells: Cells) -> JobType | None:
        """The type of a row's job, None where nothing tells it, or what does is wrong."""
        if self._only is not None:
            return self._only
        for fields in self._tellers:
            kind = _KINDS.get(value_of(fields.job.get("type"), cells))
            model = None if kind else value_of(fields.job.get("model"), cells)
            if kind or (isinstance(model, str) and (kind := type_of_model(model))):
                return kind
        return None

    @staticmethod
    def _enough(fields: Fields, kind: JobType) -> bool:
        return "model" in fields.job and ("prompt" in fields.job or _wordless(fields, kind))

    def _check(
        self, whole: Fields, kind: JobType | None, said: set[str], problems: Problems
    ) -> None:
        """Report what a job lacks; what is there but wrong was reported where it stands."""
        if kind is not None and self._enough(whole, kind):
            return
        said = said | self.defaults.faulty
        needed = ("model",) if _wordless(whole, kind) else ("model", "prompt")
        lacking = [key for key in needed if key not in whole.job and key not in said]
        if kind is None and "type" not in said:
            typed = any("model" in fields.job for fields in self.defaults.by_type.values())
            if "model" in whole.job:
                lacking.append("type")
            elif typed and "model" not in said:
                lacking = [*(key for key in lacking if key != "model"), "type"]
        where = "on the job or in defaults" if problems.file else "on the job"
        for key in lacking:
            missing = f"missing; write it {where}" if key != "type" else _no_type(whole)
            problems.report(f"{key}: {missing}")


def _no_type(whole: Fields) -> str:
    why = "no model tells it"
    if "model" in whole.job:
        why = f"model {whole.job['model']!r} does not tell what it makes"
    return f"missing, and {why}; add type: {any_type()}"


def _wordless(fields: Fields, kind: JobType | None) -> bool:
    """Whether a job needs no prompt: it has fields to speak or hear, or a medium to work on."""
    body = fields.body
    return bool(body) if kind is JobType.AUDIO else any(map(is_media_field, body))


def _copies(fields: Fields, kind: JobType) -> Iterator[Job]:
    """Yield the ``count`` equal jobs that one row stands for: occurrences 1 to n.

    With n > 1 a name becomes name-1 to name-n. Raises UsageError where Job does.
    """
    said = {**fields.job, "type": kind, "labels": fields.labels}
    count = said.pop("count", 1)
    if count == 1:
        yield Job(**said, params=fields.body)
        return
    name = said.pop("name", None)
    for n in range(1, count + 1):
        own = f"{name}-{n}" if name is not None else None
        yield Job(**said, name=own, params=dict(fields.body), occurrence=n)
