"""Fold events into totals: costs, counts, failures by cause; keep the manifest current."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from asyncpipe.jobs.events import AssetStored, Damaged, Event, LostSettled
from asyncpipe.jobs.record import MOVES_MONEY, JobRecord
from asyncpipe.jobs.states import JobState

logger = logging.getLogger("asyncpipe.collector")

Hook = Callable[[Event, JobRecord], None]
"""Called once for every event, with the job as it stands after it; must not block."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """What stands in a folder's ledger; amounts in micro-dollars.

    ``jobs`` counts jobs by state, those removed from the job file before they were submitted
    apart (``removed``); ``in_doubt`` counts failed ones that an earlier attempt may have been
    charged for. Of ``charged``, ``estimated`` is charged by an estimate, and ``overrun`` is what
    ``overruns`` predictions cost beyond what was reserved. Of ``reserved``, ``held`` is that of
    ``lost_answers``: attempts of unknown outcome whose jobs went on. ``failures`` and ``losses``
    (media that were paid for and are gone) count jobs by cause.
    """

    jobs: Counter[JobState] = field(default_factory=Counter)
    in_doubt: int = 0
    removed: int = 0
    charged: int = 0
    estimated: int = 0
    overrun: int = 0
    overruns: int = 0
    reserved: int = 0
    held: int = 0
    lost_answers: int = 0
    cost_by_model: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    assets: int = 0
    bytes: int = 0

    def fold(self, before: JobRecord, event: Event, after: JobRecord) -> None:
        """Count what ``event`` changed."""
        if before.lost or after.lost:
            self.in_doubt += after.in_doubt - before.in_doubt
        if type(event) in MOVES_MONEY:
            self._fold_money(before, event, after)
        if before.state is not after.state:
            self._count(before, -1)
            self._count(after, 1)
        if isinstance(event, AssetStored):
            self.assets += 1
            self.bytes += event.size
        elif isinstance(event, Damaged):
            self.assets -= len(event.indexes)
            self.bytes -= event.size

    def _count(self, record: JobRecord, count: int) -> None:
        self.jobs[record.state] += count
        if record.state in _WITH_CAUSE:
            self.count_cause(record.state, record.error, count)

    def count_cause(self, state: JobState, error: str | None, count: int) -> None:
        """Count jobs that ended in ``state`` because of ``error``; other states have no causes.

        An API that puts a number of its own into every error must not fill the memory: beyond
        MOST_CAUSES they are counted together.
        """
        if state not in _WITH_CAUSE:
            return
        causes = self.failures if state is JobState.FAILED else self.losses
        cause = cause_of(error)
        if cause not in causes and (count < 0 or len(causes) >= MOST_CAUSES):
            cause = OTHER_CAUSES
        causes[cause] += count
        if not causes[cause]:
            del causes[cause]

    def _fold_money(self, before: JobRecord, event: Event, after: JobRecord) -> None:
        self.reserved += after.reserved + after.held - before.reserved - before.held
        if before.lost or after.lost:
            self.held += after.held - before.held
            self.lost_answers += after.lost - before.lost
        charged = after.spent - before.spent
        estimated = charged if isinstance(event, LostSettled) and event.estimated else 0
        if after.paid and not before.paid:
            charged += after.charged
            estimated += after.charged if after.estimated else 0
            self.overrun += after.overrun
            self.overruns += after.overrun > 0
        self.charged += charged
        self.estimated += estimated
        if charged:
            self.cost_by_model[after.job.model] += charged

    @property
    def successful(self) -> int:
        """Jobs whose assets all stand."""
        return self.jobs[JobState.SUCCEEDED]

    @property
    def failed(self) -> int:
        """Jobs that ended without their media, paid or not, unless that is in doubt."""
        return self.jobs[JobState.FAILED] + self.jobs[JobState.LOST] - self.in_doubt

    @property
    def unknown(self) -> int:
        """Jobs that may have been bought, without anything to show for it."""
        return self.jobs[JobState.UNKNOWN] + self.in_doubt

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
        return self.successful + self.failed + self.unknown + self.pending


_WITH_CAUSE = (JobState.FAILED, JobState.LOST)

MOST_CAUSES = 200
"""So many causes of failures, and of losses, are counted one by one."""

OTHER_CAUSES = "other causes"

_URL = re.compile(r"https?://\S+")


def cause_of(error: str | None) -> str:
    """What jobs that ended for the same reason have in common: the error without its URLs."""
    return _URL.sub("its URL", error or "")


class Collector:
    """Receive every event, fold it, pass it on, and write the manifest now and then.

    ``receive`` is synchronous; what came in one tick of the loop is folded together right after
    it, ``run`` writes manifests in its own coroutine: neither a slow hook nor a large manifest
    holds a job up. A hook that raises is logged and called again.
    """

    def __init__(
        self,
        totals: Totals,
        write_manifest: Callable[[], Awaitable[object]],
        hooks: tuple[Hook, ...],
    ) -> None:
        self.totals = totals
        self._write = write_manifest
        self._hooks = hooks
        self._received: deque[tuple[JobRecord, Event, JobRecord]] = deque()
        self._changed = asyncio.Event()

    def receive(self, before: JobRecord, event: Event, after: JobRecord) -> None:
        """Take one event; called in the order things happened."""
        if not self._received:
            # Not a coroutine that is woken: that costs more than all the folding.
            asyncio.get_running_loop().call_soon(self.drain)
        self._received.append((before, event, after))

    def drain(self) -> None:
        """Fold everything received so far."""
        if any(event.stored for _, event, _ in self._received):
            self._changed.set()
        while self._received:
            before, event, after = self._received.popleft()
            self.totals.fold(before, event, after)
            for hook in self._hooks:
                try:
                    hook(event, after)
                except Exception:  # a user's hook must not stop paid work
                    logger.exception("hook failed", extra={"action": "hook.failed"})

    async def run(self) -> None:
        """Write the manifest for ever when it is old: every max(10 s, 50 x its own duration).

        That is measured by a real clock: in virtual time writing takes none, and a long test would
        spend its life writing.
        """
        clock = asyncio.get_running_loop().time
        took_s = 0.0
        while True:
            await self._changed.wait()
            began, left_s = clock(), MANIFEST_EVERY_S
            while left_s > ABOUT_S:
                await asyncio.sleep(left_s)
                self.drain()
                rows = self.totals.total - self.totals.pending
                left_s = began + manifest_due_s(rows, took_s) - clock()
            self._changed.clear()
            started = time.perf_counter()
            await self._write()
            took_s = time.perf_counter() - started


MANIFEST_EVERY_S = 10.0
"""Shortest time between two interim manifests."""

MANIFEST_PAUSE = 50
"""A pause of so many times as long as it took follows on a manifest."""

ABOUT_S = 0.001
"""What is left by rounding is not waited for: a clock that is far on does not show it."""

ROW_S = 2e-5
"""About what one row of it takes; the first one's duration is not known otherwise."""


def manifest_due_s(rows: int, took_s: float) -> float:
    """How long after the last manifest the next is due: it shall take 2 % of the time at most."""
    return max(MANIFEST_EVERY_S, MANIFEST_PAUSE * max(took_s, rows * ROW_S))
