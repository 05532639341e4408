"""The pause of a model whose submits are being refused."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from asyncpipe.flow.schedule import backoff_s


@dataclass(slots=True)
class Pause:
    """Whether a model may be submitted to now; all jobs of a model share one.

    Refusals that arrive while the model is paused belong to the same episode and do not lengthen
    it. After a pause one submit goes ahead as a probe; the others wait for its answer, so that a
    herd of waiting jobs does not run into the same limit again.
    """

    rng: Random
    until: float = 0.0
    refusals: int = 0
    probing: bool = False

    def ready_at(self, now: float) -> float | None:
        """When the next submit may go: ``now``, later, or None while a probe is out."""
        if self.refusals and self.probing:
            return None
        return max(now, self.until)

    def admitted(self) -> None:
        """A submit goes out."""
        self.probing = self.refusals > 0

    def accepted(self) -> None:
        """The provider took a submit: no more waiting."""
        self.refusals, self.probing, self.until = 0, False, 0.0

    def answered(self) -> None:
        """A submit ended in another way that says nothing about limits."""
        self.probing = False

    def refused(self, now: float, retry_after_s: float | None) -> float:
        """The provider refused a submit for now; return how long the model pauses, in seconds."""
        self.probing = False
        if now >= self.until:
            self.refusals += 1
            self.until = now + backoff_s(self.refusals, self.rng)
        if retry_after_s is not None:
            self.until = max(self.until, now + retry_after_s * self.rng.uniform(1.0, 1.1))
        return self.until - now
