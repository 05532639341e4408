"""Request bodies against a model's schema: what is wrong is told, what is not known is allowed."""

from __future__ import annotations

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


@given(JSON, st.dictionaries(st.sampled_from("abcd"), SCHEMAS, min_size=1), BODIES, st.data())
def test_the_quick_check_never_passes_what_the_full_one_refuses(
    more: Any, fields: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    """Its yes is the full check's yes; where it is not sure it says no."""
    base = more if isinstance(more, dict) else {"required": more, "additionalProperties": more}
    schema = read_schema(api({**base, "properties": fields}))
    if schema is not None:
        inner = schema["properties"].get("a", {})
        values = [value, *inner.get("enum", []), inner.get("minimum", 0), 0, 1.0, True, ""]
        body = {"model": "m", "prompt": "p", "a": data.draw(st.sampled_from(values))}
        check = BodyCheck(schema)
        if check._quick.fits(body):
            check._quick.usable = False
            assert check.faults(body) == ()


def test_the_quick_check_knows_what_catalogues_say() -> None:
    """It is of use: ordinary bodies of ordinary schemas pass it; wrong ones do not."""
    whole = {"additionalProperties": False, "required": ["prompt", "duration"]}
    quick = check(**whole)._quick
    body = {"model": "m", "prompt": "p", "duration": 8, "seed": 5, "aspect_ratio": "9:16"}
    assert quick.fits({**body, "scale": 0.5})
    for wrong in ({"duration": 5}, {"seed": True}, {"seed": 100}, {"width": 1}, {"images": [3]}):
        assert not quick.fits({**body, **wrong})
    assert not quick.fits({"model": "m", "prompt": "p"})


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
    """What is remembered of a body leaves the prompt out, both ways."""
    judge = check()
    body = {"model": VEO, "seed": 500}
    assert len(judge.faults({**body, "prompt": "short"})) == 1
    assert len(judge.faults({**body, "prompt": "long " * 10})) == 2
    assert len(judge.faults({**body, "prompt": "short"})) == 1


def test_what_is_remembered_of_bodies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million seeds must not be a million entries."""
    monkeypatch.setattr("asyncpipe.providers.catalog.body._MOST_SEEN", 3)
    judge = check()
    for n in range(10):
        assert judge.faults({"model": VEO, "prompt": "", "seed": n}) == ()
        assert len(judge._seen) <= 3
