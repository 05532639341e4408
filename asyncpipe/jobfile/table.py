"""A table whose rows are jobs: its columns are their fields, the model's own, or labels."""

from __future__ import annotations

from asyncpipe._text import meant, shown
from asyncpipe.jobfile.models import JobIn
from asyncpipe.jobfile.placeholders import Cell, as_number, as_value, label_text
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.template import NO_DEFAULTS, OPEN_FIELDS, TEXT_FIELDS, Said, Template
from asyncpipe.media import LocalFiles

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

_FIELDS = tuple(name for name in JobIn.__annotations__ if name not in {*OPEN_FIELDS, "store"})
"""Those of a job that a column may say. (A column named store is a shop's.)"""


def table_template(columns: tuple[str, ...], files: LocalFiles) -> Template:
    """The template of a table of jobs; an empty cell says nothing."""
    own: Said = {}
    for at, name in enumerate(columns):
        if name in _FIELDS:
            own[name] = Cell(at, name, str if name in TEXT_FIELDS else as_number, optional=True)
        elif name.startswith(PARAM):
            cell = Cell(at, name, as_value, optional=True)
            own.setdefault("params", {})[name.removeprefix(PARAM)] = cell
        else:
            cell = Cell(at, name, label_text, optional=True)
            own.setdefault("labels", {})[name.removeprefix(LABEL)] = cell
    return Template(own, NO_DEFAULTS, None, files, varies=True)


def label_columns(columns: tuple[str, ...]) -> list[str]:
    """The columns that are kept and not sent."""
    return [name for name in columns if name not in _FIELDS and not name.startswith((PARAM, LABEL))]


def check_columns(columns: tuple[str, ...], problems: Problems) -> None:
    """Report columns that are meant for the job and would be labels as they are spelled."""
    labels = label_columns(columns)
    for name in columns:
        if (twin := name.removeprefix(LABEL)) != name and twin in labels:
            problems.report(f"columns {shown(twin)} and {shown(name)} are one label: rename one")
    for name in [name for name in labels if name not in OPEN_FIELDS]:
        lower = name.lower()
        if lower in MODEL_FIELDS or lower in _FIELDS:
            right = lower if lower in _FIELDS else f"params.{name}"
            problems.report(
                f"column {shown(name)}: to send it, call it {right}; to only keep it with the "
                f"results, labels.{name}"
            )
        elif hint := meant(name, [each for each in _FIELDS if each not in columns], cutoff=0.8):
            why = f"column {shown(name)}{hint}"
            problems.report(f"{why} To keep it as it is, call it labels.{name}")
    words = {"prompt"} if any(name.startswith(PARAM) for name in columns) else set()  # or params
    for name in ("model", "prompt"):
        if name not in {*columns, *words} and not problems.found:
            problems.report(
                f"no column {name}: a table of jobs needs model and prompt; it may have "
                f"{', '.join(_FIELDS)}, params.NAME and labels of your own. Other tables are rows: "
                "of a job file"
            )
