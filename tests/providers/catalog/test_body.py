"""Request bodies against a model's schema: what is wrong is told, what is not known is allowed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.schema import read_schema
from tests.support.catalog import VEO, api, check


def faults(body: dict[str, Any], **changes: Any) -> tuple[str, ...]:
    return check(**changes).faults({"model": VEO, "prompt": "mug", **body})


KEYWORDS = [
    *("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "nullable"),
    *("minLength", "maxItems", "items", "properties", "required", "additionalProperties", "$ref"),
    *("allOf", "anyOf", "oneOf", "a"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS) | st.text(max_size=2),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
SCHEMAS = JSON | st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "object", ["string", "null"], "array"])},
    optional={"minimum": JSON, "enum": JSON, "items": JSON, "required": JSON, "anyOf": JSON},
)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(JSON, st.dictionaries(st.sampled_from("abcd"), SCHEMAS, min_size=1), BODIES)
def test_no_schema_breaks_the_check(more: Any, fields: dict[str, Any], value: Any) -> None:
    """Whatever a server calls a schema: it is none, or it judges; it never raises."""
    base = more if isinstance(more, dict) else {"required": more, "additionalProperties": more}
    schema = read_schema(api({**base, "properties": fields}))
    if schema is not None:
        told = BodyCheck(schema).faults({"model": "m", "prompt": "p", "a": value, "b": value})
        assert all(": " in line and "\n" not in line for line in told)


@pytest.mark.parametrize(
    "field",
    [
        {"enum": ["\ud800"]},
        {"type": "object", "properties": {"\ud800": {}}},
        {"type": "string", "minLength": 2.5, "maxLength": 10**30},
        {"type": ["string", "string"], "nullable": True},
        {"type": "object", "required": ["b", "b"], "allOf": [{"required": ["b"]}]},
        {"enum": [float("nan"), 10**400], "minimum": 10**400},
    ],
)
def test_a_schema_that_is_none_checks_nothing_and_breaks_nothing(field: dict[str, Any]) -> None:
    """What a server sends may be no schema to the library; the batch goes on unchecked."""
    schema = read_schema(api({"type": "object", "properties": {"a": field}}))
    assert schema is not None
    assert BodyCheck(schema).faults({"model": "m", "prompt": "p"}) == ()


@pytest.mark.parametrize("value", [{1: 2}, {"\ud800": 1}, object(), 10**400])
def test_a_body_that_is_no_json_is_left_to_who_sends_it(value: Any) -> None:
    assert faults({"a": value}) == ()


def test_the_library_is_loaded_when_a_schema_is_there() -> None:
    """A command that checks nothing does not wait for it."""
    code = "import sys, asyncpipe.providers.catalog; sys.exit('jsonschema_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_legal_body_has_no_faults() -> None:
    body = {"duration": 8, "seed": -1, "aspect_ratio": "9:16", "scale": 0.5, "images": ["x"]}
    assert faults(body, additionalProperties=False, required=["prompt", "duration"]) == ()
    assert faults({"webhook_url": "https://x.example"}, additionalProperties=False) == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"duration": 5}, "duration: 5 is not what the model takes: 4, 6, 8"),
        ({"duration": "8"}, "duration: '8' is not what the model takes: 4, 6, 8"),
        ({"seed": 100}, "params.seed: 100 is not what the model takes: a whole number from -1 to"),
        ({"seed": 1.5}, "params.seed: 1.5 is not what the model takes: a whole number from -1"),
        ({"seed": True}, "params.seed: true is not what"),
        ({"aspect_ratio": "4:3"}, "params.aspect_ratio: '4:3' is not what the model takes: '16:9'"),
        ({"scale": 0}, "params.scale: 0 is not what the model takes: a number above 0"),
        ({"images": ["a", 3]}, "params.images.1: 3 is not what the model takes: text"),
        ({"images": ["a"] * 3}, "params.images: a list is not what the model takes: a list with"),
        ({"prompt": "x" * 21}, "prompt: 'xxxxxxxxxxxxxxxxxxxxx' is not what"),
        ({"aspect_ratios": "16:9"}, "params.aspect_ratios: the model has no such field: did you"),
        ({"width": 2048}, "width: the model has no such field; its own are duration, seed,"),
    ],
)
def test_a_fault_names_field_value_and_what_is_allowed(body: dict[str, Any], said: str) -> None:
    (told,) = faults(body, additionalProperties=False)
    assert told.startswith(said)


def test_what_is_missing_is_named_with_what_it_takes() -> None:
    told = faults({}, required=["model", "prompt", "duration", "seed"])
    assert told == (
        "duration: missing, and the model requires it: 4, 6, 8",
        "params.seed: missing, and the model requires it: a whole number from -1 to 99",
    )


def test_unlisted_fields_are_told_where_nothing_forbids_them() -> None:
    """An open schema may ignore or take them: no fault, a note."""
    body = {"model": VEO, "prompt": "", "width": 5, "loras": [], "seed": 3}
    assert check().unlisted(body) == ("width", "params.loras")
    assert check().faults(body) == ()
    assert check(additionalProperties=False).unlisted(body) == ()


def test_equal_bodies_keep_their_own_prompts_faults() -> None:
    """Nothing of one body is told of the next."""
    judge = check()
    body = {"model": VEO, "seed": 500}
    assert len(judge.faults({**body, "prompt": "short"})) == 1
    assert len(judge.faults({**body, "prompt": "long " * 10})) == 2
    assert len(judge.faults({**body, "prompt": "short"})) == 1


def test_the_faults_come_in_the_order_of_the_schema_the_prompts_last() -> None:
    body = {"images": 5, "prompt": "x" * 21, "seed": 500, "width": 1}
    told = faults(body, additionalProperties=False, required=["duration"])
    fields = [line.partition(":")[0] for line in told]
    assert fields == ["duration", "params.seed", "params.images", "width", "prompt"]


def test_steps_are_counted_as_they_are_written() -> None:
    """0.3 is three steps of 0.1, whatever binary fractions make of it."""
    fields = {"strength": {"type": "number", "multipleOf": 0.1}}
    assert faults({"strength": 0.3}, properties=fields) == ()
    assert len(faults({"strength": 0.35}, properties=fields)) == 1
