"""The open fields of a job: whatever JSON can say, copied and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncpipe._text import shown
from asyncpipe.jobfile.checks import Fault, Wrong, encodable, mapping, number, says, text
from asyncpipe.jobfile.source import DEEPEST, Unclear, line_of

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
