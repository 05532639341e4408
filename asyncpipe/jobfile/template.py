"""Job templates: what is the same for every row is checked once, the rest filled and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncpipe.jobfile.checks import Wrong
from asyncpipe.jobfile.expand import IN_BODY, Defaults, Layer, copies, is_wordless
from asyncpipe.jobfile.placeholders import Cells, Columns, Hole, filled, label_text
from asyncpipe.jobfile.problems import Place
from asyncpipe.jobs import Job, JobType, any_type, type_of_model

LONGEST_LABEL = 80

PARAMS = "params."


@dataclass(slots=True)
class _Part:
    """Some values of a job: those that are the same in every row, and the holes."""

    constants: dict[str, Any]
    holes: list[tuple[str, Hole]]
    path: str = ""  # before names that are no fields of a job

    @classmethod
    def of(cls, values: Mapping[str, Any], path: str = "") -> _Part:
        holes = [(key, value) for key, value in values.items() if isinstance(value, Hole)]
        return cls({k: v for k, v in values.items() if not isinstance(v, Hole)}, holes, path)

    def fill(self, cells: Cells, place: Place) -> dict[str, Any]:
        """The values for a row; what is wrong with them is reported."""
        values = {**self.constants}
        for key, hole in self.holes:
            try:
                values[key] = hole.fill(cells)
            except Wrong as exc:
                path = "" if key in IN_BODY and self.path == PARAMS else self.path
                for fault in exc.faults:
                    place.report(f"{path}{key}{fault.path}: {fault.message}")
        return values


@dataclass(slots=True)
class _Plan:
    """One template for jobs of one type."""

    fields: _Part
    body: _Part
    labels: _Part

    @classmethod
    def of(cls, layer: Layer) -> _Plan:
        fields = {**layer.fields}
        labels = fields.pop("labels", {})
        return cls(_Part.of(fields), _Part.of(layer.body, PARAMS), _Part.of(labels, "labels."))


@dataclass(slots=True)
class Template:
    """One entry of ``jobs:`` that is made anew for every row; ``place`` is where it stands."""

    own: Layer
    defaults: Defaults
    columns: Columns
    place: Place
    _plans: dict[JobType, _Plan] = field(default_factory=dict)
    _kinds: dict[Any, JobType | None] = field(default_factory=dict)
    _kind_varies: bool = field(init=False)
    _only: JobType | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        layers = (self.own.fields, self.defaults.common.fields)
        said = [layer[key] for layer in layers for key in ("type", "model") if key in layer]
        self._kind_varies = any(isinstance(value, Hole) for value in said)
        if not self._kind_varies:
            self._only = self._kind(())

    def jobs(self, cells: Cells, place: Place) -> Iterator[Job]:
        """The jobs of one row; what is wrong with it is reported at ``place``."""
        before = len(place.found)
        try:
            kind = self._kind(cells) if self._kind_varies else self._only
        except Wrong as exc:
            place.report(f"model: {exc}")
            return
        if kind is None:
            place.report(f"type: the model does not tell what it makes; add type: {any_type()}")
            return
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._plans[kind] = _Plan.of(self.defaults.under(self.own, kind))
        fields = plan.fields.fill(cells, place)
        body = plan.body.fill(cells, place)
        labels = plan.labels.fill(cells, place)
        if len(place.found) > before:
            return
        needed = {"model"} if is_wordless(body, kind) else {"model", "prompt"}
        if not needed <= fields.keys():
            place.report("model and prompt: each job needs both; write them in the template")
            return
        fields["labels"] = {**self._row_labels(cells), **labels}
        yield from place.with_files(copies(Layer(fields, body), kind))

    def _row_labels(self, cells: Cells) -> dict[str, str]:
        return {
            name: text
            for name, cell in zip(self.columns.index, cells, strict=True)
            if (text := label_text(cell))
        }

    def _kind(self, cells: Cells) -> JobType | None:
        """The type of a row's job; what the template says goes before defaults."""
        for layer in (self.own, self.defaults.common):
            job_type = filled(layer.fields.get("type"), cells)
            if job_type is not None:
                return JobType(job_type)
            if (model := filled(layer.fields.get("model"), cells)) is not None:
                if model not in self._kinds:
                    if len(self._kinds) > 1000:
                        self._kinds.clear()
                    self._kinds[model] = type_of_model(model)
                if self._kinds[model] is not None:
                    return self._kinds[model]
        return None
