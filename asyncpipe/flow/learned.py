"""The learned policy: poll when predictions of the same kind have been found to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from asyncpipe.flow.lifetimes import BINS, EDGES, UNKNOWN, Distribution, LifeTable, position
from asyncpipe.flow.polling import BackoffPolicy, Finding, PollPolicy, fixed_gap, poll_gap
from asyncpipe.jobs import Job, Polling

PRICE_S = 2.0
"""Seconds of delay that one poll less is worth."""

TAIL_PRICE_S = 0.4
"""The same when nothing waits to be submitted: then every second of delay is the run's."""

JITTER = 0.05
"""Gaps are stretched or shrunk by up to this share, so that jobs do not poll in step."""

COLD_JOBS = 5.0

COLD_FIRST_S = 3.0
"""Until so many ends were seen, the first look is within so many seconds."""

CLASS_JOBS = 20.0
"""From so many ends on, jobs with the same parameters are a law of their own."""

MOST_CLASSES = 32

CLASS_FIELDS = ("duration", "resolution")

_AFTER_ERRORS = Polling(policy="backoff")


class Latency(NamedTuple):
    """How long a prediction takes from its submit, in seconds: half, nine in ten, the mean."""

    median_s: float
    p90_s: float
    mean_s: float


def class_of(params: Mapping[str, Any]) -> str:
    """The parameters that decide how long a prediction takes, as one word; empty without any."""
    said = [f"{name}={params[name]}" for name in CLASS_FIELDS if _plain(params.get(name))]
    return ",".join(said)


def _plain(value: Any) -> bool:
    return isinstance(value, int | float | str) and len(str(value)) <= 20


@dataclass(slots=True)
class _Planned:
    """A law and the plans made for it as it was last renewed, by price."""

    law: LifeTable = field(default_factory=LifeTable)
    shape: Distribution = UNKNOWN
    plans: dict[float, PollPlan] = field(default_factory=dict)
    taught: bool = False

    def plan(self, price_s: float, most_gap_s: float) -> PollPlan:
        law = self.law
        if law.due:
            law.renew()
        if self.shape is not law.shape:
            self.shape = law.shape
            self.plans.clear()
        if price_s not in self.plans:
            self.plans[price_s] = plan_of(law.shape, price_s, most_gap_s)
        return self.plans[price_s]

    def note(self, since_s: float, age_s: float, found: Finding) -> None:
        self.taught = True
        if found is Finding.RUNNING:
            self.law.running(since_s, age_s)
        else:
            self.law.ended(since_s, age_s)


@dataclass(slots=True)
class _ModelTimes:
    """What is known of one model, and of its classes."""

    all: _Planned = field(default_factory=_Planned)
    classes: dict[str, _Planned] = field(default_factory=dict)

    def of(self, name: str) -> tuple[_Planned, ...]:
        """What a prediction of class ``name`` teaches: the model, and its class if there is one."""
        if name and (name in self.classes or len(self.classes) < MOST_CLASSES):
            return self.all, self.classes.setdefault(name, _Planned())
        return (self.all,)


