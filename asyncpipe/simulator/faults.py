"""Everything that can go wrong on purpose, with its chance and whether a client can recover."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from asyncpipe.errors import UsageError
from asyncpipe.simulator.books import PollPast

ALL = "all"
"""In a list of faults: every recoverable one."""


def _fault(text: str, *, recoverable: bool = True) -> float:
    return field(default=0.0, metadata={"text": text, "recoverable": recoverable})


def _final(text: str) -> float:
    return _fault(text, recoverable=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultKind:
    """One fault as it is listed; ``recoverable``: a careful client gets what it paid for."""

    name: str
    recoverable: bool
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What goes wrong, each with a probability from 0 to 1, drawn from the simulator's seed.

    ``asyncpipe simulate --list-faults`` prints what each one does; ``kinds()`` returns the same.
    The recoverable ones are bounded, so that a client that waits and tries again gets every
    output: at most 3 faulty polls in a row and 4 per prediction, at most 3 downloads per output,
    at most 2 faulty uploads per file, and below a probability of 1 at most 2 failed predictions in
    a row for the same request.
    Raises UsageError for a probability that is none.
    """

    # The submit and its answer.
    rate_limited: float = _fault("a submit is answered 429, without or with Retry-After")
    overloaded: float = _fault("a submit is answered 503 in the API's envelope; nothing is sold")
    text_code: float = _fault('answers spell their code as text: "200"')
    odd_id: float = _fault("the id is in predictionId, prediction_id, on top or in data.data")
    instant: float = _fault("the answer to the submit is already final")
    no_balance: float = _final("a submit is answered 402, or 200 with code 402; nothing is sold")
    firewall: float = _final("a submit is answered 403 by Cloudflare's page; nothing is sold")
    refused: float = _final("a submit is answered 400; nothing is sold")
    dropped: float = _final("a submit is sold and its connection closed without an answer")
    hung_submit: float = _final("a submit is sold and never answered")
    server_error_submit: float = _final("a submit is sold and answered by a page, 500 or 502")
    nameless: float = _final("a submit is sold and its answer names no id")
    huge_answer: float = _final("a submit is sold and its answer is 128 MiB, cut off")

    late_sale: float = _final("a submit's connection is closed, and it is sold history_lag_s later")

    # The history of an account.
    history_error: float = _fault("a question for the history is answered 429 or 5xx; 3 in a row")
    history_lag: float = _fault("a prediction is listed history_lag_s late, later ones before it")
    history_defaults: float = _fault("a listed body has fields besides those that were sent")
    no_history: float = _final("a question for the history is answered 404")
    history_foreign: float = _final("a listed prediction has somebody else's body")
    history_taken: float = _final("a listed prediction has the id of the one sold before it")
    history_missing: float = _final("a listed prediction lacks its id, time, body or a sent field")

    # UploadDesk.
    upload_error: float = _fault(
        "an upload is answered 429, 500, 502 or 503, or its connection cut"
    )
    input_gone: float = _fault("an uploaded file is gone when it is first needed; told once a file")

    # What becomes of a prediction.
    failed: float = _fault("a prediction ends failed, its money returned")
    failed_500: float = _fault("the polls of a failed prediction are answered 500, body and all")
    cost_told: float = _fault("a completed answer says what the prediction cost")
    overrun: float = _final("a prediction costs half as much again, and its answer says so")
    moderated: float = _final("a prediction ends failed with error code 1039, money returned")
    flagged: float = _fault("a completed answer flags an output as NSFW and says why beside it")
    beside: float = _fault("a completed answer has a cover and a text beside its outputs")
    fewer_outputs: float = _final("of several outputs that were asked for the last is left out")

    late_refusal: float = _final("fal: a result is answered 422, and nobody says if it is charged")
    retried: float = _final("fal: a request is listed under another id than it was sold with")
    aborted: float = _fault("Replicate: a prediction's deadline passes before it starts; free")
    canceled: float = _final("Replicate: a prediction is canceled while it runs, and charged")
    output_removed: float = _final("Replicate: an output is removed before it was asked for")

    # Polls.
    not_found_first: float = _fault("the first two polls of a prediction are answered 404")
    poll_error: float = _fault("a poll is answered 429, 500, 502, 503 or 504, JSON or a page")
    garbage: float = _fault("a poll is answered 200 with something that is not the API's JSON")
    poll_reset: float = _fault("a poll's connection is reset")
    hung_poll: float = _fault("a poll is held for hang_s, then closed; once per prediction")
    no_status: float = _fault("the answer to a poll has no status")
    odd_status: float = _fault("the answer to a poll has a status nobody knows")
    spelled: float = _fault("every status comes in another word, in upper, lower and mixed case")
    backwards: float = _fault("the status goes back and forth between processing and queued")
    empty_first: float = _fault("completed comes without outputs, two polls long")
    odd_outputs: float = _fault("outputs are objects, or in output, video_url and the like")
    inline: float = _fault("outputs are data URIs or bare base64 instead of URLs")

    # Media.
    cut: float = _fault("a download breaks off, with a Content-Length or chunked")
    empty_media: float = _fault("a download has no bytes")
    html_media: float = _fault("a download is an HTML page, with 200")
    wrong_bytes: float = _fault("a download is random bytes that claim to be the media")
    slow: float = _fault("a download trickles, 8 bytes a second, for hang_s, then breaks off")
    expired: float = _fault("an output's URL answers 403 or 404; polling again tells a fresh one")
    redirected: float = _fault("media are on another host and port, behind a redirect")
    untyped: float = _fault("media come as application/octet-stream, their URL without extension")
    no_range: float = _fault("downloads ignore Range and always send the whole")
    lost_media: float = _final("an output is 404 for ever")
    endless: float = _final("a download never ends")

    # Callbacks, where a submit asks for one.
    callback_lost: float = _fault("a callback is never sent")
    callback_late: float = _fault("a callback comes 30 s late, divided by the speed")
    callback_twice: float = _fault("a callback is sent twice, signed anew")
    callback_early: float = _fault("a prediction is ready, and called back, before its answer")
    callback_forged: float = _fault("a callback is preceded by one that somebody else signed")
    callback_stale: float = _fault("a callback is preceded by one that was signed long ago")
    callback_replayed: float = _fault("a callback is sent again, byte for byte")

    def __post_init__(self) -> None:
        for fault in fields(self):
            if not 0 <= getattr(self, fault.name) <= 1:
                raise UsageError(f"fault {fault.name}: its probability must be from 0 to 1")

    @classmethod
    def kinds(cls) -> tuple[FaultKind, ...]:
        """Every fault there is."""
        return tuple(FaultKind(name=fault.name, **fault.metadata) for fault in fields(cls))

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read ``rate_limited=0.1,cut=0.2``; raises UsageError naming what is wrong.

        ``all`` stands for every recoverable fault; later entries override: ``all=0.1,cut=0``.
        """
        kinds = cls.kinds()
        known = {kind.name: [kind.name] for kind in kinds}
        known[ALL] = [kind.name for kind in kinds if kind.recoverable]
        values: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in known:
                raise UsageError(f"there is no fault {name!r}; there are {', '.join(known)}")
            try:
                values.update(dict.fromkeys(known[name], float(value)))
            except ValueError:
                raise UsageError(f"fault {part!r}: write it like {name}=0.1") from None
        return cls(**values)


FAULTY_IN_A_ROW = 3
"""Faulty answers to polls of one prediction, until its outputs were told; then 1."""

FAULTY_IN_ALL = 4
"""Faulty answers to polls of one prediction in all: recoverable faults must not outlast a
deadline of 300 s, together with those of ``not_found_first`` and ``empty_first``."""

HISTORY_ERRORS_IN_A_ROW = 3
"""Questions for the history that fail, one after the other."""

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
    costs more than its price. ``flagged``, ``beside`` and ``fewer`` are said of its outputs.
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
    flagged: bool = False
    beside: bool = False
    fewer: bool = False


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPlan:
    """How one prediction is listed; ``missing`` is a number that chooses what it lacks."""

    late: bool = False
    defaults: bool = False
    foreign: bool = False
    taken: bool = False
    missing: int | None = None


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
    money, notes = dice(seed, "money", prediction_id), dice(seed, "notes", prediction_id)
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
        flagged=notes.random() < faults.flagged,
        beside=notes.random() < faults.beside,
        fewer=notes.random() < faults.fewer_outputs,
    )


def callback_fault(faults: Faults, seed: int, prediction_id: str, name: str) -> bool:
    """Whether the callback of a prediction meets the fault ``callback_{name}``."""
    chance: float = getattr(faults, f"callback_{name}")
    return chance > dice(seed, "callback", name, prediction_id).random()


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


def row_plan(faults: Faults, seed: int, prediction_id: str) -> RowPlan:
    """How a prediction is listed in the history."""
    draw = dice(seed, "listed", prediction_id)
    missing = draw.getrandbits(16)
    return RowPlan(
        late=draw.random() < faults.history_lag,
        defaults=draw.random() < faults.history_defaults,
        foreign=draw.random() < faults.history_foreign,
        taken=draw.random() < faults.history_taken,
        missing=missing if draw.random() < faults.history_missing else None,
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
