"""What happens to whom: pure, from the seed and what is to be decided.

Every decision is drawn from its own dice: a submit's from its number, a prediction's from its id,
a poll's from id and poll number, an output's from id and index. So the same books and seed go on
alike after the process was killed, whatever else was asked meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from asyncpipe.simulator.books import PollPast
from asyncpipe.simulator.faults import Faults

FAULTY_IN_A_ROW = 3
"""Faulty answers to polls of one prediction, until its outputs were told; then 1."""

FAULTY_IN_ALL = 4
"""Faulty answers to polls of one prediction in all: recoverable faults must not outlast a
deadline of 300 s, together with those of ``not_found_first`` and ``empty_first``."""

BROKEN_DOWNLOADS = 2
"""Broken downloads of one output, besides one at its expired URL."""

FAILED_IN_A_ROW = 2
"""Failed predictions in a row for the same request, unless every prediction is to fail."""

_REFUSALS = ("rate_limited", "overloaded", "no_balance", "firewall", "refused")

_LOST = ("dropped", "hung_submit", "server_error_submit", "nameless", "huge_answer")

_POLLS = ("poll_error", "garbage", "poll_reset", "hung_poll", "no_status", "odd_status")

_DOWNLOADS = ("cut", "empty_media", "html_media", "wrong_bytes", "slow")

_IDS = ("predictionId", "data.predictionId", "data.prediction_id", "top", "nested")

_SHAPES = ("objects", "output", "output.url", "url")

_INLINE = ("data", "base64")

_RUNNING = ("processing", "created", "starting", "queued", "pending", "running", "in_progress")

_SPELLINGS = {
    "processing": (*_RUNNING, "submitted"),
    "completed": ("completed", "succeeded", "success", "done", "complete"),
    "failed": ("failed", "error", "canceled", "cancelled", "timeout"),
}

_BACK = ("queued", "pending", "created", "starting")

_ODD = ("warming_up", "archiving", "on-hold", "上传中", "42", "?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How one prediction is answered.

    ``lost`` names the fault that loses the answer to its submit. ``id_shape``, ``shape`` and
    ``inline`` say where its id and its outputs are put; None: where they belong. ``overrun``: it
    costs more than its price.
    """

    lost: str | None = None
    id_shape: str | None = None
    text_code: bool = False
    instant: bool = False
    spelled: bool = False
    backwards: bool = False
    empty_first: bool = False
    shape: str | None = None
    inline: str | None = None
    failed_500: bool = False
    overrun: bool = False
    cost_told: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPlan:
    """How one output is served; ``broken`` are the faults of its first downloads, in order.

    ``expired`` is the status its first URL answers; ``old`` and ``fresh`` sign its URLs.
    """

    lost: bool = False
    endless: bool = False
    redirected: bool = False
    untyped: bool = False
    no_range: bool = False
    expired: int | None = None
    old: str = ""
    fresh: str = ""
    broken: tuple[str, ...] = ()


_PLAIN, _PLAIN_MEDIA, _NO_FAULTS = Plan(), MediaPlan(), Faults()


def dice(*what: object) -> random.Random:
    """Dice for one decision; the same for the same ``what``."""
    return random.Random("-".join(map(str, what)))


def quiet(faults: Faults) -> bool:
    """Whether nothing goes wrong: then nothing needs to be drawn."""
    return faults == _NO_FAULTS


def refusal(faults: Faults, seed: int, submit: int) -> str | None:
    """The fault that refuses a submit, by its number; None: it is taken."""
    return None if quiet(faults) else _one_of(dice(seed, "submit", submit), faults, _REFUSALS)


def plan_of(faults: Faults, seed: int, prediction_id: str) -> Plan:
    """How a prediction is answered."""
    if quiet(faults):
        return _PLAIN
    draw = dice(seed, "plan", prediction_id)
    money = dice(seed, "money", prediction_id)
    overrun = money.random() < faults.overrun
    return Plan(
        overrun=overrun,
        cost_told=overrun or money.random() < faults.cost_told,
        lost=_one_of(draw, faults, _LOST),
        id_shape=_if(draw, faults.odd_id, _IDS),
        text_code=draw.random() < faults.text_code,
        instant=draw.random() < faults.instant,
        spelled=draw.random() < faults.spelled,
        backwards=draw.random() < faults.backwards,
        empty_first=draw.random() < faults.empty_first,
        shape=_if(draw, faults.odd_outputs, _SHAPES),
        inline=_if(draw, faults.inline, _INLINE),
        failed_500=draw.random() < faults.failed_500,
    )


def poll_fault(faults: Faults, past: PollPast, draw: random.Random) -> str | None:
    """The fault a poll is answered with; None: it is answered."""
    row = 1 if past.told else FAULTY_IN_A_ROW
    if past.row >= row or past.total >= FAULTY_IN_ALL:
        return None
    return _one_of(draw, faults, [n for n in _POLLS if n != "hung_poll" or not past.hung])


def media_plan(faults: Faults, seed: int, prediction_id: str, index: int) -> MediaPlan:
    """How an output is served."""
    if quiet(faults):
        return _PLAIN_MEDIA
    draw = dice(seed, "media", prediction_id, index)
    broken = _hits(draw, faults, _DOWNLOADS)
    draw.shuffle(broken)
    return MediaPlan(
        lost=draw.random() < faults.lost_media,
        endless=draw.random() < faults.endless,
        redirected=draw.random() < faults.redirected,
        untyped=draw.random() < faults.untyped,
        no_range=draw.random() < faults.no_range,
        expired=draw.choice((403, 404)) if draw.random() < faults.expired else None,
        old=f"{draw.getrandbits(64):016x}",
        fresh=f"{draw.getrandbits(64):016x}",
        broken=tuple(broken[:BROKEN_DOWNLOADS]),
    )


def word(status: str, plan: Plan, poll: int, draw: random.Random) -> str:
    """The word for a status in the answer to one poll."""
    if status == "processing" and plan.backwards and poll % 2:
        status = draw.choice(_BACK)
    elif plan.spelled and not (status == "failed" and plan.failed_500):
        status = draw.choice(_SPELLINGS[status])  # an HTTP 500 is known with ``failed`` only
    return _any_case(status, draw) if plan.spelled else status


def odd_word(draw: random.Random) -> str:
    """A status nobody knows."""
    return draw.choice(_ODD)


def _any_case(text: str, draw: random.Random) -> str:
    mixed = "".join(draw.choice((c.upper(), c)) for c in text)
    return draw.choice((text, text.upper(), text.title(), mixed))


def _if(draw: random.Random, chance: float, choices: tuple[str, ...]) -> str | None:
    choice = draw.choice(choices)
    return choice if draw.random() < chance else None


def _hits(draw: random.Random, faults: Faults, names: Iterable[str]) -> list[str]:
    return [name for name in names if draw.random() < getattr(faults, name)]


def _one_of(draw: random.Random, faults: Faults, names: Iterable[str]) -> str | None:
    hits = _hits(draw, faults, names)
    return draw.choice(hits) if hits else None
