"""Whether a request body is what a model takes, said so that it can be corrected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asyncpipe._text import brief, meant, shown
from asyncpipe.jobs import BODY_FIELDS
from asyncpipe.providers.catalog.schema import Schema

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

ALWAYS = frozenset({"model", "prompt", "webhook_url"})
"""Fields that are never too much: every job has the first two, and the API itself reads the
third. What a schema says of ``model`` is left to the catalogue."""

MOST_SHOWN = 20
"""Allowed values, or fields, that a message lists at most."""

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

    What the library cannot hold (half characters, hundreds of levels), in a schema or in a body,
    is not checked: a schema is a help.
    """

    def __init__(self, schema: Schema) -> None:
        from jsonschema_rs import Draft202012Validator

        self.fields = tuple(schema["properties"])
        self._closed = schema.get("additionalProperties") is False
        self._schema = schema
        try:
            # Offline: with its default the library fetches what a $ref names.
            self._validator = Draft202012Validator(_with_always(schema), offline=True)
        except ValueError:
            self._validator = Draft202012Validator({}, offline=True)

    def faults(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Say what the model would refuse, one line per field: field, value, what is allowed."""
        try:
            if self._validator.is_valid(body):
                return ()
            errors = sorted(self._validator.iter_errors(body), key=self._place)
        except ValueError:
            return ()
        return tuple(_by_field(line for error in errors for line in self._told(error, body)))

    def unlisted(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Fields the schema neither lists nor forbids: the model may ignore or refuse them."""
        if self._closed:
            return ()
        return tuple(_named(name) for name in body if name not in {*ALWAYS, *self.fields})

    def _place(self, error: ValidationError) -> tuple[bool, list[int]]:
        """Where an error stands: in the order of the schema, those of the prompt last."""
        places: list[int] = []
        schema: Any = self._schema
        for step in error.schema_path:
            places.append(list(schema).index(step) if isinstance(step, str) else step)
            schema = schema[step]
        return _speaks_of_prompt(error), places

    def _told(self, error: ValidationError, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What one error says of which field, with the values and the words of schema and body."""
        *where, keyword = error.schema_path
        schema, value = _at(self._schema, where), _at(body, error.instance_path)
        path = ".".join(map(str, error.instance_path))
        inside = f"{path}." if path else ""
        if _speaks_of_prompt(error):
            yield _line("prompt", keyword, schema, value)
        elif keyword == "required":
            name = error.kind.value
            yield f"{inside}{name}", _missing(schema.get("properties", {}).get(name, {}))
        elif keyword == "additionalProperties":
            known = schema.get("properties", {})
            for name in value:
                if name not in known and (path or name not in ALWAYS):
                    yield f"{inside}{name}", _too_much(name, known)
        else:
            yield _line(path, keyword, schema, value)


def _speaks_of_prompt(error: ValidationError) -> bool:
    return error.instance_path[:1] == ["prompt"]


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _with_always(schema: Schema) -> Schema:
    """The schema, taking every ``model`` and, where it is closed, the fields of ALWAYS as well."""
    more = ALWAYS if schema.get("additionalProperties") is False else ()
    fields = {**{name: {} for name in more}, **schema["properties"], "model": {}}
    return {**schema, "properties": fields}


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


def _missing(schema: Schema) -> str:
    allowed = _allowed(schema)
    return f"missing, and the model requires it{f': {allowed}' if allowed else ''}"


def _too_much(name: str, known: Mapping[str, Any]) -> str:
    hint = meant(name, known) or f"; its own are {_some(k for k in known if k not in ALWAYS)}"
    return f"the model has no such field{hint}"


def _line(path: str, keyword: str | int, schema: Schema, value: Any) -> tuple[str, str]:
    allowed = _allowed(schema)
    if keyword == "anyOf":
        allowed = " or ".join(filter(None, (_allowed(part) for part in schema["anyOf"])))
    remedy = allowed or f"{keyword} is {shown(schema[str(keyword)])}"
    return path, f"{shown(value)} is not what the model takes: {remedy}"


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
