"""Media that could not be fetched yet: when to come again, and when they are gone: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from asyncpipe._tasks import backoff_s
from asyncpipe.errors import DownloadError, MediaGone, TooLarge
from asyncpipe.jobs import Event, FetchFailed, JobRecord, Lost, Missing

INITIAL_S = 2.0
"""The first pause between two downloads of a job; each is twice the one before."""

MAXIMUM_S = 60.0
"""The longest pause of ours."""

LONGEST_WISH_S = 300.0
"""A media server that wants us back later than that (Retry-After) is asked all the same."""

GONE_TRIES = 5
"""So many tries in a row are refused, over half a minute, before media count as gone for good."""

SHOWN = 5
"""So many missing files of a job are named."""

STEPS = 256
"""Getting this share further than any try before begins the pauses anew: at most so many times."""

PATIENCE_S = 600.0
"""How long a run with nothing else left to do waits for a download, where nobody says."""


@dataclass(slots=True)
class Chase:
    """What a run remembers of a job whose media it could not fetch yet.

    ``failures`` counts the tries in a row, ``due`` is when to come again, ``since`` when there last
    was good news: the first try, or one that got further. ``urls`` are newer places of outputs than
    the record has, by position. Times are the loop's.
    """

    since: float
    due: float = 0.0
    failures: int = 0
    urls: dict[int, str] = field(default_factory=dict)
    furthest: int = 0

    def failed(self, error: DownloadError, now: float, rng: Random) -> None:
        """Note a try that failed, and when the next one is due."""
        self.failures += 1
        if self._further(error):
            self.failures, self.since = 1, now
        pause_s = backoff_s(self.failures, rng, initial_s=INITIAL_S, maximum_s=MAXIMUM_S)
        self.due = now + max(pause_s, min(error.retry_after_s or 0.0, LONGEST_WISH_S))

    def _further(self, error: DownloadError) -> bool:
        """Whether a try kept enough more than any before to be good news."""
        # Not any byte: a server that gives one per try would keep a run up for ever.
        if error.have < self.furthest + max(1, (error.total or error.have) // STEPS):
            return False
        self.furthest = error.have
        return True


def may_help(error: DownloadError) -> bool:
    """Whether another try in the same run may end better."""
    return not isinstance(error, TooLarge)


def after_fetch(
    record: JobRecord, error: DownloadError, failures: int, at: datetime, *, retention_s: float
) -> Event | None:
    """What a failed try makes of a generated job; None: nothing that is not known already.

    Media are lost when they are gone where the provider says that they are, after its retention:
    up to then a refusal may pass (a firewall's page, a ban, a replica that lags behind). What has
    been delivered before is no more than missing, and not waited for as long.
    """
    submitted_at = record.attempt.submitted_at or record.attempt.intended_at or at
    kept = at - submitted_at < timedelta(seconds=retention_s)
    gone = isinstance(error, MediaGone) and failures >= GONE_TRIES
    if gone and record.attempt.delivered:
        names = ", ".join(asset.path for asset in record.attempt.missing[:SHOWN])
        return Missing(job_id=record.id, at=at, error=f"{names} is missing, and {error}")
    if gone and not kept:
        return Lost(job_id=record.id, at=at, error=str(error))
    if record.attempt.error == str(error):
        return None
    return FetchFailed(job_id=record.id, at=at, error=str(error))
