"""Which listed prediction is which lost submit's: pure, over all lost submits of an account."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from asyncpipe.jobs import canonical_json
from asyncpipe.providers import Listed

SKEW = timedelta(seconds=120)
"""So far the provider's clock may be off."""

Body: TypeAlias = Mapping[str, Any]

Place: TypeAlias = tuple[int, int]
"""A job's id, and the number of its attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LostSubmit:
    """One attempt whose answer was lost at ``lost_at``, at the latest.

    ``body`` is the request as it was sent; None: nobody knows any more. ``waits``: its job waits
    for it, and has not gone on. ``ripe``: so long ago that the provider should list what it made.
    """

    place: Place
    body: Body | None
    intended_at: datetime
    lost_at: datetime
    waits: bool = True
    ripe: bool = False

    @property
    def since(self) -> datetime:
        """Its prediction is not older, by the provider's clock."""
        return self.intended_at - SKEW


@dataclass(frozen=True, kw_only=True, slots=True)
class Own:
    """A prediction that a job of this ledger has; ``body`` as for lost submits."""

    body: Body | None
    intended_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One complete reading of the provider's list, begun at ``at``.

    ``claimed`` are the ids in it that jobs of this ledger have; of those that matter, ``own`` says
    more. ``lacking`` are ids of ours that it should show by now, and does not. ``ended_only``: the
    list shows what has ended alone, and may show it under another id than it was submitted with;
    then ``hidden`` are the requests of ours that it does not show under their ids.
    """

    at: datetime
    listed: Sequence[Listed]
    claimed: Collection[str] = ()
    own: Mapping[str, Own] = field(default_factory=dict)
    lacking: Collection[str] = ()
    ended_only: bool = False
    hidden: Sequence[Body] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """What a reading says of lost submits; those that it says nothing of stay open."""

    adopted: Mapping[Place, Listed]
    ambiguous: Mapping[Place, tuple[str, ...]]
    absent: Collection[Place]


def match(lost: Sequence[LostSubmit], reading: Reading, under_way: Iterable[Body] = ()) -> Matches:
    """Say which lost submits are adopted, ambiguous or absent; ``under_way`` are being submitted.

    Each id is claimed once, where those of ours stand for what we sent. Lost submits of one body
    are interchangeable; more unclaimed ones than there are of them are ambiguous, and so is what
    may be a hidden one of ours. A prediction that may be of one under way is not claimed. A list of
    what has ended proves nothing absent.
    """
    rows, conflicting = _once_each(reading.listed)
    unclaimed = [row for row in rows if row.id not in reading.claimed]
    groups = _grouped(lost)
    fitting: dict[bytes, list[Listed]] = {key: [] for key in groups}
    unclear: dict[bytes, list[str]] = {key: [] for key in groups}
    busy = list(under_way)
    for row in unclaimed:
        if not row.id or row.id in conflicting or row.created > reading.at + SKEW:
            continue
        fits = [key for key, group in groups.items() if _fits_any(group, row)]
        if not fits or any(_is_of(body, row) for body in busy):
            continue
        closest = _closest(fits, groups)
        if closest is None or any(_is_of(body, row) for body in reading.hidden):
            for key in fits:
                unclear[key].append(row.id)
        else:
            fitting[closest].append(row)
    adopted: dict[Place, Listed] = {}
    ambiguous: dict[Place, tuple[str, ...]] = {}
    mixed_up = _mixed_up(rows, reading)
    for key, group in groups.items():
        if (group[0].body or {}).get("model") in mixed_up:
            continue
        pairs, left = _paired(group, fitting[key])
        if left or unclear[key]:
            ids = (*(row.id for row in fitting[key]), *unclear[key])
            ambiguous |= dict.fromkeys((each.place for each in group), ids)
        else:
            adopted |= pairs
    taken = {row.id for row in adopted.values()}
    left_over = [row for row in unclaimed if row.id not in taken]
    sound = not (conflicting or reading.ended_only) and _is_sound(rows, reading)
    absent = {
        each.place
        for each in lost
        if sound
        and each.place not in adopted
        and each.place not in ambiguous
        and _is_absent(each, left_over, rows, reading)
    }
    return Matches(adopted=adopted, ambiguous=ambiguous, absent=absent)


def contains(kept: Body, sent: Body) -> bool:
    """Whether ``kept`` has every field of ``sent`` with the same value; it may have more."""
    return all(name in kept and same_json(value, kept[name]) for name, value in sent.items())


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON: 5 is 5.0, and neither is true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and contains(other, one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def body_in(row: Listed) -> Body | None:
    """The request that a row shows; its model may stand beside it."""
    if row.body is None:
        return None
    return {"model": row.model, **row.body} if row.model else row.body


def _is_of(body: Body, row: Listed) -> bool:
    shown = body_in(row)
    return shown is not None and contains(shown, body)


def _once_each(listed: Iterable[Listed]) -> tuple[list[Listed], set[str]]:
    """Every row once, and ids that stand for different ones.

    A row may come twice: between two pages others were put before it.
    """
    rows: dict[str, Listed] = {}
    nameless: list[Listed] = []
    conflicting: set[str] = set()
    for row in listed:
        if not row.id:
            nameless.append(row)
        elif (before := rows.setdefault(row.id, row)) is not row:
            same = before.created == row.created and same_json(before.body, row.body)
            conflicting |= set() if same else {row.id}
    return [*rows.values(), *nameless], conflicting


def _grouped(lost: Sequence[LostSubmit]) -> dict[bytes, list[LostSubmit]]:
    groups: dict[bytes, list[LostSubmit]] = {}
    for each in lost:
        if each.body is not None:
            groups.setdefault(canonical_json(dict(each.body)), []).append(each)
    return groups


def _fits_any(group: Sequence[LostSubmit], row: Listed) -> bool:
    body = group[0].body
    early = all(row.created < each.since for each in group)
    return body is not None and not early and _is_of(body, row)


def _closest(keys: Sequence[bytes], groups: Mapping[bytes, list[LostSubmit]]) -> bytes | None:
    """The body that has all that the others have: the row is its; None where there is none."""
    bodies = {key: groups[key][0].body or {} for key in keys}
    closest = max(keys, key=lambda key: len(bodies[key]))
    return closest if all(contains(bodies[closest], body) for body in bodies.values()) else None


def _paired(
    group: Sequence[LostSubmit], rows: Iterable[Listed]
) -> tuple[dict[Place, Listed], list[Listed]]:
    """Give each row to a lost submit that it is not too old for; return those left over, too."""
    by_time = sorted(group, key=lambda each: each.intended_at, reverse=True)
    open_ones = sorted(by_time, key=lambda each: not each.waits)
    pairs: dict[Place, Listed] = {}
    left = []
    # From the oldest row on: whoever could take it could take each later one as well.
    for row in sorted(rows, key=lambda row: row.created):
        taker = next((each for each in open_ones if each.since <= row.created), None)
        if taker is None:
            left.append(row)
        else:
            open_ones.remove(taker)
            pairs[taker.place] = row
    return pairs, left


def _mixed_up(rows: Iterable[Listed], reading: Reading) -> set[Any]:
    """The models of predictions of ours that are shown as other ones: their ids prove nothing."""
    models: set[Any] = set()
    for row in rows:
        own, shown = reading.own.get(row.id), body_in(row)
        sent = own.body if own is not None else None
        if sent is not None and shown is not None and contradicts(shown, sent):
            models |= {str(sent.get("model")), str(shown.get("model"))}
    return models


def contradicts(kept: Body, sent: Body) -> bool:
    """Whether ``kept`` has a field of ``sent`` with another value."""
    return any(name in kept and not same_json(value, kept[name]) for name, value in sent.items())


# -- what proves that nothing was bought --------------------------------------------------------


def _is_sound(rows: Iterable[Listed], reading: Reading) -> bool:
    """Whether the list shows all that it should, and of ours what was sent for it."""
    if reading.lacking:
        return False
    return all(
        own.body is None or _is_of(own.body, row)
        for row in rows
        if (own := reading.own.get(row.id)) is not None
    )


def _is_absent(
    lost: LostSubmit, left_over: Iterable[Listed], rows: Iterable[Listed], reading: Reading
) -> bool:
    """Whether nothing unclaimed may be its prediction, and a later one of ours is shown."""
    if lost.body is None or not (lost.waits and lost.ripe):
        return False
    model = lost.body.get("model")
    if any(row.created >= lost.since and _may_be_of(row, model) for row in left_over):
        return False
    return any(
        own.body is not None and own.body.get("model") == model and own.intended_at >= lost.lost_at
        for row in rows
        if (own := reading.own.get(row.id)) is not None
    )


def _may_be_of(row: Listed, model: Any) -> bool:
    """Whether a row may be of a model's prediction, whatever else it says."""
    shown = body_in(row)
    return not row.model or row.model == model or shown is None or shown.get("model") == model
