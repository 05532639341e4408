"""All that is known of one API's limits: a window and a pause per model, one pace for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

from asyncpipe.flow.backoff import LATE, Pause
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.window import Window
from asyncpipe.jobs import Caps

TOGETHER_S = 2.0
"""Submits refused so shortly before polls are were refused for the same reason: the rate."""


class Verdict(Enum):
    """What an answer says of an API's limits."""

    TAKEN = "taken"  # the prediction is under way
    FINAL = "final"  # and has ended already
    LIMITED = "limited"  # 429
    OVERLOADED = "overloaded"  # 503, or no connection: no limit of ours
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a submit or a poll, as far as limits go; ``retry_after_s`` where it was told."""

    verdict: Verdict
    retry_after_s: float | None = None

    @property
    def limited(self) -> bool:
        """Whether a limit was met; an overload is none of ours."""
        return self.verdict is Verdict.LIMITED


@dataclass(slots=True)
class _Model:
    window: Window
    pause: Pause
    rated: float = float("-inf")  # when a submit was last refused and nothing else was known


@dataclass(slots=True)
class Traffic:
    """Who may be submitted now, and what answers teach; ``window_of`` makes a model's window.

    A submit refused with 429 while polls are answered meets a limit of what is in flight: it cuts
    the model's window and pauses the model. When polls are refused as well, it is the rate of
    requests: that slows the pace of all of them, and windows stay as they were.
    """

    gate: Gate
    rng: Random
    window_of: Callable[[str], Window]
    models: dict[str, _Model] = field(default_factory=dict)
    _out: dict[int, tuple[int, int]] = field(default_factory=dict)  # submits by job: episodes
    _running: set[int] = field(default_factory=set)

    def of(self, model: str) -> _Model:
        """The window and the pause of ``model``."""
        if model not in self.models:
            self.models[model] = _Model(self.window_of(model), Pause(self.rng))
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

    # -- submits --------------------------------------------------------------------------------

    def ready_at(self, model: str, now: float) -> float | None:
        """When a submit of ``model`` may go: ``now``, later, or None until news come."""
        known = self.of(model)
        return None if known.window.full else known.pause.ready_at(now)

    def admitted(self, job_id: int, model: str) -> None:
        """A submit goes out."""
        known = self.of(model)
        self._out[job_id] = known.window.admitted(), known.pause.admitted()
        self.gate.submit_taken()

    def put_back(self, job_id: int, model: str) -> None:
        """A submit was not sent after all."""
        if (episodes := self._out.pop(job_id, None)) is not None:
            known = self.of(model)
            known.window.failed()
            known.pause.answered(episodes[1])

    def answered(self, job_id: int, model: str, answer: Answer, now: float) -> float:
        """A submit was answered; returns how long the model pauses now, in seconds."""
        window_episode, pause_episode = self._out.pop(job_id)
        known = self.of(model)
        limited, wish_s = answer.limited, answer.retry_after_s
        if not limited:
            self.gate.pace.answered(now)
        if answer.verdict in (Verdict.TAKEN, Verdict.FINAL):
            self._running.add(job_id)
            known.window.taken(window_episode, now, final=answer.verdict is Verdict.FINAL)
            known.pause.accepted(pause_episode)
            return 0.0
        if answer.verdict is Verdict.OTHER:
            known.window.failed()
            known.pause.answered(pause_episode)
            return 0.0
        if limited and self.gate.pace.limiting(now):
            self.gate.pace.refused(now)
            known.window.failed()
            if wish_s is None:
                known.pause.answered(pause_episode)
                return 0.0
        elif limited:
            known.window.refused(window_episode, now)
            known.rated = now if wish_s is None else known.rated
        else:
            known.window.failed()
        return known.pause.refused(pause_episode, now, wish_s)

    # -- predictions ----------------------------------------------------------------------------

    def resumed(self, job_id: int, model: str) -> None:
        """A prediction that was submitted before is taken up again."""
        if job_id not in self._running:
            self._running.add(job_id)
            self.of(model).window.resume()

    def ended(self, job_id: int, model: str) -> None:
        """A prediction is no longer waited for."""
        if job_id in self._running:
            self._running.discard(job_id)
            self.of(model).window.ended()

    def works_on(self, model: str) -> bool:
        """Whether the provider works on predictions of ``model``."""
        return self.of(model).window.running > 0

    # -- polls ----------------------------------------------------------------------------------

    def polled(self, answer: Answer, now: float) -> None:
        """A poll was answered."""
        if not answer.limited:
            self.gate.pace.answered(now)
            return
        if not self.gate.pace.refused(now):
            return
        if answer.retry_after_s is not None:
            self.gate.hold_polls(now + answer.retry_after_s * self.rng.uniform(1.0, LATE))
        for known in self.models.values():
            known.window.forgive(now - TOGETHER_S)
            if now - known.rated <= TOGETHER_S:
                known.pause.lift()
        self.gate.news()


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """How a model's window is made: from the user's caps, and from what earlier runs met."""

    max_workers: int
    caps: Caps
    learned: bool = True
    kept: Mapping[str, Any]

    def of(self, model: str) -> Window:
        """A new window for ``model``; what was kept and makes no sense counts as nothing."""
        ceiling = min(self.max_workers, self.caps.models.get(model, self.max_workers))
        window = Window(ceiling, learned=self.learned)
        found = _found(self.kept.get(model))
        if found is not None:
            window.recall(found)
        return window


def _found(entry: Any) -> int | None:
    found = entry.get("found") if isinstance(entry, Mapping) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        return None
    return found


def lessons(limited: Mapping[str, Window]) -> dict[str, Any]:
    """What is worth keeping of windows whose limit was met, by model."""
    return {model: {"found": met.found, "most": met.most} for model, met in limited.items()}
