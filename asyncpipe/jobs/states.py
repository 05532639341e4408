"""The states of a job and the one table of moves between them."""

from __future__ import annotations

from enum import StrEnum

from asyncpipe.errors import IllegalTransition


class JobState(StrEnum):
    """Where a job stands; the ledger stores these words."""

    PENDING = "pending"  # to be submitted
    SUBMITTING = "submitting"  # the intent is durable, the answer is not
    SUBMITTED = "submitted"  # the provider works on it; its id is durable
    GENERATED = "generated"  # paid and ready at the provider; not yet on disk
    SUCCEEDED = "succeeded"  # every asset stands, whole and verified
    FAILED = "failed"  # ended without media; charged or not, the attempt says
    EXPIRED = "expired"  # no answer by the deadline; polled again by the next run
    UNKNOWN = "unknown"  # may have been bought; its money stays reserved
    LOST = "lost"  # paid, and the media is gone for good
    MISSING = "missing"  # its files stood here and do not now, and the media is gone for good
    CANCELLED = "cancelled"  # withdrawn before it was submitted


_S = JobState

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.PENDING: frozenset({_S.SUBMITTING, _S.CANCELLED}),
    _S.SUBMITTING: frozenset({_S.SUBMITTED, _S.GENERATED, _S.FAILED, _S.PENDING, _S.UNKNOWN}),
    _S.SUBMITTED: frozenset({_S.GENERATED, _S.FAILED, _S.PENDING, _S.EXPIRED, _S.UNKNOWN}),
    _S.EXPIRED: frozenset({_S.SUBMITTED}),
    _S.UNKNOWN: frozenset({_S.SUBMITTED, _S.PENDING, _S.FAILED}),
    _S.GENERATED: frozenset({_S.SUCCEEDED, _S.LOST, _S.MISSING, _S.GENERATED}),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.SUCCEEDED: frozenset({_S.GENERATED}),
    _S.LOST: frozenset({_S.GENERATED}),
    _S.MISSING: frozenset({_S.SUCCEEDED, _S.GENERATED}),
    _S.CANCELLED: frozenset({_S.PENDING}),
}

ENDED: frozenset[JobState] = frozenset(
    {_S.SUCCEEDED, _S.FAILED, _S.UNKNOWN, _S.LOST, _S.MISSING, _S.CANCELLED}
)
"""States in which this run does no more for a job."""

STOOD: frozenset[JobState] = frozenset({_S.SUCCEEDED, _S.MISSING})
"""States of jobs all of whose files stood when they ended."""

PAID_OPEN: frozenset[JobState] = frozenset({_S.SUBMITTED, _S.GENERATED, _S.EXPIRED})
"""States of paid work that a later run takes up first, whatever its job file says."""


def advance(state: JobState, target: JobState) -> JobState:
    """Return ``target`` if the table allows the move from ``state``.

    Raises IllegalTransition otherwise.
    """
    if target not in TRANSITIONS[state]:
        raise IllegalTransition(f"no way from {state} to {target}")
    return target
