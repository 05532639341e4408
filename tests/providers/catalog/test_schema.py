"""Schemas of models: read as documents write them, without ends and without fetching."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.schema import MOST_PARTS, read_schema
from tests.support.catalog import api


def test_a_body_is_found_behind_its_references() -> None:
    """Through the POST of a path, escapes in the pointer included."""
    part = {"type": "string", "enum": ["a"]}
    document = {
        "paths": {
            "/x": {
                "get": {},
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/bodies/of~1x%20y"}}}
                    }
                },
            }
        },
        "bodies": {"of/x y": {"properties": {"size": {"$ref": "#/part"}}, "required": ["size"]}},
        "part": part,
    }
    assert read_schema(document) == {"properties": {"size": part}, "required": ["size"]}


def test_a_reference_back_or_out_checks_nothing() -> None:
    """Nothing with a reference is left, so nothing can be fetched for one."""
    schema = read_schema(
        api(
            {
                "properties": {
                    "again": {"$ref": "#/components/schemas/Input"},
                    "and_again": {"$ref": "#/components/schemas/Input"},
                    "out": {"$ref": "http://127.0.0.1:9/x.json"},
                    "nowhere": {"$ref": "#/no/where"},
                }
            }
        )
    )
    assert schema is not None
    assert "$ref" not in json.dumps(schema)
    assert schema["properties"]["out"] == schema["properties"]["nowhere"] == {}
    assert BodyCheck(schema).faults({"prompt": "", "out": 1, "again": {"out": 2}}) == ()


def test_a_schema_that_unfolds_without_end_is_none() -> None:
    """Thirty references, each to two of the next: a billion parts."""
    doubled = {
        f"L{n}": {"allOf": [{"$ref": f"#/L{n + 1}"}, {"$ref": f"#/L{n + 1}"}]} for n in range(30)
    }
    assert read_schema({**doubled, **api({"properties": {"a": {"$ref": "#/L0"}}})}) is None
    wide: dict[str, Any] = {str(n): {} for n in range(MOST_PARTS)}
    assert read_schema(api({"properties": wide})) is None


@pytest.mark.parametrize("document", [None, [], {}, "x", {"paths": 3}, api(None), api({})])
def test_no_usable_schema_is_none(document: Any) -> None:
    assert read_schema(document) is None


def test_a_nested_input_is_the_flat_body() -> None:
    """Some documents describe an ``input`` object; the wire has none."""
    inner = {"type": "object", "properties": {"size": {"type": "string"}}}
    body = {"properties": {"model": {}, "input": inner}, "required": ["model", "input"]}
    assert read_schema(api(body)) == inner


def test_null_is_allowed_in_each_dialect() -> None:
    """``nullable``, and anyOf with null; 3.0's exclusive limits as well."""
    fields = {
        "a": {"type": "integer", "nullable": True, "enum": [1]},
        "b": {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "null"}]},
        "c": {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
    }
    judge = BodyCheck(read_schema(api({"properties": fields})) or {})
    assert judge.faults({"prompt": "", "a": None, "b": None, "c": 2}) == ()
    assert len(judge.faults({"prompt": "", "a": 2, "b": 4, "c": 1})) == 3


def test_what_we_do_not_understand_forbids_nothing() -> None:
    """Malformed keywords, patterns of another dialect, oneOf with overlapping branches."""
    fields = {
        "a": {"type": "file"},
        "A": {"type": [[]]},
        "b": {"minimum": "4", "maxLength": -1, "enum": [], "multipleOf": 0},
        "c": {"type": "string", "pattern": r"^(\p{L}+)+$", "format": "uri"},
        "d": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    }
    schema = read_schema(api({"properties": fields, "required": True, "not": {}}))
    assert schema is not None
    assert BodyCheck(schema).faults({"prompt": "", "a": 1, "b": 0, "c": "a" * 40, "d": 1}) == ()
