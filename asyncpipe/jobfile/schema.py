"""The JSON Schema of a job file, for editors: made of the models that check the fields."""

from __future__ import annotations

from typing import Any

TITLE = "asyncpipe job file"

_PLACEHOLDER = {"type": "string", "pattern": r"\{[^{}]+\}"}


def job_file_schema() -> dict[str, Any]:
    """The schema (draft 7, which editors know best) of a YAML or JSON job file."""
    from pydantic import TypeAdapter

    from asyncpipe.jobfile.models import IGNORED, DefaultsIn, JobIn, SettingsIn, TypedDefaultsIn

    named = [(each.__name__, TypeAdapter(each)) for each in (JobIn, DefaultsIn, SettingsIn)]
    _, found = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in named],
        ref_template="#/definitions/{model}",
    )
    definitions = _untitled(found["$defs"])
    for model in (JobIn, DefaultsIn, TypedDefaultsIn):
        fields = definitions[model.__name__]["properties"]
        fields |= {name: _fillable(schema) for name, schema in fields.items()}
    top = definitions.pop(SettingsIn.__name__)
    top["properties"]["defaults"] |= {"allOf": [{"$ref": f"#/definitions/{DefaultsIn.__name__}"}]}
    jobs = {"items": {"$ref": f"#/definitions/{JobIn.__name__}"}, "minItems": 1}
    top["properties"]["jobs"] |= {"type": "array", **jobs}
    return {
        **top,
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": TITLE,
        "type": ["object", "array"],
        **jobs,
        "patternProperties": {f"^{IGNORED}": {}},
        "required": ["jobs"],
        "definitions": definitions,
    }


def _untitled(schema: Any) -> Any:
    """Without titles: they say each key again, in capitals."""
    if isinstance(schema, list):
        return [_untitled(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    titled = isinstance(schema.get("title"), str)
    return {k: _untitled(v) for k, v in schema.items() if not (k == "title" and titled)}


def _fillable(schema: dict[str, Any]) -> dict[str, Any]:
    """A value, or text with a placeholder in it, where that is not allowed already."""
    if schema.get("type") in ("string", "object") or "$ref" in schema:
        return schema
    return {"anyOf": [schema, _PLACEHOLDER]}
