"""Fixtures of the promises' tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from asyncpipe._tasks import backoff_s


@pytest.fixture
def faster_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries shrink like the simulator's generation times."""
    for module in ("_tasks", "engine.submit", "flow.backoff"):
        shrunk = partial(shorter, backoff_s)
        monkeypatch.setattr(f"asyncpipe.{module}.backoff_s", shrunk)


def shorter(whole: Callable[..., float], *arguments: Any, **options: Any) -> float:
    return whole(*arguments, **options) / 20
