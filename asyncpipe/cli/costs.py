"""What jobs cost together, and how that is said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asyncpipe._text import columns, printable, seconds
from asyncpipe.cli.typical import typical_s
from asyncpipe.flow.learned import Latency
from asyncpipe.jobs.job import Job
from asyncpipe.pricing.money import usd
from asyncpipe.pricing.price import Price
from asyncpipe.report.manifest import money

Measured = Callable[[str, Mapping[str, Any]], Latency | None]

MOST_ASSUMED = 10
"""Assumptions that are named; the others are counted."""


class Costs:
    """Add jobs up: per model, by source, with what was assumed; amounts are micro-dollars.

    ``measured`` says how long a job takes, as earlier runs learned it, or None.
    """

    def __init__(self, measured: Measured = lambda model, params: None) -> None:
        self._measured = measured
        self._timed = 0
        self.jobs: Counter[str] = Counter()
        self.costs: Counter[str] = Counter()
        self.sources: defaultdict[str, set[str]] = defaultdict(set)
        self.assumed: Counter[str] = Counter()
        self.reserved = 0
        self.estimated = 0
        self._least_s = self._most_s = self._longest_least_s = self._longest_s = 0.0

    @property
    def total(self) -> int:
        """What all of them cost."""
        return self.costs.total()

    def add(self, job: Job, price: Price, count: int = 1) -> None:
        """Count a job, and ``count`` - 1 others that cost the same."""
        self.jobs[job.model] += count
        self.costs[job.model] += price.micro * count
        self.sources[price.source].add(job.model)
        self.assumed.update(dict.fromkeys(price.assumed, count))
        self.reserved += price.to_reserve * count
        self.estimated += price.micro * count if price.estimated else 0
        least_s, most_s = self._takes_s(job, count)
        self._least_s += least_s * count
        self._most_s += most_s * count
        self._longest_least_s = max(self._longest_least_s, least_s)
        self._longest_s = max(self._longest_s, most_s)

    def _takes_s(self, job: Job, count: int) -> tuple[float, float]:
        found = self._measured(job.model, job.params)
        if found is None:
            return typical_s(job.model, job.kind)
        self._timed += count
        return found.median_s, found.p90_s

    @property
    def timed_by(self) -> str:
        """Where the times come from."""
        stated = "the times stated for such models"
        jobs = self.jobs.total()
        if not self._timed:
            return stated
        if self._timed == jobs:
            return "the times that earlier runs measured"
        return f"the times that earlier runs measured, for {jobs - self._timed} jobs by {stated}"

    def duration_s(self, workers: int) -> tuple[float, float]:
        """The least and the most seconds that ``workers`` predictions at once may take for all."""
        least_s = max(self._least_s / workers, self._longest_least_s)
        return least_s, max(self._most_s / workers, self._longest_s)

    def table(self) -> list[str]:
        """Jobs and cost of each model, and of all."""
        rows = [(model, self.jobs[model], self.costs[model]) for model in sorted(self.jobs)]
        rows.append(("total", self.jobs.total(), self.total))
        return columns([(name, f"{n:>6} jobs   {usd(cost):>12}") for name, n, cost in rows])

    def remarks(self, workers: int) -> Iterator[str]:
        """What is assumed, where the prices come from, what is not certain, how long it takes."""
        for what, n in self.assumed.most_common(MOST_ASSUMED):
            yield printable(f"assumed: {what}, for {n} jobs that do not say")
        if (left := len(self.assumed) - MOST_ASSUMED) > 0:
            yield f"assumed: {left} more things like these"
        for source, models in sorted(self.sources.items()):
            yield printable(f"prices of {len(models)} model(s) from: {source}")
        if self.estimated:
            more = self.reserved - self.total
            yield (
                f"{usd(self.estimated)} of it the provider only estimates: a run reserves "
                f"{usd(more)} more, and the bill may differ"
            )
        least_s, most_s = self.duration_s(workers)
        yield (
            f"roughly {seconds(least_s)} to {seconds(most_s)} with {workers} at once, if the API "
            f"takes so many, by {self.timed_by}"
        )

    def document(self, workers: int) -> dict[str, Any]:
        """The same as JSON values."""
        least_s, most_s = self.duration_s(workers)
        return {
            "jobs": self.jobs.total(),
            "total_cost": money(self.total),
            "currency": "USD",
            "cost_by_model": {model: money(self.costs[model]) for model in sorted(self.costs)},
            "jobs_by_model": dict(sorted(self.jobs.items())),
            "price_sources": {name: sorted(ids) for name, ids in sorted(self.sources.items())},
            "assumed": dict(self.assumed),
            "estimated_cost": money(self.estimated),
            "reserved": money(self.reserved),
            "duration_s": {
                "least": round(least_s, 1),
                "most": round(most_s, 1),
                "max_workers": workers,
                "by": self.timed_by.removeprefix("the "),
            },
        }
