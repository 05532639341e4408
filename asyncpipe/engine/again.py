"""Submits that bear a key: one whose answer was lost is sent again, and buys once all the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from random import Random

from asyncpipe._tasks import Retries
from asyncpipe.errors import NotAccepted, ProviderError, Rejected, SubmitStopped, SubmitUnknown
from asyncpipe.jobs import Attempt, Job, JobRecord, JobState
from asyncpipe.providers import HasKeys, Prediction, PredictionStatus, Provider

AGAIN = Retries(attempts=5, initial_s=1.0, maximum_s=8.0, longest_wish_s=8.0)
"""How often a lost submit is sent again in a row; whoever leaves waits for it, so not for long."""

MARGIN_S = 300.0
"""A key is not used so shortly before its end: a submit may be under way for as long."""


def new_key(provider: Provider) -> str | None:
    """A key that no submit has had, for a provider that takes one."""
    return uuid.uuid4().hex if isinstance(provider, HasKeys) else None


def is_keyed(record: JobRecord) -> bool:
    """Whether a job's submit was lost, and had a key: the provider may tell what it bought."""
    attempt = record.attempt
    lost = record.state is JobState.UNKNOWN and attempt.prediction_id is None
    return lost and attempt.submit_key is not None


def is_known_still(attempt: Attempt, ttl_s: float | None, at: datetime) -> bool:
    """Whether the provider surely knows an attempt's key at ``at``, and for a while after."""
    if attempt.submit_key is None or attempt.intended_at is None:
        return False
    age_s = (at - attempt.intended_at).total_seconds()
    # A clock that was set back makes an old key young: then nobody knows its age.
    return age_s >= 0 and (ttl_s is None or age_s + min(MARGIN_S, ttl_s / 2) < ttl_s)


def as_sent(record: JobRecord) -> Job | None:
    """The job just as its attempt sent it; None where the ledger cannot tell any more."""
    job, attempt = record.made_as, record.attempt
    if len(job.inputs) != len(attempt.uploads):
        return None
    job = job.sent_with(dict(zip(job.inputs, attempt.uploads, strict=True)))
    return job if job.digest == attempt.body else None


def is_lost(answer: Prediction | ProviderError) -> bool:
    """Whether an answer to a submit leaves open whether something was bought."""
    if isinstance(answer, ProviderError):
        return not isinstance(answer, NotAccepted | SubmitStopped | Rejected)
    final = answer.status is PredictionStatus.FAILED or answer.outputs
    return not (answer.id or final)


async def bought_with_key(
    send: Callable[[], Awaitable[Prediction | ProviderError]],
    lost: Prediction | ProviderError,
    *,
    may: Callable[[], bool],
    rng: Random,
    at_once: bool = False,
) -> Prediction | SubmitUnknown:
    """Send a lost submit again until what it bought is told; SubmitUnknown where it is not.

    ``may`` says whether it may still be sent; ``at_once``: it was not sent lately. Whatever else is
    answered says nothing of the first time it was sent.
    """
    answer: Prediction | ProviderError = lost
    for failures in range(int(not at_once), AGAIN.attempts + 1):
        if failures:
            pause_s = AGAIN.pause_s(failures, rng, getattr(answer, "retry_after_s", None))
            if pause_s is None or not may():
                break
            await asyncio.sleep(pause_s)
        if not may():
            break
        answer = await send()
        if isinstance(answer, Prediction) and not is_lost(answer):
            return answer
        if isinstance(answer, SubmitStopped | Rejected):
            break
    why = str(lost) if isinstance(lost, ProviderError) else "the provider named no prediction"
    if answer is not lost and str(answer) != why:
        said = answer if isinstance(answer, ProviderError) else "no prediction is named"
        why = f"{why}; sent again with its key: {said}"
    return SubmitUnknown(why, status=getattr(lost, "status", None), request_id=lost.request_id)
