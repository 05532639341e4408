"""From a model's OpenAPI document to the JSON Schema of its request body, made plain.

The documents come from a server and describe its wire, not ours: whatever in them is malformed,
unknown or too much is left out, and what is left out checks nothing. The result has no references
(nothing is ever fetched for one), no patterns (another dialect, and a way to hang us) and ``anyOf``
for ``oneOf`` (once parts are left out, two branches may fit where one did).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

MOST_PARTS = 5000
"""Schemas within one that are read at most, references followed: beyond it is no request body."""

DEEPEST = 32

_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})

_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")

_MOST_ALLOWED = 1000


class _TooMuch(Exception):
    """The document is larger than any model's."""


def read_schema(document: Any) -> Schema | None:
    """Return the schema of the request body, with at least one property; None if there is none.

    Looked for at ``components.schemas.Input``, then as the body of a POST under ``paths``, then as
    the document itself. Where only ``model`` and ``input`` are described, ``input`` is the body:
    the wire is flat.
    """
    for place in _places(document):
        try:
            schema = _Plain(document).plain(place)
        except _TooMuch:
            continue
        fields = schema.get("properties", {})
        if set(fields) <= {"model", "input"} and fields.get("input", {}).get("properties"):
            schema = fields["input"]
        if schema.get("properties"):
            return schema
    return None


def _places(document: Any) -> list[Any]:
    found = [_at(document, "components", "schemas", "Input")]
    for path in _values(_at(document, "paths")):
        content = _at(path, "post", "requestBody", "content")
        found += [_at(media, "schema") for media in _values(content)]
    return [place for place in [*found, document] if isinstance(place, Mapping)]


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _values(value: Any) -> list[Any]:
    return list(value.values())[:100] if isinstance(value, Mapping) else []


class _Plain:
    """Copies the parts of a schema that can be checked, references replaced by what they name."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._left = MOST_PARTS

    def plain(self, value: Any, within: tuple[str, ...] = (), depth: int = 0) -> Schema:
        """Copy one schema; {} for what is none, and for a reference back to where it stands."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuch
        if not isinstance(value, Mapping) or depth > DEEPEST:
            return {}
        ref = value.get("$ref")
        if isinstance(ref, str):
            inner: Schema = {}
            if ref not in within:
                inner = self.plain(self._named(ref), (*within, ref), depth + 1)
        else:
            inner = self._copied(value, within, depth + 1)
        return _or_null(inner) if value.get("nullable") is True else inner

    def _named(self, ref: str) -> Any:
        if not ref.startswith("#/"):
            return None
        names = [unquote(n).replace("~1", "/").replace("~0", "~") for n in ref[2:].split("/")]
        return _at(self._document, *names)

    def _copied(self, value: Mapping[str, Any], within: tuple[str, ...], depth: int) -> Schema:
        schema = {**_type(value), **_limits(value), **_allowed(value)}
        required = value.get("required")
        if isinstance(required, list):
            names = (name for name in required if isinstance(name, str))
            schema["required"] = list(dict.fromkeys(names))
        fields = value.get("properties")
        if isinstance(fields, Mapping):
            named = fields.items()
            schema["properties"] = {str(k): self.plain(v, within, depth) for k, v in named}
        if isinstance(value.get("items"), Mapping):
            schema["items"] = self.plain(value["items"], within, depth)
        others = value.get("additionalProperties")
        # With patterns left out, what they would have allowed must not count as too much.
        if others is False and not value.get("patternProperties"):
            schema["additionalProperties"] = False
        return self._joined(schema, value, within, depth)

    def _joined(
        self, schema: Schema, value: Mapping[str, Any], within: tuple[str, ...], depth: int
    ) -> Schema:
        every = self._list(value.get("allOf"), within, depth)
        for part in every:
            _merge(schema, part)
        either = self._list(value.get("anyOf") or value.get("oneOf"), within, depth)
        some = [part for part in either if part.get("type") != "null"]
        if len(some) == 1 and not schema.get("properties"):
            _merge(schema, some[0] if len(either) == 1 else _or_null(some[0]))
        elif either and all(either):
            schema["anyOf"] = either
        return schema

    def _list(self, value: Any, within: tuple[str, ...], depth: int) -> list[Schema]:
        parts = value if isinstance(value, list) else []
        return [self.plain(part, within, depth) for part in parts]


def _merge(schema: Schema, part: Schema) -> None:
    """Add ``part`` to ``schema``; fields and what is required come together, the first wins else.

    A part that allows no other fields knows only its own: that says nothing of the whole.
    """
    for name, value in part.items():
        if name == "properties":
            schema[name] = {**value, **schema.get(name, {})}
        elif name == "required":
            schema[name] = list(dict.fromkeys([*schema.get(name, []), *value]))
        elif name != "additionalProperties":
            schema.setdefault(name, value)


def _type(value: Mapping[str, Any]) -> Schema:
    told = value.get("type")
    kinds = [told] if isinstance(told, str) else told
    if not isinstance(kinds, list) or not kinds:
        return {}
    fit = all(isinstance(kind, str) and kind in _TYPES for kind in kinds)
    if not fit:
        return {}
    return {"type": told if isinstance(told, str) else list(dict.fromkeys(kinds))}


def _limits(value: Mapping[str, Any]) -> Schema:
    found: Schema = {n: value[n] for n in _NUMBERS if _is_number(value.get(n))}
    for plain, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if value.get(strict) is True and plain in found:  # OpenAPI 3.0 says it with a truth value
            found[strict] = found.pop(plain)
    if _is_number(value.get("multipleOf")) and value["multipleOf"] > 0:
        found["multipleOf"] = value["multipleOf"]
    counts = {n: value[n] for n in _COUNTS if _is_number(value.get(n)) and value[n] >= 0}
    return {**found, **{n: int(count) for n, count in counts.items() if count == int(count)}}


def _allowed(value: Mapping[str, Any]) -> Schema:
    options = value.get("enum")
    if isinstance(options, list) and 0 < len(options) <= _MOST_ALLOWED:
        return {"enum": list(options)}
    return {"enum": [value["const"]]} if "const" in value else {}


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _or_null(schema: Schema) -> Schema:
    """The same, and null as well."""
    wider = dict(schema)
    if "type" in wider:
        kinds = wider["type"] if isinstance(wider["type"], list) else [wider["type"]]
        wider["type"] = list(dict.fromkeys([*kinds, "null"]))
    if "enum" in wider:
        wider["enum"] = [*wider["enum"], None]
    if "anyOf" in wider:
        wider["anyOf"] = [*wider["anyOf"], {"type": "null"}]
    return wider
