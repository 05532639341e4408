"""Which fields a job has, and what may stand in each."""

from __future__ import annotations

from typing import Any

from asyncpipe._text import shown
from asyncpipe.jobfile.checks import (
    Check,
    Wrong,
    labels,
    number,
    params,
    positive,
    says,
    text,
    whole,
)
from asyncpipe.jobfile.source import Unclear
from asyncpipe.jobs import BODY_FIELDS, DIRECT_FIELDS, JobType, any_type

MOST_COPIES = 10_000
"""The largest ``count``."""

MOST_PROMPT_BYTES = 1_000_000
"""Longer prompts and names are files pasted by mistake; no model takes them."""

MOST_MODEL = 300
"""Characters of a model id."""


@says({"type": "string", "pattern": r"\S", "maxLength": MOST_PROMPT_BYTES})
def prompt(value: Any) -> str:
    """A prompt, or a name, of a sane length."""
    value = text(value)
    size = len(value) if 4 * len(value) <= MOST_PROMPT_BYTES else len(value.encode())
    if size > MOST_PROMPT_BYTES:
        raise Wrong(f"is {size} bytes long; at most {MOST_PROMPT_BYTES} are allowed: shorten it")
    return str(value)


@says({"type": "string", "pattern": r"^\S+$", "maxLength": MOST_MODEL})
def model(value: Any) -> str:
    """A model id: text without any space."""
    value = text(value)
    if len(value) > MOST_MODEL:
        raise Wrong(f"{shown(value)} is longer than any model id: correct it")
    if value.split() != [value]:
        raise Wrong(f"{shown(value)} has spaces in it, a model id has none: delete them")
    return str(value)


@says({"enum": [kind.value for kind in JobType]})
def job_type(value: Any) -> JobType:
    """A job type by its name."""
    legal = [kind.value for kind in JobType]
    if isinstance(value, str) and value in legal:
        return JobType(value)
    if isinstance(value, Unclear):
        raise Wrong(value.why)
    raise Wrong(f"{shown(value)} is not a type: write {any_type()}")


@says({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": -1}, {"const": "auto"}]})
def duration(value: Any) -> int | float | str:
    """Seconds as the model takes them; -1 and ``auto`` leave them to models that can choose."""
    if value == "auto":
        return "auto"
    seconds = number(value)
    if seconds <= 0 and seconds != -1:
        raise Wrong(
            f"{seconds} must be seconds, greater than 0 (or auto, or -1, where models choose)"
        )
    return seconds


@says({"type": "string", "pattern": r"\S"})
def resolution(value: Any) -> str:
    """Text such as 1080p."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise Wrong(f"{shown(value)} is a number: write it as the model takes it, e.g. 1080p")
    return text(value)


def media(value: Any) -> Any:
    """A path or URL, or a list of them."""
    if not isinstance(value, list | tuple):
        return text(value)
    return [text(each) for each in value]


_BODY: dict[str, Check] = dict(
    zip(BODY_FIELDS, (whole(1), whole(1), duration, resolution), strict=True)
)

MEDIA: dict[str, Check] = dict.fromkeys(DIRECT_FIELDS, media)
"""Fields of the body as well; not in ``defaults``, where ``image`` is for jobs of that type."""

DEFAULT_FIELDS: dict[str, Check] = {
    "model": model,
    "prompt": prompt,
    **_BODY,
    "params": params,
    "retries": whole(0),
    "deadline_s": positive,
    "labels": labels,
}

JOB_FIELDS: dict[str, Check] = {
    "name": prompt,
    "type": job_type,
    **DEFAULT_FIELDS,
    **MEDIA,
    "count": whole(1, MOST_COPIES),
}
