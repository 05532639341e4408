"""The pause of a model whose submits are being refused, and how it is released."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from asyncpipe._tasks import backoff_s

RELEASED = 4
"""After so many submits were taken in a row nothing is left of a pause."""

LATE = 1.1
"""A wish to wait is kept up to so many times as long, so that clients do not return in step."""


@dataclass(slots=True)
class Backoff:
    """Whether a model may be submitted to now; all jobs of a model share one.

    Refusals of submits that left before the pause belong to the same episode and do not lengthen
    it, and what is taken of them does not end it. After a pause one submit goes ahead; each that is
    taken lets one more be out at a time, so that waiting jobs do not run into the limit together.
    """

    rng: Random
    until: float = 0.0
    refusals: int = 0  # episodes, and nothing taken between them
    episode: int = 0
    _allowed: int | None = None  # submits without an answer at a time; None: any number
    _out: int = 0  # of this episode

    def ready_at(self, now: float) -> float | None:
        """When the next submit may go: ``now``, later, or None until an answer comes."""
        if self._allowed is not None and self._out >= self._allowed:
            return None
        return max(now, self.until)

    def admitted(self) -> int:
        """A submit goes out; returns its episode, to be handed back with the answer."""
        self._out += 1
        return self.episode

    def accepted(self, episode: int) -> None:
        """The provider took a submit."""
        self.answered(episode)
        if episode != self.episode:
            return
        self.refusals, self.until = 0, 0.0
        if self._allowed is not None:
            self._allowed = self._allowed + 1 if self._allowed < RELEASED else None

    def answered(self, episode: int) -> None:
        """A submit ended in another way, or was not sent: it says nothing about limits."""
        if episode == self.episode:
            self._out -= 1

    def refused(self, episode: int, now: float, retry_after_s: float | None) -> float:
        """The provider refused a submit for now; return how long the model pauses, in seconds."""
        if episode == self.episode:
            self.episode += 1
            self.refusals += 1
            self._allowed, self._out = 1, 0
            self.until = max(self.until, now + backoff_s(self.refusals, self.rng))
        if retry_after_s is not None:
            self.until = max(self.until, now + retry_after_s * self.rng.uniform(1.0, LATE))
        return max(self.until - now, 0.0)

    def hear(self, until: float) -> None:
        """Pause as another worker does, who was refused."""
        self.until = max(self.until, until)

    def lift(self) -> None:
        """End the pause: it was for another reason than the model."""
        self.until, self.refusals, self._allowed = 0.0, 0, None
