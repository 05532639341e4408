"""What a pipeline is told, looked at before anything is opened or bought: pure."""

from __future__ import annotations

from asyncpipe.engine.engine import EngineSettings
from asyncpipe.errors import UsageError
from asyncpipe.jobs import check_whole

_PARTS = ("name", "origin", "simulated", "submit", "poll", "__aenter__", "__aexit__")


def check_settings(settings: EngineSettings) -> None:
    """Raise UsageError naming the option that is wrong: found later it would stop paid work."""
    check_whole("max_workers", settings.workers, 1)


def check_provider_object(provider: object) -> None:
    """Raise UsageError for what is no provider, saying what it lacks."""
    if isinstance(provider, type):
        kind = provider.__name__
        raise UsageError(f"provider: {kind} is a class: make one of it, {kind}(…)")
    lacking = [name for name in _PARTS if not hasattr(provider, name)]
    if lacking:
        what = type(provider).__name__
        raise UsageError(f"provider: a {what} has no {lacking[0]}: see asyncpipe.Provider")
