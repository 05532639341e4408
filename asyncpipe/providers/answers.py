"""What a provider's code answers, field by field of the type it should be: pure.

A slip in that code is the affair of one job. Unchecked it would reach the ledger, which stands or
falls for all of them, or the books.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from asyncpipe.errors import ProviderError, storable
from asyncpipe.jobs import Notes
from asyncpipe.pricing import MOST_USD
from asyncpipe.providers.base import Listed, Prediction, PredictionStatus

LONGEST_SHOWN = 80

MOST_CODE = 2**63 - 1
"""What fits a ledger's integer."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A prediction, each field of its type; ``faults`` says by field what was not."""

    prediction: Prediction
    faults: Mapping[str, str] = field(default_factory=dict)


def prediction_of(told: object, *, of: str) -> Heard:
    """What ``submit`` or ``poll`` (``of``) returned.

    A field that is not what it should be is taken for the least that it may mean. A status is known
    by its value, too; any other word is that of a prediction that runs, or has its outputs. An
    output that cannot be read is noted. Of a failed prediction whose cost is no amount nobody knows
    whether it is charged. Raises ProviderError for what is no Prediction.
    """
    if not isinstance(told, Prediction):
        text = f"the provider's {of} returned {_shown(told)}, which is no Prediction"
        raise ProviderError(f"{text}: it may have been bought" if of == "submit" else text)
    changes: dict[str, Any] = {}
    for name, mend in MENDS.items():
        value = getattr(told, name)
        if (mended := mend(value)) is not value:
            changes[name] = mended
    if not changes:
        return Heard(told)
    faults = {
        name: f"the provider's {of} returned a Prediction with {name}={_shown(value)}"
        for name, mended in changes.items()
        if not _means(value := getattr(told, name), mended)
    }
    return Heard(_agreeing(told, replace(told, **changes)), faults)


def _agreeing(told: Prediction, one: Prediction) -> Prediction:
    """The mended prediction, with what follows for its other fields."""
    notes = dict(one.notes)
    if told.status != one.status:  # which a known word is not
        word = storable(told.status)[:LONGEST_SHOWN]
        done = PredictionStatus.COMPLETED if one.outputs else PredictionStatus.RUNNING
        one, notes["status"] = replace(one, status=done, said=one.said or word), word
    if unread := [each for each in _listed(told.outputs) if not _is_text(each)]:
        notes["raw"] = _shown(unread)
    if one.status is PredictionStatus.FAILED and one.charged is None and told.charged is not None:
        one = replace(one, released=None)
    return replace(one, notes=notes)


def _means(value: object, mended: object) -> bool:
    """Whether a value says the same in another type: no fault worth a word."""
    if isinstance(mended, PredictionStatus):
        return isinstance(value, str)  # a word that is not known is told of by its prediction
    if isinstance(mended, tuple):
        return _listed(value) == [*mended]
    return mended == value or (isinstance(value, float) and str(value) == str(mended))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and storable(value) == value


def _word(value: object) -> str:
    if type(value) is str and storable(value) == value:
        return value
    return storable(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _maybe(value: object) -> str | None:
    if value is None or (type(value) is str and storable(value) == value):
        return value
    return storable(value)


def _status(value: object) -> PredictionStatus:
    if isinstance(value, PredictionStatus):
        return value
    try:
        return PredictionStatus(value) if isinstance(value, str) else PredictionStatus.RUNNING
    except ValueError:
        return PredictionStatus.RUNNING


def _listed(value: object) -> list[object]:
    if isinstance(value, list | tuple):
        return [*value]
    return [] if value is None else [value]


def _urls(value: object) -> tuple[str, ...]:
    if type(value) is tuple and all(map(_is_text, value)):
        return value
    return tuple(each for each in _listed(value) if isinstance(each, str) and _is_text(each))


def _code(value: object) -> int | None:
    if value is None or (type(value) is int and -MOST_CODE <= value <= MOST_CODE):
        return value
    return None


def _truth(value: object) -> bool | None:
    return value if value is None or isinstance(value, bool) else None


def _moderated(value: object) -> bool:
    return value if isinstance(value, bool) else value is not None


def _again(value: object) -> bool:
    return value if isinstance(value, bool) else False


def _amount(value: object) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = Decimal(str(value))
    if isinstance(value, Decimal) and value.is_finite() and 0 <= value <= MOST_USD:
        return value
    return None


_NOTES: Mapping[str, type | tuple[type, ...]] = {
    "nsfw": (list, tuple),
    "error": str,
    "status": str,
    "raw": str,
    "given": int,
    "asked": int,
    "extras": int,
    "moderated": bool,
}
"""The notes that something follows from, and what they are."""


def _notes(value: object) -> Notes:
    if not isinstance(value, dict):
        return {}
    kept = {
        name: said
        for name, said in value.items()
        if isinstance(said, _NOTES.get(name, object)) and _is_json({name: said})
    }
    return value if len(kept) == len(value) else kept


def _is_json(value: object) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


MENDS: Mapping[str, Callable[[Any], Any]] = {
    "id": _word,
    "status": _status,
    "outputs": _urls,
    "extras": _urls,
    "error": _maybe,
    "error_code": _code,
    "moderated": _moderated,
    "released": _truth,
    "again": _again,
    "route": _word,
    "request_id": _maybe,
    "said": _maybe,
    "charged": _amount,
    "notes": _notes,
}
"""What makes each field one of its type; the same object where it is."""


def sent_body(told: object) -> Mapping[str, Any] | None:
    """What ``body_of`` returned; None for what is no JSON object: nothing is found by it."""
    return told if isinstance(told, Mapping) and _is_json(dict(told)) else None


def told_route(told: object) -> str:
    """What ``route_of`` returned, as the ledger keeps it."""
    return _word(told)


def upload_url(told: object) -> str:
    """The URL that ``upload`` returned; raises ProviderError for what is none."""
    if isinstance(told, str) and _is_text(told):
        return told
    raise ProviderError(f"the provider's upload returned {_shown(told)}, which is no URL")


def listed_page(told: object) -> Sequence[Listed]:
    """One page that ``history`` yielded; raises ProviderError: to read nonsense proves nothing."""
    if isinstance(told, list | tuple) and all(map(_is_listed, told)):
        return told
    raise ProviderError(
        f"the provider's history has {_shown(told)}, which is no page of Listed predictions"
    )


def _is_listed(row: object) -> bool:
    if not isinstance(row, Listed):
        return False
    words: tuple[object, ...] = (row.id, row.model, row.status)
    created: object = row.created
    timed = isinstance(created, datetime) and created.utcoffset() is not None
    mapping: object = row.body
    known = mapping is None or isinstance(mapping, Mapping)
    return timed and known and all(isinstance(w, str) and storable(w) == w for w in words)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a bug in what shows it
        text = f"a {type(value).__name__}"
    text = storable(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
