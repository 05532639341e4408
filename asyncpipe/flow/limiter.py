"""All that is known of one API's limits: a window and a pause per model, one pace for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, Protocol, Self

from asyncpipe.flow.backoff import LATE, Backoff
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.shares import Demand, share_of
from asyncpipe.flow.window import Window
from asyncpipe.jobs import Limits

HELD_S = 60.0
"""Longest that all polls are held: what one of them is told for longer is its own to wait for."""

TOGETHER_S = 2.0
"""Submits refused so shortly before polls are were refused for the same reason: the rate."""


class AnswerKind(Enum):
    """What an answer says of an API's limits."""

    TAKEN = "taken"  # the prediction is under way
    FINAL = "final"  # and has ended already
    LIMITED = "limited"  # 429
    OVERLOADED = "overloaded"  # 503, or no connection: no limit of ours
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a submit or a poll, as far as limits go; ``retry_after_s`` where it was told."""

    kind: AnswerKind
    retry_after_s: float | None = None

    @property
    def limited(self) -> bool:
        """Whether a limit was met; an overload is none of ours."""
        return self.kind is AnswerKind.LIMITED


class HeldMoney(Protocol):
    """Money that is kept back for a submit until it is spent or given back."""

    def end(self) -> None:
        """Keep it back no longer; more than once is the same as once."""


@dataclass(slots=True)
class _ModelLimits:
    window: Window
    pause: Backoff
    rated: float = float("-inf")  # when a submit was last refused and nothing else was known


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What one worker tells the others of a model: its demand, a limit it met, how long it pauses.

    ``claim`` is how many it would have in flight at most. ``running`` of what is in flight the
    provider has taken; ``pause_s`` counts from when that is told.
    """

    demand: Demand
    claim: int = 0
    running: int = 0
    found: int | None = None
    pause_s: float = 0.0

    @property
    def held(self) -> int:
        """How many places are its own."""
        return max(self.demand.in_flight, self.claim)


class Limiter:
    """Who may be submitted now, and what answers teach; ``window_of`` makes a model's window.

    At most ``workers`` permits are out at once. A submit refused with 429 while polls are answered
    meets a limit of what is in flight: it cuts the model's window and pauses the model. When polls
    are refused as well, it is the rate of requests: that slows the pace of all of them, and windows
    stay as they were.
    """

    def __init__(
        self, gate: Gate, rng: Random, window_of: Callable[[str], Window], *, workers: int
    ) -> None:
        self.gate = gate
        self.workers: int = workers
        self.out = 0
        self.refused: int = 0
        """How many submits and polls were refused because of a limit."""
        self.models: dict[str, _ModelLimits] = {}
        self._rng = rng
        self._window_of = window_of

    def of(self, model: str) -> _ModelLimits:
        """The window and the pause of ``model``."""
        if model not in self.models:
            self.models[model] = _ModelLimits(self._window_of(model), Backoff(self._rng))
        return self.models[model]

    @property
    def windows(self) -> dict[str, Window]:
        """The windows of the models that were met, by model."""
        return {model: known.window for model, known in self.models.items()}

    @property
    def limited(self) -> dict[str, Window]:
        """Those of them whose limit was met."""
        return {
            model: window
            for model, window in self.windows.items()
            if window.met and window.found is not None
        }

    @property
    def free(self) -> bool:
        """Whether another permit may be given."""
        return self.out < self.workers

    def set(self, windows: Windows, *, workers: int) -> None:
        """Go by other caps from now on; what is out stays out, and is given back as it ends."""
        self.workers, self._window_of = workers, windows.of
        for model, known in self.models.items():
            known.window.ceiling = windows.ceiling(model)
        self.gate.pace.cap = windows.limits.requests_per_second
        self.gate.news()

    def ready_at(self, model: str, now: float) -> float | None:
        """When a submit of ``model`` may go: ``now``, later, or None until news come."""
        known = self.of(model)
        return None if known.window.full else known.pause.ready_at(now)

    def works_on(self, model: str) -> bool:
        """Whether the provider works on predictions of ``model``."""
        return self.of(model).window.running > 0

    # -- what several workers of one key know ---------------------------------------------------

    def news(self, waiting: Mapping[str, int]) -> dict[str, News]:
        """What to tell other workers; ``waiting`` are jobs at hand, by model."""
        now = self.gate.clock()
        return {
            model: News(
                demand=Demand(known.window.in_flight, waiting.get(model, 0)),
                claim=known.window.claim,
                running=known.window.running,
                found=known.window.found if known.window.met else None,
                pause_s=max(known.pause.until - now, 0.0),
            )
            for model in {*self.models, *waiting}
            for known in [self.of(model)]
        }

    def hear(self, told: Sequence[Mapping[str, News]], me: int, waiting: Mapping[str, int]) -> None:
        """Share every model's window with others; ``told`` has ours at ``me``, as it is now."""
        ours, now = self.news(waiting), self.gate.clock()
        for model, mine in ours.items():
            known, others = self.of(model), [each.get(model, SILENT) for each in told]
            others[me] = mine
            for each in others[:me] + others[me + 1 :]:
                if each.found is not None:
                    known.window.hear(each.found)
                if each.pause_s:
                    known.pause.hear(now + each.pause_s)
            _share(known.window, others, me)
        self.gate.share_pace(len(told))
        self.gate.news()

    # -- permits --------------------------------------------------------------------------------

    def to_submit(self, model: str, hold: HeldMoney | None = None) -> Permit:
        """A permit for a submit that is to go out now, and for its prediction afterwards."""
        known = self.of(model)
        turn = known.window.admitted(), known.pause.admitted()
        self.gate.submit_taken()
        return Permit(self, known, turn=turn, hold=hold)

    def to_poll(self, model: str) -> Permit:
        """A permit for a prediction that was submitted before."""
        known = self.of(model)
        known.window.resume()
        return Permit(self, known, running=True)

    def to_fetch(self) -> Permit:
        """A permit for a job that needs the provider no more."""
        return Permit(self, None)

    # -- polls ----------------------------------------------------------------------------------

    def polled(self, answer: Answer) -> None:
        """A poll was answered."""
        now = self.gate.clock()
        if not answer.limited:
            self.gate.pace.answered(now)
            return
        self.refused += 1
        if not self.gate.pace.refused(now):
            return
        if answer.retry_after_s is not None:
            wish_s = min(answer.retry_after_s, HELD_S)
            self.gate.hold_polls(now + wish_s * self._rng.uniform(1.0, LATE))
        for known in self.models.values():
            known.window.forgive(now - TOGETHER_S)
            if now - known.rated <= TOGETHER_S:
                known.pause.lift()
        self.gate.news()


