"""Find a model by its id, or the ids that were probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asyncpipe.catalog.models import CatalogModel
from asyncpipe.jobs.job import type_of_model

MOST_NEAR = 3
"""Ids that are suggested at most."""

_TASK = re.compile(r"/(?:text|image|reference|video)-to-(?:image|video|audio)$")

_VERSION = re.compile(r"(?<=[^a-z0-9])v(?=[0-9])")

_CUTOFF = 0.72


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """What the catalogue says of one id.

    ``model`` is there when it is known; else ``near`` are ids that may be meant, best first, and
    ``sure`` the one model that the id is only another spelling of.
    """

    id: str
    model: CatalogModel | None = None
    near: tuple[str, ...] = ()
    sure: CatalogModel | None = None


def look_up(ids: Iterable[str], models: Sequence[CatalogModel]) -> dict[str, Lookup]:
    """Look each id up; hidden models are known, but never suggested."""
    known = {model.id: model for model in models}
    return {
        each: Lookup(id=each, model=known[each]) if each in known else _near(each, models)
        for each in dict.fromkeys(ids)
    }


def _near(wrong: str, models: Sequence[CatalogModel]) -> Lookup:
    kind = type_of_model(wrong)
    fitting = [m for m in models if m.shown and (kind is None or m.type in (kind.value, ""))]
    for spelled in (_spelled, lambda text: _spelled(_TASK.sub("", text))):
        same = [m for m in fitting if spelled(m.id) == spelled(wrong)]
        if same:
            sure = same[0] if len(same) == 1 else None
            return Lookup(id=wrong, near=tuple(m.id for m in same[:MOST_NEAR]), sure=sure)
    return Lookup(id=wrong, near=_alike(wrong, [m.id for m in fitting]))


def _spelled(model_id: str) -> str:
    """An id without what people write one way or the other: case, ``v2`` for ``2``, dashes."""
    return re.sub(r"[^a-z0-9/]", "", _VERSION.sub("", model_id.lower()))


def _alike(wrong: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Ids alike in what is their own: that two end in text-to-video makes them no likelier."""
    own: dict[str, list[str]] = {}
    for each in ids:
        own.setdefault(_TASK.sub("", each.lower()), []).append(each)
    stem = _TASK.sub("", wrong.lower())
    close = difflib.get_close_matches(stem, list(own), n=MOST_NEAR, cutoff=_CUTOFF)
    return tuple(each for key in close for each in own[key])[:MOST_NEAR]
