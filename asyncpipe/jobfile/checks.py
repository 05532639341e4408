"""Checks of single values: each returns what it was given, or says what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from asyncpipe._text import shown
from asyncpipe.jobfile.source import DEEPEST, Unclear, line_of

_NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*", re.ASCII)

Check = Callable[[Any], Any]

C = TypeVar("C", bound=Check)

Schema = dict[str, Any]
"""A JSON Schema."""

_SCHEMAS: dict[Check, Schema] = {}


def says(schema: Schema) -> Callable[[C], C]:
    """Note beside a check what it takes, as JSON Schema: ``asyncpipe schema`` prints it."""

    def note(check: C) -> C:
        _SCHEMAS[check] = schema
        return check

    return note


def schema_of(check: Check) -> Schema:
    """What ``check`` takes, as JSON Schema; ``{}`` where it says nothing."""
    return _SCHEMAS.get(check, {})


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong below a field: ``path`` from the field on, ``line`` where known."""

    message: str
    path: str = ""
    line: int | None = None


class Wrong(Exception):
    """A value does not fit its field."""

    def __init__(self, *faults: Fault | str) -> None:
        self.faults = [f if isinstance(f, Fault) else Fault(f) for f in faults]
        super().__init__("; ".join(fault.message for fault in self.faults))


@says({"type": "string", "pattern": r"\S"})
def text(value: Any) -> str:
    """Text with something in it."""
    if type(value) is str and value and not value.isspace():
        return value if value.isascii() else encodable(value)
    if isinstance(value, Unclear):
        raise Wrong(value.why)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Wrong("is empty: give it some text, or leave the key out")
    if isinstance(value, str):
        return encodable(str(value))
    if isinstance(value, Mapping | list | tuple):
        raise Wrong(f"is {shown(value)}, not text: text with {{, [, : or # in it needs quotes")
    kind = {bool: "a truth value", int: "a number", float: "a number"}.get(type(value))
    raise Wrong(f'{shown(value)} is {kind or "not text"}: put it in quotes, "{shown(value)}"')


def encodable(value: str) -> str:
    """Text that UTF-8 can say; JSON's escapes can say more."""
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        half = f"U+{ord(value[exc.start]):04X}"
        raise Wrong(f"holds half a character ({half}): write the character itself") from exc
    return value


@says({"type": "number"})
def number(value: Any) -> int | float:
    """A finite number, as it was written."""
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, Unclear):
        raise Wrong(value.why)
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            raise Wrong(f"{shown(value)} is text: write it without quotes, {value.strip()}")
        raise Wrong(f"{shown(value)} is text, not a number: write only the number, without a unit")
    if value is None:
        raise Wrong("is empty: give it a number, or leave the key out")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"{shown(value)} is not a number")
    _fit_for_json(value)  # first: a larger one is more than floats hold
    if not math.isfinite(value):
        raise Wrong(f"{value} is not a finite number")
    return value


def _fit_for_json(value: int | float) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Wrong(f"{shown(value)} is too large: a whole number has at most 64 bits")


def whole(minimum: int, maximum: int | None = None) -> Check:
    """Make the check for a whole number from ``minimum`` to ``maximum``."""
    limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    most = {} if maximum is None else {"maximum": maximum}

    @says({"type": "integer", "minimum": minimum, **most})
    def check(value: Any) -> int:
        value = number(value)
        if not isinstance(value, int):
            raise Wrong(f"{value} must be a whole number, {limits}")
        if value < minimum or (maximum is not None and value > maximum):
            raise Wrong(f"{value} must be {limits}")
        return value

    return check


@says({"type": "number", "exclusiveMinimum": 0})
def positive(value: Any) -> float:
    """A number greater than zero."""
    value = number(value)
    if value <= 0:
        raise Wrong(f"{value} must be greater than 0")
    return float(value)


@says({"type": "number", "minimum": 0})
def usd(value: Any) -> Decimal:
    """An amount of money, exactly as it was written."""
    value = number(value)
    if value < 0:
        raise Wrong(f"{value} is less than 0")
    # The shortest decimal that reads back as this float is the one the file says.
    return Decimal(repr(value))


@says({"type": "object"})
def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, still unchecked inside."""
    if isinstance(value, Unclear):
        raise Wrong(value.why)
    if not isinstance(value, Mapping):
        raise Wrong(f"is {shown(value)}, not a mapping: write lines of key: value below it")
    return value


MOST_VALUES = 10_000
"""Values in one job's ``params``: far beyond any model, far below an alias bomb."""


@says({"type": "object"})
def params(value: Any) -> dict[str, Any]:
    """Any values JSON has, copied; every fault inside is reported at once."""
    copier = _Copier()
    copied: dict[str, Any] = copier.copy(mapping(value), "", None)
    if copier.faults:
        raise Wrong(*copier.faults)
    return copied


MOST_LABELS = 200
"""Labels of one job: more than a spreadsheet's columns that anybody reads."""


@says(
    {
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": r"\S"},
        "maxProperties": MOST_LABELS,
    }
)
def labels(value: Any) -> dict[str, str]:
    """Names and texts of the user's own; every fault inside is reported at once."""
    found: dict[str, str] = {}
    faults: list[Fault] = []
    if len(mapping(value)) > MOST_LABELS:
        raise Wrong(f"has {len(value)} names; at most {MOST_LABELS} are allowed")
    for name, said in value.items():
        line = line_of(value, name, None)
        try:
            found[text(name)] = text(said)
        except Wrong as exc:
            faults += [Fault(fault.message, f".{name}", line) for fault in exc.faults]
    if faults:
        raise Wrong(*faults)
    return found


class _Copier:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._values = 0

    def copy(self, value: Any, path: str, line: int | None, depth: int = 0) -> Any:
        self._values += 1
        if self._values > MOST_VALUES or depth > DEEPEST:
            most = f"more than {MOST_VALUES} values" if depth <= DEEPEST else "nested too deep"
            raise Wrong(f"{most}: no model takes so many; check the aliases")
        if isinstance(value, Mapping):
            return {
                key: self.copy(inner, f"{path}.{key}", line_of(value, key, line), depth + 1)
                for key, inner in value.items()
                if self._is_key(key, path, line)
            }
        if isinstance(value, list | tuple):
            return [
                self.copy(inner, f"{path}[{n}]", line, depth + 1) for n, inner in enumerate(value)
            ]
        return self._scalar(value, path, line)

    def _is_key(self, key: Any, path: str, line: int | None) -> bool:
        if isinstance(key, str):
            return True
        self.faults.append(Fault(f"the key {shown(key)} is not text: put it in quotes", path, line))
        return False

    def _scalar(self, value: Any, path: str, line: int | None) -> Any:
        try:
            if value is None or isinstance(value, bool):
                return value
            if isinstance(value, str):
                return encodable(str(value))
            if isinstance(value, int | float | Unclear):
                return number(value)
        except Wrong as exc:
            self.faults += [Fault(fault.message, path, line) for fault in exc.faults]
            return None
        why = f"{shown(value)} cannot be sent as JSON: write it as text or number"
        self.faults.append(Fault(why, path, line))
        return None
