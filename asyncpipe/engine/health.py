"""How a pipeline is: well, waiting for what may pass, stopped, or failed; and what it waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from asyncpipe.errors import AsyncpipeError, DiskError, DownloadError, NotAccepted
from asyncpipe.jobs import now

logger = logging.getLogger("asyncpipe.engine")

SAID_EVERY_S = 60.0
"""What is waited for is said at once, and then so often."""


class HealthStatus(StrEnum):
    """How a pipeline is, in a word."""

    OK = "ok"
    WAITING = "waiting"  # for what may pass by itself: nothing is submitted, nothing is lost
    STOPPED = "stopped"  # somebody has to do something; what was submitted goes on
    FAILED = "failed"  # it has to be opened anew
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """How a pipeline is. ``error`` is what it waits for, was stopped by or failed of, or None.

    ``since`` is when that began, in UTC, where it is known.
    """

    status: HealthStatus
    error: BaseException | None = None
    since: datetime | None = None

    @property
    def ok(self) -> bool:
        """Whether jobs are submitted: nothing stands in the way."""
        return self.status is HealthStatus.OK

    @property
    def why(self) -> str | None:
        """What ``error`` says, or None."""
        return None if self.error is None else str(self.error) or type(self.error).__name__

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        since = None if self.since is None else self.since.isoformat()
        return {"status": self.status.value, "why": self.why, "since": since}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What is waited for at the moment: ``error`` says it, ``since`` is when it began, in UTC.

    It counts ``until`` then, by the loop's clock: nobody may come to say that it is over.
    """

    error: AsyncpipeError
    since: datetime
    until: float = float("inf")


def health_of(
    *,
    opened: bool,
    failure: BaseException | None,
    stopped: tuple[AsyncpipeError, datetime] | None,
    waits: Iterable[Wait],
) -> Health:
    """Say how a pipeline is, the worst first; of several waits the longest. Pure."""
    if failure is not None:
        return Health(status=HealthStatus.FAILED, error=failure)
    if not opened:
        return Health(status=HealthStatus.CLOSED)
    if stopped is not None:
        return Health(status=HealthStatus.STOPPED, error=stopped[0], since=stopped[1])
    wait = min(waits, key=lambda each: each.since, default=None)
    if wait is not None:
        return Health(status=HealthStatus.WAITING, error=wait.error, since=wait.since)
    return Health(status=HealthStatus.OK)


def may_pass(error: AsyncpipeError | None) -> bool:
    """Whether what stopped submitting may come right without anybody doing anything."""
    return isinstance(error, NotAccepted | DiskError | DownloadError)


class Waits:
    """What submitting waits for, by a word each; ``clock`` gives the loop's seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waits: dict[str, Wait] = {}
        self._said: dict[str, float] = {}

    @property
    def all(self) -> list[Wait]:
        """Everything that is waited for now."""
        clock = self._clock()
        return [wait for wait in self._waits.values() if wait.until > clock]

    def note(self, what: str, error: AsyncpipeError, *, for_s: float = float("inf")) -> None:
        """Wait for ``what``, or go on waiting; without another note it counts ``for_s`` seconds."""
        clock = self._clock()
        known = self._waits.get(what)
        begins = known is None or known.until <= clock
        since = now() if known is None or begins else known.since
        self._waits[what] = Wait(error=error, since=since, until=clock + for_s)
        if begins or clock - self._said[what] >= SAID_EVERY_S:
            self._said[what] = clock
            logger.warning("waiting: %s", error, extra={"action": f"{what}.waiting"})

    def end(self, what: str) -> None:
        """Wait for it no longer."""
        if self._waits.pop(what, None) is not None:
            logger.info("%s: no more waiting", what, extra={"action": f"{what}.back"})