class Permit:
    """One job's leave to be in flight: a worker's place, its model's turn and the money held.

    All three are one object and are given back together, once: on leaving the ``with`` block, or
    by ``release``. What was neither answered nor said to be unused by then was not sent.
    """

    __slots__ = ("_known", "_limiter", "_released", "_running", "_turn", "hold")

    def __init__(
        self,
        limiter: Limiter,
        known: _ModelLimits | None,
        *,
        turn: tuple[int, int] | None = None,
        running: bool = False,
        hold: HeldMoney | None = None,
    ) -> None:
        self.hold: HeldMoney | None = hold
        self._limiter, self._known = limiter, known
        self._turn, self._running = turn, running
        self._released = False
        limiter.out += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def answered(self, answer: Answer) -> float:
        """The submit was answered; returns how long the model pauses now, in seconds."""
        assert self._known is not None, "only a submit is answered"
        assert self._turn is not None, "it is answered once"
        (window_episode, pause_episode), self._turn = self._turn, None
        known, gate = self._known, self._limiter.gate
        gate.news()
        now, wish_s = gate.clock(), answer.retry_after_s
        if answer.limited:
            self._limiter.refused += 1
        else:
            gate.pace.answered(now)
        if answer.kind in (AnswerKind.TAKEN, AnswerKind.FINAL):
            self._running = True
            known.window.taken(window_episode, now, final=answer.kind is AnswerKind.FINAL)
            known.pause.accepted(pause_episode)
            return 0.0
        if answer.kind is AnswerKind.OTHER:
            known.window.failed()
            known.pause.answered(pause_episode)
            return 0.0
        if answer.limited and gate.pace.limiting(now):
            gate.pace.refused(now)
            known.window.failed()
            if wish_s is None:
                known.pause.answered(pause_episode)
                return 0.0
        elif answer.limited:
            known.window.refused(window_episode, now)
            known.rated = now if wish_s is None else known.rated
        else:
            known.window.failed()
        return known.pause.refused(pause_episode, now, wish_s)

    def unused(self) -> None:
        """Nothing was sent: the turn and the money go back."""
        if self.hold is not None:
            self.hold.end()
        if self._turn is not None and self._known is not None:
            self._known.window.failed()
            self._known.pause.answered(self._turn[1])
            self._turn = None

    def release(self) -> None:
        """Give everything back that is still out; more than once is the same as once."""
        if self._released:
            return
        self._released = True
        self.unused()
        if self._running and self._known is not None:
            self._known.window.ended()
        self._limiter.out -= 1
        self._limiter.gate.news()


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """How a model's window is made: from the user's caps, and from what earlier runs met.

    A ``shared`` one is that of all workers: how many places this one has is no limit of it.
    """

    max_workers: int
    limits: Limits
    learned: bool = True
    shared: bool = False
    kept: Mapping[str, Any]

    def ceiling(self, model: str) -> int:
        """The most that the user lets ``model`` have in flight."""
        most = ALL_WORKERS if self.shared else self.max_workers
        return min(most, self.limits.models.get(model, most))

    def of(self, model: str) -> Window:
        """A new window for ``model``; what was kept and makes no sense counts as nothing."""
        window = Window(self.ceiling(model), learned=self.learned)
        if self.shared:
            window.shared(others=0, taken=0, share=0)
        found = _found(self.kept.get(model))
        if found is not None:
            window.recall(found)
        return window


SILENT = News(demand=Demand(0, 0))
"""A worker that has said nothing of a model."""


def _share(window: Window, told: Sequence[News], me: int) -> None:
    """Give a window our share of what all have, as far as they know of it.

    What we would have is told first, and ours when we have heard that it is free: so all shares are
    within the window together, whoever had not heard of whom.
    """
    held = [each.held for each in told]
    others = sum(held) - held[me]
    window.shared(
        others=sum(each.demand.in_flight for each in told) - told[me].demand.in_flight,
        taken=sum(each.running for each in told) - told[me].running,
        share=max(min(told[me].claim, window.size - others), 0),
    )
    ours = told[me].demand
    held[me] = max(ours.in_flight, window.share or 0)
    wanted = [each.demand.wanted for each in told]
    demands = [Demand(has, max(want - has, 0)) for has, want in zip(held, wanted, strict=True)]
    window.claim = min(share_of(window.size, demands, me), ours.wanted)


ALL_WORKERS = 1_000_000
"""More than all workers of a key have in flight."""


def _found(entry: Any) -> int | None:
    found = entry.get("found") if isinstance(entry, Mapping) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        return None
    return found


def lessons(limited: Mapping[str, Window]) -> dict[str, Any]:
    """What is worth keeping of windows whose limit was met, by model."""
    return {model: {"found": met.found, "most": met.most} for model, met in limited.items()}
