"""The JSON Schema of a job file, for editors: made of the tables that check the fields."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from asyncpipe.jobfile.checks import Check, Schema, schema_of, usd
from asyncpipe.jobfile.fields import DEFAULT_FIELDS, JOB_FIELDS
from asyncpipe.jobfile.prices import TIER_FIELDS
from asyncpipe.jobfile.settings import (
    DEADLINE_FIELDS,
    IGNORED,
    LIMIT_FIELDS,
    POLLING_FIELDS,
    TOP_FIELDS,
)
from asyncpipe.jobs import JobType
from asyncpipe.pricing import UNITS

TITLE = "asyncpipe job file"

_WORDS = {
    "output_dir": "Folder for the results, relative to where asyncpipe is called.",
    "max_workers": "Most predictions in flight at once.",
    "window": "Learn what the API takes, or keep max_workers in flight throughout.",
    "limits": "What the API is known to take: requests a second, predictions of a model at once.",
    "max_cost": "Most that the folder's jobs may cost in all, in USD.",
    "min_balance": "Submit nothing while the account holds less, in USD.",
    "estimate_factor": "How many times an estimated price is reserved.",
    "retries": "How often a failure that is not charged is submitted again.",
    "deadline_s": "Seconds a prediction may take, from its submit.",
    "prices": "USD per model: exactly one of per_image, per_second, per_job.",
    "defaults": "What jobs take where they say nothing themselves.",
    "rows": "A CSV, TSV or JSON Lines file, or a list: jobs are made for each row of it.",
    "matrix": "Lists by name: jobs are made for each combination of their values.",
    "jobs": "The jobs; with rows or matrix, templates with {column} in them.",
    "name": "What people and files call the job.",
    "type": "image or video, where the model id does not tell.",
    "model": "The provider's model id.",
    "params": "The model's own fields, sent as they are.",
    "count": "How many equal jobs to make: name-1, name-2 and so on.",
    "labels": "Your own words about the job: kept in manifest and export, never sent.",
    "duration": "Seconds of video.",
    "resolution": "As the model takes it, e.g. 1080p.",
}

_PLACEHOLDER: Schema = {"type": "string", "pattern": r"\{[^{}]+\}"}


def job_file_schema() -> Schema:
    """The schema (draft 7, which editors know best) of a YAML or JSON job file."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": TITLE,
        "type": ["object", "array"],
        "items": {"$ref": "#/definitions/job"},
        "minItems": 1,
        "properties": {key: _top(key, check) for key, check in TOP_FIELDS.items()},
        "patternProperties": {f"^{IGNORED}": {}},
        "additionalProperties": False,
        "required": ["jobs"],
        "definitions": {"job": _mapping(JOB_FIELDS), "default": _mapping(DEFAULT_FIELDS)},
    }


def _top(key: str, check: Check) -> Schema:
    return _told(key, _NESTED.get(key) or schema_of(check))


def _told(key: str, schema: Schema) -> Schema:
    return {"description": _WORDS[key], **schema} if key in _WORDS else schema


def _mapping(fields: Mapping[str, Check], **more: Schema) -> Schema:
    own = {key: _told(key, _fillable(schema_of(check))) for key, check in fields.items()}
    return {"type": "object", "properties": {**own, **more}, "additionalProperties": False}


def _fillable(schema: Schema) -> Schema:
    """A value, or text with a placeholder in it, where that is not allowed already."""
    if schema.get("type") in ("string", "object") or not schema:
        return schema
    return {"anyOf": [schema, _PLACEHOLDER]}


def _plain(fields: Mapping[str, Check]) -> Schema:
    own = {key: _told(key, schema_of(check)) for key, check in fields.items()}
    return {"type": "object", "properties": own, "additionalProperties": False}


def _defaults() -> Schema:
    typed: dict[str, Any] = {kind.value: {"$ref": "#/definitions/default"} for kind in JobType}
    return _mapping({"type": JOB_FIELDS["type"], **DEFAULT_FIELDS}, **typed)


_ONE_UNIT: Schema = {
    "not": {"anyOf": [{"required": list(pair)} for pair in combinations(UNITS, 2)]}
}

_UNITS: dict[str, Check] = dict.fromkeys(UNITS, usd)

_TIER = _plain({**TIER_FIELDS, **_UNITS}) | _ONE_UNIT

_TIERS: Schema = {"type": "array", "items": _TIER, "minItems": 1}

_RATE = _plain(_UNITS) | _ONE_UNIT | {"minProperties": 1}

_RATE["properties"] = {**_RATE["properties"], "tiers": _TIERS}

_LIMITS = {
    "requests_per_second": schema_of(LIMIT_FIELDS["requests_per_second"]),
    "models": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
}

_NESTED: dict[str, Schema] = {
    "deadline_s": {"anyOf": [schema_of(DEADLINE_FIELDS["image"]), _plain(DEADLINE_FIELDS)]},
    "polling": _plain(POLLING_FIELDS),
    "limits": _plain(LIMIT_FIELDS) | {"properties": _LIMITS},
    "prices": {"type": "object", "additionalProperties": _RATE},
    "defaults": _defaults(),
    "rows": {
        "anyOf": [
            {"type": "string", "pattern": r"\S"},
            {"type": "array", "items": {"type": "object", "minProperties": 1}, "minItems": 1},
        ]
    },
    "matrix": {
        "type": "object",
        "additionalProperties": {"type": "array", "minItems": 1, "uniqueItems": True},
        "minProperties": 1,
    },
    "jobs": {"type": "array", "items": {"$ref": "#/definitions/job"}, "minItems": 1},
}
