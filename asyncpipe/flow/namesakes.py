"""Which job each prediction id of late belongs to: two jobs never share one."""

from __future__ import annotations

KEPT = 8192
"""So many ids are remembered, the latest; memory must not grow with the batch."""


class Namesakes:
    """Notice when the provider answers a submit with a prediction that is another job's.

    A prediction is billed once, so charging both jobs for it would be wrong, and so would calling
    the second one free: a second prediction may have been bought under an id nobody was told.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._jobs: dict[str, int] = {}
        self._kept = kept

    def claim(self, prediction_id: str, job_id: int) -> bool:
        """Note that a prediction is this job's; False when it is another's already."""
        owner = self._jobs.pop(prediction_id, job_id)
        self._jobs[prediction_id] = owner
        if len(self._jobs) > self._kept:
            del self._jobs[next(iter(self._jobs))]
        return owner == job_id
