"""What is said of a value that does not fit its field: words and remedy by the kind of error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from asyncpipe._registry import no_provider
from asyncpipe._text import shown
from asyncpipe.jobfile.source import Unclear
from asyncpipe.jobs import AMBIGUOUS, LONGEST_KEY, POLICIES, WINDOWS, any_type
from asyncpipe.pricing import CONDITIONS, MOST_FACTOR, MOST_USD, UNITS

Words = Callable[[Any, Mapping[str, Any]], str]
"""From a value that does not fit, and what the model says of its limits, to what is told."""

_NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*", re.ASCII)


def words_for(kind: str, value: Any, limits: Mapping[str, Any]) -> str:
    """What is wrong with ``value``, and what to do; ``kind`` is the model's type of error."""
    return value.why if isinstance(value, Unclear) else WORDS[kind](value, limits)


def _no_text(value: Any) -> str:
    """Why a value is no text with something in it that UTF-8 can say; empty where it is."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "is empty: give it some text, or leave the key out"
    if isinstance(value, str):
        half = next((char for char in value if "\ud800" <= char <= "\udfff"), None)
        why = f"holds half a character (U+{ord(half or ' '):04X}): write the character itself"
        return why if half else ""
    if isinstance(value, Mapping | list | tuple):
        return f"is {shown(value)}, not text: text with {{, [, : or # in it needs quotes"
    kind = {bool: "a truth value", int: "a number", float: "a number"}.get(type(value))
    return f'{shown(value)} is {kind or "not text"}: put it in quotes, "{shown(value)}"'


def _no_number(value: Any) -> str:
    """Why a value is no number that JSON and 64 bits can say; empty where it is."""
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return f"{shown(value)} is text: write it without quotes, {value.strip()}"
        return f"{shown(value)} is text, not a number: write only the number, without a unit"
    if value is None:
        return "is empty: give it a number, or leave the key out"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{shown(value)} is not a number"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{shown(value)} is too large: a whole number has at most 64 bits"
    return "" if math.isfinite(value) else f"{value} is not a finite number"


def _text(wrong: Words = lambda value, limits: "") -> Words:
    """For a field that takes text: ``wrong`` says what is amiss with one."""
    return lambda value, limits: _no_text(value) or wrong(value, limits)


def _number(wrong: Words = lambda value, limits: "") -> Words:
    """For a field that takes a number: ``wrong`` says what is amiss with one."""
    return lambda value, limits: _no_number(value) or wrong(value, limits)


def _model(value: Any, limits: Mapping[str, Any]) -> str:
    if len(value) > limits["most"]:
        return f"{shown(value)} is longer than any model id: correct it"
    return f"{shown(value)} has spaces in it, a model id has none: delete them"


def _resolution(value: Any, limits: Mapping[str, Any]) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{shown(value)} is a number: write it as the model takes it, e.g. 1080p"
    return _no_text(value)


def _media(value: Any, limits: Mapping[str, Any]) -> str:
    each_of = value if isinstance(value, list | tuple) else [value]
    wrong = next(each for each in each_of if isinstance(each, Unclear) or _no_text(each))
    return words_for("text", wrong, limits)


def _whole(value: Any, limits: Mapping[str, Any]) -> str:
    kind = "" if isinstance(value, int) else "a whole number, "
    return f"{value} must be {kind}{limits['limits']}"


def _less_than_0(value: Any, limits: Mapping[str, Any]) -> str:
    return f"{value} is less than 0"


def _factor(value: Any, limits: Mapping[str, Any]) -> str:
    if value < 0:
        return _less_than_0(value, limits)
    return f"{value} must be from 1 to {MOST_FACTOR}: how many times as much to reserve"


def _value(value: Any, limits: Mapping[str, Any]) -> str:
    why = {str: _no_text, int: _no_number, float: _no_number}.get(type(value), lambda value: "")
    return why(value) or f"{shown(value)} cannot be sent as JSON: write it as text or number"


def _rate(said: Any, limits: Mapping[str, Any]) -> str:
    number = isinstance(said, int | float) and not isinstance(said, bool)
    amount = said if number and abs(said) < MOST_USD else 0.04
    wrong = f"has {len(said)} keys" if isinstance(said, Mapping) else f"{shown(said)} is no rate"
    return f"{wrong}; give exactly one of {', '.join(UNITS)}, e.g. {{per_image: {amount}}}"


def _tier(said: Any, limits: Mapping[str, Any]) -> str:
    wrong = "" if isinstance(said, Mapping) else f"{shown(said)} is no tier; "
    return (
        f"{wrong}a tier is at least one of {', '.join(CONDITIONS)} and exactly one of "
        f"{', '.join(UNITS)}, e.g. {{audio: true, per_second: 0.4}}"
    )


_CHECK_ALIASES = "no model takes so many; check the aliases"

WORDS: dict[str, Words] = {
    "text": _text(),
    "prompt": _text(
        lambda value, limits: (
            f"is {len(value.encode())} bytes long; at most {limits['most']} are allowed: shorten it"
        )
    ),
    "model": _text(_model),
    "resolution": _resolution,
    "media": _media,
    "job_type": lambda value, _: f"{shown(value)} is not a type: write {any_type()}",
    "fallback": lambda value, _: (
        f"{shown(value)} must be a list of models, each MODEL or PROVIDER:MODEL"
    ),
    "provider": _text(lambda value, _: no_provider(value)),
    "window": _text(lambda value, _: f"{shown(value)} must be {' or '.join(WINDOWS)}"),
    "ambiguous": _text(lambda value, _: f"{shown(value)} must be one of {', '.join(AMBIGUOUS)}"),
    "policy": _text(lambda value, _: f"{shown(value)} must be one of {', '.join(POLICIES)}"),
    "day": _text(lambda value, _: f'{shown(value)} is not a date: write it like "2026-11-25"'),
    "size": _text(
        lambda value, _: f"{shown(value)} is no size: write width x height, like 1024x1024"
    ),
    "switch": lambda value, _: f"{shown(value)} is neither true nor false",
    "budget": lambda value, _: f"{shown(value)} is neither day nor label:NAME=VALUE",
    "key_text": lambda value, _: f"must be a text of 1 to {LONGEST_KEY} printable characters",
    "number": _number(),
    "whole": _number(_whole),
    "positive": _number(lambda value, _: f"{value} must be greater than 0"),
    "duration": _number(
        lambda value, _: (
            f"{value} must be seconds, greater than 0 (or auto, or -1, where models choose)"
        )
    ),
    "usd": _number(_less_than_0),
    "factor": _number(_factor),
    "mapping": lambda value, _: (
        f"is {shown(value)}, not a mapping: write lines of key: value below it"
    ),
    "too_long": lambda value, limits: (
        f"has {len(value)} names; at most {limits['max_length']} are allowed"
    ),
    "key": lambda value, _: f"the key {shown(value)} is not text: put it in quotes",
    "value": _value,
    "too_much": lambda _, limits: f"more than {limits['most']} values: {_CHECK_ALIASES}",
    "too_deep": lambda *_: f"nested too deep: {_CHECK_ALIASES}",
    "said": lambda _, limits: str(limits["why"]),
    "rate": _rate,
    "tier": _tier,
    "tiers": lambda value, _: (
        f"is {shown(value)}: write a list of tiers, each like {{audio: true, per_second: 0.4}}"
    ),
}
WORDS |= {"dict_type": WORDS["mapping"], "list_type": WORDS["tiers"], "too_short": WORDS["tiers"]}
"""The words for each kind: pydantic's own types of error, and those that ``models`` names."""
