"""Whether a body surely fits a schema: quick, and never yes where the full check says no.

A catalog's rows differ in a seed each, so that no answer can be remembered; the full check of a
million bodies takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncpipe.catalog.schema import Schema

_PLAIN_KEYS = frozenset(
    {
        *("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "title", "description", "default", "examples"),
    }
)

_WHOLE_KEYS = frozenset({"type", "properties", "required", "additionalProperties"})

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}

Test = Callable[[Any], bool]


class Quick:
    """Says yes to bodies that surely fit ``schema``; what it does not understand it says no to."""

    def __init__(self, schema: Schema, ignored: frozenset[str]) -> None:
        self._ignored = ignored
        self._open = schema.get("additionalProperties", True) is True
        self._required = frozenset(schema.get("required", ())) - {"model"}
        properties = schema["properties"]
        self._tests = {name: _test(inner) for name, inner in properties.items()}
        self._tests["model"] = lambda _: True  # left to the catalogue
        whole = schema.keys() <= _WHOLE_KEYS and schema.get("type", "object") == "object"
        self.usable = whole

    def fits(self, body: Mapping[str, Any]) -> bool:
        """Whether ``body`` surely fits."""
        if not self.usable or not self._required <= body.keys():
            return False
        for name, value in body.items():
            test = self._tests.get(name)
            if test is None:
                if not self._open and name not in self._ignored:
                    return False
            elif not test(value):
                return False
        return True


def _test(schema: Any) -> Test:
    if not isinstance(schema, Mapping) or not schema.keys() <= _PLAIN_KEYS:
        return lambda _: False
    said = schema.get("type", list(_TYPES))
    kinds = {kind for word in ([said] if isinstance(said, str) else said) for kind in _of(word)}
    low, high = _quick_limits(schema)
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", float("inf"))
    allowed = schema.get("enum")

    def test(value: Any) -> bool:
        kind = type(value)
        if kind not in kinds:
            return False
        if allowed is not None and not any(value == v and kind is type(v) for v in allowed):
            return False
        if kind is str:
            return bool(shortest <= len(value) <= longest)
        return kind not in (int, float) or bool(low < value < high)

    return test


def _of(word: Any) -> tuple[type, ...]:
    return _TYPES.get(word, ()) if isinstance(word, str) else ()


def _quick_limits(schema: Mapping[str, Any]) -> tuple[float, float]:
    """Open limits within which a number surely is; on the edge the full check judges."""
    infinite = float("inf")
    low = max(schema.get("minimum", -infinite), schema.get("exclusiveMinimum", -infinite))
    high = min(schema.get("maximum", infinite), schema.get("exclusiveMaximum", infinite))
    return low, high
