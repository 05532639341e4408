"""What stands in a ledger, as sums and counts: read once, then folded along as events come."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from asyncpipe.jobs import NOT_FOUND, Attempt, JobRecord, JobState, Noted, count_notes
from asyncpipe.ledger import Sums
from asyncpipe.pricing import from_micro


@dataclass(slots=True, kw_only=True)
class Totals:
    """What stands in a folder's ledger; amounts in USD, and inside in micro-dollars.

    ``jobs`` counts jobs by state, those removed from the job file before they were submitted
    apart (``removed``); ``in_doubt`` counts failed ones that an earlier attempt may have been
    charged for. Of ``charged``, ``estimated`` is charged by an estimate, and ``overrun`` is what
    ``overruns`` predictions cost beyond what was reserved. Of ``reserved``, ``held`` is that of
    ``lost_answers``: attempts of unknown outcome whose jobs went on. ``failures``, ``losses``
    (media that were paid for and are gone), ``doubts`` (unknown ones) and ``delays`` (media that
    could not be fetched yet) count jobs by cause. ``noted`` counts what the provider says beside
    outputs; ``assets`` stand.
    """

    jobs: Counter[JobState] = field(default_factory=Counter)
    in_doubt: int = 0
    removed: int = 0
    charged_micro: int = 0
    estimated_micro: int = 0
    overrun_micro: int = 0
    overruns: int = 0
    reserved_micro: int = 0
    held_micro: int = 0
    lost_answers: int = 0
    cost_by_model_micro: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)
    delays: Counter[str] = field(default_factory=Counter)
    noted: dict[str, Noted] = field(default_factory=dict)
    assets: int = 0
    bytes: int = 0

    def added(self, count: int) -> None:
        """Count jobs that were written down for the first time."""
        self.jobs[JobState.PENDING] += count

    def set_removed(self, removed: int) -> None:
        """Count so many of the pending jobs apart: they are in the job file no more."""
        self.jobs[JobState.PENDING] += self.removed - removed
        self.removed = removed

    @classmethod
    def of(cls, sums: Sums) -> Totals:
        """What a ledger counted; from then on ``fold`` counts along."""
        totals = cls(
            jobs=Counter(sums.states),
            in_doubt=sums.in_doubt,
            removed=sums.removed,
            noted=sums.noted,
            assets=sums.assets,
            bytes=sums.bytes,
        )
        totals.jobs[JobState.PENDING] -= sums.removed
        for row in sums.money:
            totals.charged_micro += row["charged"]
            totals.estimated_micro += row["estimated"]
            totals.overrun_micro += row["overrun"]
            totals.overruns += row["overruns"]
            totals.reserved_micro += row["reserved"]
            totals.held_micro += row["reserved"] if row["earlier"] else 0
            totals.lost_answers += row["lost"]
            if row["charged"]:
                totals.cost_by_model_micro[row["model"]] += row["charged"]
        for state, error, count in sums.causes:
            totals.count_cause(state, error, count)
        return totals

    def fold(self, before: JobRecord, after: JobRecord) -> None:
        """Count what became of a job."""
        was, now = before.attempt, after.attempt
        if before.state is not after.state:
            self._count(before, -1)
            self._count(after, 1)
        elif was.error is not now.error:
            self.count_cause(before.state, was.error, -1)
            self.count_cause(after.state, now.error, 1)
        earlier = before.earlier is not after.earlier
        if earlier or was.settled is not now.settled or was.reserved != now.reserved:
            self._count_money(before, -1)
            self._count_money(after, 1)
        if was.notes is not now.notes:
            self._note(before, -1)
            self._note(after, 1)
        if was.stored is not now.stored:
            gone, there = was.assets, now.assets
            self.assets += len(there) - len(gone)
            self.bytes += sum(a.size for a in there) - sum(a.size for a in gone)

    def _count(self, record: JobRecord, count: int) -> None:
        self.jobs[record.state] += count
        self.count_cause(record.state, record.attempt.error, count)

    def count_cause(self, state: JobState, error: str | None, count: int) -> None:
        """Count jobs that ended in ``state`` because of ``error``; other states have no causes.

        An API that puts a number of its own into every error must not fill the memory: beyond
        MOST_CAUSES they are counted together.
        """
        causes = self._causes(state)
        if causes is None or (state is JobState.GENERATED and not error):
            return
        cause = cause_of(error)
        if cause not in causes and (count < 0 or len(causes) >= MOST_CAUSES):
            cause = OTHER_CAUSES
        causes[cause] += count
        if not causes[cause]:
            del causes[cause]

    def _causes(self, state: JobState) -> Counter[str] | None:
        if state is JobState.FAILED:
            return self.failures
        if state is JobState.LOST:
            return self.losses
        if state is JobState.UNKNOWN:
            return self.doubts
        return self.delays if state is JobState.GENERATED else None

    def _note(self, record: JobRecord, count: int) -> None:
        if record.attempt.notes and record.attempt.outputs:
            count_notes(self.noted, record.name, record.attempt.notes, count)

    def _count_money(self, record: JobRecord, count: int) -> None:
        self.in_doubt += count * record.in_doubt
        for each in (record.attempt, *record.earlier):
            self.reserved_micro += count * each.reserved
            if each.paid:
                self._charge(record.job.model, count, each)
        for each in record.earlier:
            self.held_micro += count * each.reserved
            self.lost_answers += count * (each.settled is None)

    def _charge(self, model: str, count: int, attempt: Attempt) -> None:
        self.charged_micro += count * attempt.charged
        self.estimated_micro += count * attempt.charged if attempt.estimated else 0
        self.overrun_micro += count * attempt.overrun
        self.overruns += count * (attempt.overrun > 0)
        if attempt.charged:
            self.cost_by_model_micro[model] += count * attempt.charged

    @property
    def charged(self) -> Decimal:
        """What the jobs cost, in USD."""
        return from_micro(self.charged_micro)

    @property
    def reserved(self) -> Decimal:
        """What is reserved for jobs that may still be charged, in USD."""
        return from_micro(self.reserved_micro)

    @property
    def held(self) -> Decimal:
        """Of what is reserved, that for lost answers of jobs that went on, in USD."""
        return from_micro(self.held_micro)

    @property
    def estimated(self) -> Decimal:
        """Of what is charged, that by the provider's own estimate, in USD."""
        return from_micro(self.estimated_micro)

    @property
    def overrun(self) -> Decimal:
        """What predictions cost beyond what was reserved for them, in USD."""
        return from_micro(self.overrun_micro)

    @property
    def cost_by_model(self) -> dict[str, Decimal]:
        """What the jobs of each model cost, in USD."""
        return {model: from_micro(micro) for model, micro in self.cost_by_model_micro.items()}

    @property
    def successful(self) -> int:
        """Jobs whose assets all stand."""
        return self.jobs[JobState.SUCCEEDED]

    @property
    def failed(self) -> int:
        """Jobs that ended without their media, paid or not, unless that is in doubt."""
        return self.jobs[JobState.FAILED] + self.jobs[JobState.LOST] - self.in_doubt

    @property
    def missing(self) -> int:
        """Jobs whose assets stood, do not now, and cannot be had again."""
        return self.jobs[JobState.MISSING]

    @property
    def unknown(self) -> int:
        """Jobs that may have been bought, without anything to show for it."""
        return self.jobs[JobState.UNKNOWN] + self.in_doubt

    @property
    def not_found(self) -> int:
        """Those of them whose prediction was looked for, and surely is not in the list."""
        return sum(n for cause, n in self.doubts.items() if cause.endswith(NOT_FOUND))

    @property
    def pending(self) -> int:
        """Jobs that have not ended: never started, interrupted or expired."""
        open_states = (
            JobState.PENDING,
            JobState.SUBMITTING,
            JobState.SUBMITTED,
            JobState.GENERATED,
            JobState.EXPIRED,
        )
        return sum(self.jobs[state] for state in open_states)

    @property
    def in_flight(self) -> int:
        """Predictions the provider works on, as far as anybody knows."""
        return self.jobs[JobState.SUBMITTING] + self.jobs[JobState.SUBMITTED]

    @property
    def total(self) -> int:
        """All jobs the manifest speaks of."""
        return self.successful + self.missing + self.failed + self.unknown + self.pending


MOST_CAUSES = 200
"""So many causes of failures, and of losses, are counted one by one."""

OTHER_CAUSES = "other causes"

_URL = re.compile(r"https?://\S+")

_ITS_URL = "its URL"


def cause_of(error: str | None) -> str:
    """What jobs that ended for the same reason have in common: the error without its URLs."""
    return _URL.sub(_ITS_URL, error or "")


def delays_of(totals: Totals) -> Counter[str]:
    """Why media could not be fetched yet, in words that say whose fault it is."""
    delays: Counter[str] = Counter()
    for cause, count in totals.delays.items():
        sent = cause.startswith(f"{_ITS_URL} is ")  # "… is cut off", against "… answers 500"
        delays[
            cause.replace(_ITS_URL, "what the media host sends" if sent else "media host", 1)
        ] += count
    return delays
