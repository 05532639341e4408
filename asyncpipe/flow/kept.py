"""Windows as they are kept between runs, and made anew from what was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncpipe.flow.window import Window
from asyncpipe.jobs.settings import Caps


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
