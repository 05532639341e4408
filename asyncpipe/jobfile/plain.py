"""A table or a JSON Lines file that is a job file of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from asyncpipe._text import meant, shown
from asyncpipe.jobfile.expand import NO_DEFAULTS
from asyncpipe.jobfile.fields import JOB_FIELDS
from asyncpipe.jobfile.holes import as_number, as_value
from asyncpipe.jobfile.json_source import iter_jsonl
from asyncpipe.jobfile.place import OPEN_FIELDS, TEXT_FIELDS, Place
from asyncpipe.jobfile.rows import TableRows
from asyncpipe.jobfile.validate import JobRow, read_row

PARAM, LABEL = "params.", "labels."

MODEL_FIELDS = frozenset(
    {
        *("seed", "size", "aspect_ratio", "negative_prompt", "guidance_scale", "steps", "style"),
        *("num_inference_steps", "num_images", "max_images", "n", "fps", "quality"),
        *("mask", "mask_url", "watermark"),
        *("output_format", "generate_audio", "enable_base64_output"),
    }
)
"""Fields that models are known to have: whoever names a column so means to send it."""


@dataclass(frozen=True, slots=True)
class _Column:
    """Where a column's cells go: a field of the job, or a name inside ``params`` or ``labels``."""

    at: int
    field: str
    name: str
    convert: Callable[[Any], Any]


def _same(cell: Any) -> Any:
    return cell


def _column(at: int, name: str) -> _Column:
    if name in JOB_FIELDS and name not in OPEN_FIELDS:
        return _Column(at, name, name, _same if name in TEXT_FIELDS else as_number)
    if name.startswith(PARAM):
        return _Column(at, "params", name.removeprefix(PARAM), as_value)
    return _Column(at, "labels", name.removeprefix(LABEL), _same)


def check_columns(columns: tuple[str, ...], place: Place) -> None:
    """Report columns that are meant for the job and would be labels as they are spelled."""
    for name in columns:
        twin = name.removeprefix(LABEL)
        if twin != name and twin in columns and _column(0, twin).field == "labels":
            place.report(f"columns {shown(twin)} and {shown(name)} are one label: rename one")
        if name in JOB_FIELDS or name.startswith((PARAM, LABEL)):
            continue
        if name.lower() in MODEL_FIELDS or name.lower() in JOB_FIELDS:
            right = name.lower() if name.lower() in JOB_FIELDS else f"params.{name}"
            place.report(
                f"column {shown(name)}: to send it, call it {right}; to only keep it with the "
                f"results, labels.{name}"
            )
        elif (hint := meant(name, _open(columns), cutoff=0.8)) != "":
            place.report(f"column {shown(name)}{hint} To keep it as it is, call it labels.{name}")
    words = {"prompt"} if any(name.startswith(PARAM) for name in columns) else set()  # or params
    for name in ("model", "prompt"):
        if name not in {*columns, *words} and not any(
            problem.job is None for problem in place.found
        ):
            known = ", ".join(field for field in JOB_FIELDS if field not in OPEN_FIELDS)
            place.report(
                f"no column {name}: a table of jobs needs model and prompt; it may have {known}, "
                "params.NAME and labels of your own. Other tables are rows: of a job file"
            )


def _open(columns: tuple[str, ...]) -> list[str]:
    return [name for name in JOB_FIELDS if name not in columns and name not in OPEN_FIELDS]


def label_columns(columns: tuple[str, ...]) -> list[str]:
    """The columns that are kept and not sent."""
    return [c for c in columns if _column(0, c).field == "labels" and not c.startswith(LABEL)]


def table_jobs(rows: TableRows, place: Place) -> Iterator[JobRow]:
    """The jobs of a table whose columns are their fields; an empty cell says nothing."""
    columns = [_column(at, name) for at, name in enumerate(rows.columns)]
    here = replace(place)
    for n, (line, cells) in enumerate(rows.read(place), start=1):
        value: dict[str, Any] = {}
        for column in columns:
            cell = cells[column.at]
            if cell == "":
                continue
            if column.field in OPEN_FIELDS:
                value.setdefault(column.field, {})[column.name] = column.convert(cell)
            else:
                value[column.field] = column.convert(cell)
        for job in read_row(value, line, n, NO_DEFAULTS, here):
            yield JobRow(job=job, line=line)


def line_jobs(rows: Any, place: Place) -> Iterator[JobRow]:
    """The jobs of a JSON Lines file, one a line."""
    place = replace(place, file=str(rows))
    for n, (value, line) in enumerate(iter_jsonl(rows), start=1):
        for job in read_row(value, line, n, NO_DEFAULTS, place):
            yield JobRow(job=job, line=line)
