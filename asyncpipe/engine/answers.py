"""Hear what a provider's code says, and say once of each slip in it that it is there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from asyncpipe._tasks import provider_code
from asyncpipe.errors import ProviderError, UsageError
from asyncpipe.jobs import Job
from asyncpipe.pricing import Tell
from asyncpipe.providers import HasHistory, Prediction, prediction_of, sent_body, told_route

logger = logging.getLogger("asyncpipe.engine")


class Answers:
    """Takes what ``submit`` and ``poll`` return; ``tell`` hears once of each field that is off."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._said: set[tuple[str, str]] = set()

    def prediction(self, told: object, *, of: str) -> Prediction:
        """The prediction that was returned; raises ProviderError for what is none."""
        heard = prediction_of(told, of=of)
        for name, fault in heard.faults.items():
            if (of, name) not in self._said:
                self._said.add((of, name))
                self._tell(f"{fault}: correct the provider's code; it is said once")
        return heard.prediction


def body_of(provider: HasHistory, job: Job) -> Mapping[str, Any] | None:
    """The request body of a job; None where the provider's code cannot tell."""
    try:
        with provider_code("body_of", logger=logger, action="search.failed"):
            return sent_body(provider.body_of(job))
    except ProviderError:
        return None


def route_of(provider: HasHistory, job: Job) -> str:
    """The route of a job's prediction; "" where the provider's code cannot tell."""
    try:
        with provider_code("route_of", logger=logger, action="search.failed"):
            return told_route(provider.route_of(job))
    except ProviderError:
        return ""


def safely(tell: Tell) -> Tell:
    """``tell``, which a user wrote: what it raises is logged, and harms nobody.

    Raises UsageError for what cannot be called.
    """
    if not callable(tell):
        raise UsageError(f"on_remark: {tell!r:.80} must be a function")

    def told(text: str) -> None:
        try:
            tell(text)
        except Exception:
            logger.exception("remark failed", extra={"action": "remark.failed"})

    return told
