"""A model that refuses everything: stop it before every job has failed for one reason."""

from __future__ import annotations

from dataclasses import dataclass

from asyncpipe.errors import without_numbers

FIRST = 20
"""So many submits refused for one reason, and none accepted, stop a model."""


@dataclass(slots=True)
class Refusals:
    """What the submits of one model came to since a run began."""

    count: int = 0
    reason: str | None = None
    varied: bool = False

    def accepted(self) -> None:
        """The provider took a submit: whatever is refused is the job's fault, not the model's."""
        self.varied = True

    def refused(self, reason: str) -> bool:
        """Count a refusal for good; True when the model is to be stopped for it."""
        plain = without_numbers(reason)
        self.varied = self.varied or self.reason not in (None, plain)
        self.reason = plain
        self.count += 1
        return self.count >= FIRST and not self.varied
