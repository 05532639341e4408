"""Whether a request body is what a model takes, said so that it can be corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from asyncpipe._text import brief, meant, shown
from asyncpipe.jobs import BODY_FIELDS
from asyncpipe.providers.catalog.schema import Schema

ALWAYS = frozenset({"model", "prompt", "webhook_url"})
"""Fields that are never too much: every job has the first two, and the API itself reads the
third. What a schema says of ``model`` is left to the catalogue."""

MOST_SHOWN = 20
"""Allowed values, or fields, that a message lists at most."""

_MOST_SEEN = 1000
"""Bodies whose faults are remembered: a file may have a million, each with a seed of its own."""

_KINDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


class BodyCheck:
    """Checks request bodies of one model; ``schema`` is what ``read_schema`` returns.

    Bodies that differ in the prompt alone are checked once: a batch has many of those.
    """

    def __init__(self, schema: Schema) -> None:
        from jsonschema import Draft202012Validator
        from referencing import Registry

        prompt = schema["properties"].get("prompt", {})
        self.fields = tuple(schema["properties"])
        self._closed = schema.get("additionalProperties") is False
        # An empty registry: with its default one the library fetches what a $ref names.
        self._whole = Draft202012Validator(schema, registry=Registry())
        self._prompt = Draft202012Validator(prompt, registry=Registry())
        self._seen: dict[bytes, tuple[str, ...]] = {}
        self._quick = Quick(schema, ALWAYS)

    def faults(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Say what the model would refuse, one line per field: field, value, what is allowed."""
        if self._quick.fits(body):
            return ()
        rest = {name: value for name, value in body.items() if name != "prompt"}
        same = orjson.dumps([rest, "prompt" in body], option=orjson.OPT_SORT_KEYS)
        told = self._seen.get(same)
        if told is None:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            told = self._seen[same] = tuple(self._rest(body))
        errors = self._prompt.iter_errors(body["prompt"]) if "prompt" in body else ()
        return (*told, *_by_field(_line("prompt", error) for error in errors))

    def unlisted(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Fields the schema neither lists nor forbids: the model may ignore or refuse them."""
        if self._closed:
            return ()
        return tuple(_named(name) for name in body if name not in {*ALWAYS, *self.fields})

    def _rest(self, body: Mapping[str, Any]) -> Iterator[str]:
        lines: list[tuple[str, str]] = []
        for error in self._whole.iter_errors(body):
            path = [str(step) for step in error.absolute_path]
            if path[:1] in (["model"], ["prompt"]):
                continue
            lines += self._told(".".join(path), error)
        return _by_field(lines)

    def _told(self, path: str, error: Any) -> Iterator[tuple[str, str]]:
        if error.validator == "required":
            for name in error.validator_value:
                if name not in error.instance:
                    yield _missing(f"{path}.{name}" if path else name, error)
        elif error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            free = frozenset() if path else ALWAYS
            for name in error.instance:
                if name not in known and name not in free:
                    yield _too_much(f"{path}.{name}" if path else name, name, known)
        else:
            yield _line(path, error)


def _by_field(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One line for each field: what else is wrong with it follows from the first."""
    first: dict[str, str] = {}
    for path, text in lines:
        first.setdefault(path, text)
    return (f"{_named(path)}: {text}" for path, text in first.items())


def _named(path: str) -> str:
    """A field by where it stands in a job file."""
    name = brief(" ".join(path.split()))
    return name if path.partition(".")[0] in {*BODY_FIELDS, *ALWAYS} else f"params.{name}"


def _missing(path: str, error: Any) -> tuple[str, str]:
    inner = error.schema.get("properties", {}).get(path.rpartition(".")[2], {})
    allowed = _allowed(inner)
    return path, f"missing, and the model requires it{f': {allowed}' if allowed else ''}"


def _too_much(path: str, name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    hint = meant(name, known) or f"; its own are {_some(k for k in known if k not in ALWAYS)}"
    return path, f"the model has no such field{hint}"


def _line(path: str, error: Any) -> tuple[str, str]:
    value, allowed = shown(error.instance), _allowed(error.schema)
    if error.validator == "anyOf":
        allowed = " or ".join(filter(None, (_allowed(part) for part in error.validator_value)))
    remedy = allowed or f"{error.validator} is {shown(error.validator_value)}"
    return path, f"{value} is not what the model takes: {remedy}"


def _allowed(schema: Schema) -> str:
    """What a schema allows, in words; "" where it says nothing short."""
    if "enum" in schema:
        return _some(shown(value) for value in schema["enum"])
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    words = " or ".join(_KINDS[kind] for kind in kinds)
    limits = ", ".join(_limits(schema))
    return f"{words} {limits}" if words and limits else words or limits


def _limits(schema: Schema) -> Iterator[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"from {low} to {high}"
    elif low is not None or high is not None:
        yield f"at least {low}" if high is None else f"at most {high}"
    for name, words in (
        ("exclusiveMinimum", "above"),
        ("exclusiveMaximum", "below"),
        ("multipleOf", "in steps of"),
    ):
        if name in schema:
            yield f"{words} {schema[name]}"
    for unit, least, most in (
        ("characters", "minLength", "maxLength"),
        ("values", "minItems", "maxItems"),
    ):
        if least in schema:
            yield f"with at least {schema[least]} {unit}"
        if most in schema:
            yield f"with at most {schema[most]} {unit}"


def _some(words: Iterable[str]) -> str:
    listed = [brief(" ".join(str(word).split())) for word in words]
    more = f" and {len(listed) - MOST_SHOWN} more" if len(listed) > MOST_SHOWN else ""
    return ", ".join(listed[:MOST_SHOWN]) + more


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
