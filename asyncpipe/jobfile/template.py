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
from asyncpipe.jobfile.models import CallIn, DefaultsIn, JobIn, TypedDefaultsIn, fitting
from asyncpipe.jobfile.placeholders import (
    Cells,
    Columns,
    Convert,
    Fill,
    Placeholder,
    as_number,
    as_value,
    fill_each,
    filler,
    has_braces,
    label_text,
    read_braces,
    varies,
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


Said = dict[str, Any]
"""What one place says: checked values by a job's keys, and a Placeholder where a row says it."""


def over(own: Said, lower: Said) -> Said:
    """Both, ``own`` winning, name by name; inside ``params`` and ``labels``, too.

    A field such as ``width`` may stand on the job or in its ``params``: either wins over the other.
    """
    said = {**lower, **own}
    for key in OPEN_FIELDS:
        said[key] = {**lower.get(key, {}), **own.get(key, {})}
    for key in _IN_BODY & said.keys() & said["params"].keys():
        del (said["params"] if key in own else said)[key]
    return said


@dataclass(frozen=True, slots=True)
class Defaults:
    """What jobs take where they say nothing themselves; by type goes before the common ones.

    ``faulty`` are fields that stand there and were reported: no job is said to lack them.
    """

    common: Said = field(default_factory=dict)
    by_type: Mapping[JobType, Said] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()

    def under(self, own: Said, kind: JobType | None) -> Said:
        """A job of ``kind`` with what it does not say filled in."""
        if self is NO_DEFAULTS:
            return own
        typed = self.by_type.get(kind) if kind else None
        return over(own, over(typed, self.common) if typed else self.common)


NO_DEFAULTS = Defaults()
"""Where nothing is said for a job but by itself."""


def read_defaults(value: Block, problems: Problems, columns: Columns | None) -> Defaults:
    """Check ``defaults``; ``problems`` are its own, ``columns`` may stand there in braces."""
    typed = {kind: value[kind] for kind in JobType if isinstance(value.get(kind), Mapping)}
    rest = Block(((k, v) for k, v in value.items() if k not in typed), value.lines)
    common, faulty = _read(rest, DefaultsIn, problems, columns)
    by_type = {}
    for kind, said in typed.items():
        inside = problems.below(value, kind)
        by_type[kind], more = _read(said, TypedDefaultsIn, inside, columns)
        faulty |= more
    return Defaults(common, by_type, frozenset(faulty))


def _read(
    value: Mapping[str, Any], model: Any, problems: Problems, columns: Columns | None
) -> tuple[Said, set[str]]:
    """What a mapping says, and the keys that were reported."""
    if columns is None:
        checked = fitting(value, model, problems, remedy=_REMEDY)
        _check_conflicts(value, problems)
        return checked, {*value} - {*checked}
    braces = _Braces(value, columns, problems)
    same, varying = braces.parted(model)
    checked = fitting(same, model, problems, remedy=_REMEDY)
    _check_conflicts(value, problems)
    for key, convert in OPEN_FIELDS.items():
        inside = checked.get(key, {})
        for name in [name for name, each in inside.items() if has_braces(each)]:
            braces.read(inside, (key, name), convert)
    return {**checked, **varying}, {*value} - {*checked} - {*varying}


@dataclass(frozen=True, slots=True)
class _Braces:
    """Read the braces in one mapping; those that mean nothing are reported, their value is gone."""

    value: Mapping[str, Any]
    columns: Columns
    problems: Problems

    def parted(self, model: Any) -> tuple[Block, Said]:
        """The fields that are the same in every row, still unchecked, and those that are not."""
        same, varying = Block(self.value.items(), getattr(self.value, "lines", None)), Said()
        known = model.__annotations__.keys() - OPEN_FIELDS.keys()
        for key in [key for key in same if key in known]:
            lists = isinstance(same[key], list) and key in DIRECT_FIELDS
            if (lists or isinstance(same[key], str)) and has_braces(same[key]):
                self.read(same, (key,), None if key in TEXT_FIELDS else as_number)
                if varies(same.get(key)):
                    varying[key] = same.pop(key)
        return same, varying

    def read(self, said: Said, way: tuple[str, ...], convert: Convert | None) -> None:
        """Put placeholders into what ``way`` leads to, of which ``said`` holds the last step."""
        try:
            said[way[-1]] = read_braces(said[way[-1]], self.columns, convert)
        except Wrong as exc:
            del said[way[-1]]
            line = line_at(self.value, way, self.problems.line)
            self.problems.report(f"{self.problems.path}{'.'.join(way)}: {exc}", line=line)


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
    own, _ = _read(value, JobIn if problems.file else CallIn, problems, here)
    template = Template(own, defaults, columns, files, varies=columns is not None)
    template.check(problems, told={*value})
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

    own: Said
    defaults: Defaults
    columns: Columns | None
    files: LocalFiles | None
    varies: bool
    _parted: dict[JobType | None, tuple[Said, Said, Fill]] = field(default_factory=dict)
    _only: JobType | None = None  # of every row

    def check(self, problems: Problems, told: set[str]) -> None:
        """Report what no row can make good; what is ``told`` already is not told again."""
        tellers = [said.get(key) for said in self._tellers for key in ("type", "model")]
        if not self.varies or not any(map(varies, tellers)):
            kind = self._only = self._kind(_NO_ROW)
            whole = self.defaults.under(self.own, kind)
            self._check(_with_body({**whole}), kind, told, problems)
            return
        whole = over(self.own, self.defaults.common)
        for typed in self.defaults.by_type.values():  # it may be of any type
            whole = over(whole, typed)
        self._check(_with_body(whole), None, told | {"type"}, problems)

    def jobs(self, cells: Cells, problems: Problems) -> Iterator[Job]:
        """The jobs of one row; what is wrong with it is reported."""
        before = len(problems.found)
        kind = self._kind(cells)
        said = self._filled(kind, cells, problems)
        if len(problems.found) > before or kind is None or not _is_enough(said, kind):
            return
        try:
            for job in _copies(said, kind):
                yield job if self.files is None else self.files.attach(job)
        except BadInputs as exc:
            for fault in exc.faults:
                problems.report(fault, once=True)
        except UsageError as exc:
            problems.report(str(exc))

    def _filled(self, kind: JobType | None, cells: Cells, problems: Problems) -> Said:
        if not self.varies:
            return _with_body({**self.defaults.under(self.own, kind)})
        if kind not in self._parted:
            same, varying = _parted(self.defaults.under(self.own, kind))
            self._parted[kind] = same, varying, filler(varying)
        same, varying, fill = self._parted[kind]
        try:
            filled = fill(cells)
        except Wrong:
            filled = fill_each(varying, cells, problems)
        checked = fitting(filled, JobIn, problems)
        said = {**same, **checked}
        said["params"] = {**same["params"], **checked.get("params", {})}
        said["labels"] = {**self._labels(cells), **same["labels"], **checked.get("labels", {})}
        if not _IN_BODY.isdisjoint(checked):
            said = _with_body(said)
        if kind is None or not _is_enough(said, kind):
            told = {*filled, *(varying if self.columns else ())}
            self._check(said, kind, told, problems)
        return said

    def _labels(self, cells: Cells) -> dict[str, str]:
        if self.columns is None:
            return {}
        return {
            name: text
            for name, cell in zip(self.columns.names, cells, strict=True)
            if (text := cell if type(cell) is str else label_text(cell))
        }

    @property
    def _tellers(self) -> tuple[Said, Said]:
        """What may tell the type, the nearest first: the job, its model included, then defaults."""
        return self.own, self.defaults.common

    def _kind(self, cells: Cells) -> JobType | None:
        """The type of a row's job, None where nothing tells it, or what does is wrong."""
        if self._only is not None:
            return self._only
        for said in self._tellers:
            if kind := _KINDS.get(_of_row(said.get("type"), cells)):
                return kind
            model = _of_row(said.get("model"), cells)
            if isinstance(model, str) and (kind := type_of_model(model)):
                return kind
        return None

    def _check(self, said: Said, kind: JobType | None, told: set[str], problems: Problems) -> None:
        """Report what a job lacks; what is there but wrong was reported where it stands."""
        if kind is not None and _is_enough(said, kind):
            return
        told = told | self.defaults.faulty
        needed = ("model",) if _is_wordless(said, kind) else ("model", "prompt")
        lacking = [key for key in needed if key not in said and key not in told]
        if kind is None and "type" not in told:
            if "model" in said:
                lacking.append("type")
            elif "model" not in told and any("model" in t for t in self.defaults.by_type.values()):
                lacking = [*(key for key in lacking if key != "model"), "type"]
        where = "on the job or in defaults" if problems.file else "on the job"
        for key in lacking:
            missing = f"missing; write it {where}" if key != "type" else _no_type(said)
            problems.report(f"{key}: {missing}")


def _parted(said: Said) -> tuple[Said, Said]:
    """What is the same in every row, its body whole, and what each row says anew."""
    same: Said = {key: {} for key in OPEN_FIELDS}
    varying: Said = {}
    for key in sorted(said, key=lambda key: (key in OPEN_FIELDS, key in _IN_BODY)):
        if key not in OPEN_FIELDS:
            (varying if varies(said[key]) else same)[key] = said[key]
            continue
        for name, each in said[key].items():
            (varying if varies(each) else same).setdefault(key, {})[name] = each
    return _with_body(same), varying


def _with_body(said: Said) -> Said:
    """``said`` with what its request body holds in ``params``, all of it."""
    direct = [key for key in said if key in _IN_BODY]  # in the order they were written
    if direct or "params" not in said:
        said["params"] = {**said.get("params", {}), **{key: said.pop(key) for key in direct}}
    return said


def _of_row(value: Any, cells: Cells) -> Any:
    """A value for a row; None where it is wrong, which is told when all of them are filled."""
    try:
        return value.fill(cells) if isinstance(value, Placeholder) else value
    except Wrong:
        return None


def _no_type(said: Said) -> str:
    why = "no model tells it"
    if "model" in said:
        why = f"model {said['model']!r} does not tell what it makes"
    return f"missing, and {why}; add type: {any_type()}"


def _is_enough(said: Said, kind: JobType) -> bool:
    return "model" in said and ("prompt" in said or _is_wordless(said, kind))


def _is_wordless(said: Said, kind: JobType | None) -> bool:
    """Whether a job needs no prompt: it has fields to speak or hear, or a medium to work on."""
    body = said["params"]
    return bool(body) if kind is JobType.AUDIO else any(map(is_media_field, body))


def _copies(said: Said, kind: JobType) -> Iterator[Job]:
    """Yield the ``count`` equal jobs that one row stands for: occurrences 1 to n.

    With n > 1 a name becomes name-1 to name-n. Raises UsageError where Job does.
    """
    said["type"] = kind
    count = said.pop("count", 1)
    if count == 1:
        yield Job(**said)
        return
    name, params = said.pop("name", None), said.pop("params")
    for n in range(1, count + 1):
        own = f"{name}-{n}" if name is not None else None
        yield Job(**said, name=own, params={**params}, occurrence=n, counted_from=name)