class Learned:
    """Laws and plans of all models of one run.

    ``tail`` says whether nothing waits to be submitted. ``kept`` is what earlier runs learned, by
    model, as ``lessons`` told it; what is no such thing is ignored. ``polling.speed`` is how many
    times as fast the provider's time runs; laws and plans are in the provider's seconds.
    """

    def __init__(
        self,
        polling: Polling,
        rng: Random,
        tail: Callable[[], bool],
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        self.rng = rng
        self.speed = polling.speed
        self.most_gap_s = polling.maximum_s
        self._tail = tail
        self._models = {model: _read(entry) for model, entry in (kept or {}).items()}

    @property
    def price_s(self) -> float:
        """What a poll is worth now, in seconds of delay."""
        return TAIL_PRICE_S if self._tail() else PRICE_S

    def watch(self, job: Job, *, resumed: bool = False) -> LearnedSchedule:
        """The watch of one prediction; nobody knows how one fared that an earlier run left."""
        model = self._models.setdefault(job.model, _ModelTimes())
        return LearnedSchedule(self, model.of(class_of(job.params)), None if resumed else 0.0)

    def lessons(self) -> dict[str, Any]:
        """What this run has learned, by model: JSON for ``kept`` of the next one."""
        return {name: _written(model) for name, model in self._models.items() if model.all.taught}

    def latency(self, model: str, params: Mapping[str, Any]) -> Latency | None:
        """How long a prediction takes, in our seconds; None where too little is known."""
        known = self._models.get(model)
        return _latency(known, params, self.speed) if known else None


@dataclass(slots=True)
class LearnedSchedule:
    """When to poll one prediction, by the laws it belongs to."""

    home: Learned
    known: tuple[_Planned, ...]
    since_s: float | None  # age, in the provider's seconds, at which it was last known to run
    errors: int = 0

    def gap_s(self, age_s: float) -> float:
        """How long to wait for the next poll."""
        home = self.home
        if self.errors:
            return poll_gap(_AFTER_ERRORS, self.errors - 1, home.rng) / home.speed
        planned = _best(self.known)
        plan = planned.plan(home.price_s, home.most_gap_s)
        age_s *= home.speed
        gap_s = plan.gap_s(age_s)
        if self.since_s == 0.0:
            cold = planned.law.seen < COLD_JOBS
            gap_s = max((min(plan.first_s, COLD_FIRST_S) if cold else plan.first_s) - age_s, 0.0)
        return gap_s * home.rng.uniform(1 - JITTER, 1 + JITTER) / home.speed

    def note(self, age_s: float, found: Finding) -> None:
        """Learn from a poll; one that failed is no information."""
        if found is Finding.NOTHING:
            self.errors += 1
            return
        self.errors = 0
        age_s *= self.home.speed
        since_s, self.since_s = self.since_s, age_s
        if since_s is not None:
            for planned in self.known:
                planned.note(since_s, age_s, found)


def _best(known: tuple[_Planned, ...]) -> _Planned:
    """The class where it has seen enough, else the model."""
    return known[-1] if known[-1].law.seen >= CLASS_JOBS else known[0]


def _latency(model: _ModelTimes, params: Mapping[str, Any], speed: float) -> Latency | None:
    own = model.classes.get(class_of(params))
    planned = _best((model.all, own) if own else (model.all,))
    if planned.law.seen < COLD_JOBS:
        return None
    planned.law.renew()
    shape = planned.law.shape
    return Latency(
        shape.quantile(0.5) / speed, shape.quantile(0.9) / speed, shape.moment[-1] / speed
    )


def _written(model: _ModelTimes) -> dict[str, Any]:
    classes = {
        name: planned.law.to_json()
        for name, planned in model.classes.items()
        if planned.law.seen >= CLASS_JOBS
    }
    return {"all": model.all.law.to_json(), "classes": classes}


def _read(entry: Any) -> _ModelTimes:
    """What ``_written`` wrote; whatever else it is given comes to an empty model."""
    entry = entry if isinstance(entry, Mapping) else {}
    classes = entry.get("classes")
    laws = {
        str(name): LifeTable.from_json(kept)
        for name, kept in (classes.items() if isinstance(classes, Mapping) else ())
    }
    return _ModelTimes(
        all=_Planned(LifeTable.from_json(entry.get("all")) or LifeTable()),
        classes={name: _Planned(law) for name, law in laws.items() if law is not None},
    )


LEAST_GAP_S = 1.0

MOST_GAP_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PollPlan:
    """Ages at which to look: ``first_s``, and ``after[n]`` where it ran at age EDGES[n]."""

    first_s: float
    after: tuple[float, ...]
    most_gap_s: float = MOST_GAP_S

    def gap_s(self, age_s: float) -> float:
        """Seconds to wait for the next poll of a prediction that was running at ``age_s``."""
        if age_s >= EDGES[-1]:
            return self.most_gap_s
        place = position(age_s)
        n = min(int(place), BINS - 1)
        due = self.after[n] + (place - n) * (self.after[n + 1] - self.after[n])
        return min(max(due - age_s, LEAST_GAP_S), self.most_gap_s)


def plan_of(shape: Distribution, price_s: float, most_gap_s: float = MOST_GAP_S) -> PollPlan:
    """The plan with the least expected delay + ``price_s`` x polls, by Barlow, Hunter, Proschan.

    Gaps are from LEAST_GAP_S to ``most_gap_s``. Only the first look may come later: at half the
    median, which is early enough to see that the provider has become faster.
    """
    first_s = max(most_gap_s, shape.quantile(0.5) / 2)
    best = [BINS] * (BINS + 1)
    cost = [0.0] * (BINS + 1)  # of all polls and delays after an edge, of those alive there
    for n in range(BINS - 1, -1, -1):
        end = EDGES[n] + (most_gap_s if n else first_s)
        # Who is seen alive later is looked at again later: no need to search beyond best[n + 1].
        best[n], least = _cheapest(shape, cost, n, end, best[n + 1] if n else BINS)
        cost[n] = price_s * shape.alive[n] + least
    after = tuple(EDGES[n] for n in best)
    return PollPlan(
        first_s=min(max(after[0], LEAST_GAP_S), first_s), after=after, most_gap_s=most_gap_s
    )


def _cheapest(
    shape: Distribution, cost: list[float], n: int, end: float, last: int
) -> tuple[int, float]:
    """The edge for the next poll after edge ``n``, up to age ``end``, and what it will cost."""
    alive, moment = shape.alive, shape.moment
    start = EDGES[n] + LEAST_GAP_S
    chosen, least = n + 1, math.inf
    for j in range(n + 1, last + 1):
        edge = EDGES[j]
        if least < math.inf and edge > end:
            break
        if edge < start and j < last:
            continue
        # The delay of those that end on the way, and what is still to come.
        total = edge * (alive[n] - alive[j]) - (moment[j] - moment[n]) + cost[j]
        if total < least:
            chosen, least = j, total
    return chosen, least


def policy_of(
    polling: Polling,
    rng: Random,
    *,
    tail: Callable[[], bool],
    kept: Mapping[str, Any] | None = None,
) -> PollPolicy:
    """The policy that ``polling`` names; ``tail`` and ``kept`` are for the learned one."""
    if polling.policy == "learned":
        return Learned(polling, rng, tail, kept)
    gap = fixed_gap if polling.policy == "fixed" else poll_gap
    return BackoffPolicy(lambda polls: gap(polling, polls, rng) / polling.speed)
