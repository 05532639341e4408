"""One look through a job file before anything is spent: rows, prices, models and fields."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from asyncpipe.errors import JobFileError, LedgerError, Problem, UsageError
from asyncpipe.jobfile import JobFile, JobRow
from asyncpipe.ledger.runs import Taken, taken
from asyncpipe.ledger.sqlite import ledger_path, reading
from asyncpipe.pricing import Price, Prices, books_of

SHOWN = 5
"""First jobs that are kept to be shown."""

BEAT_S = 2.0
"""How often a long look says how far it is, in seconds."""

T = TypeVar("T")
Echo = Callable[[str], None]


class Watch(Protocol):
    """What looks at every row besides prices."""

    async def look(self, row: JobRow) -> None:
        """Look at one row; what is wrong with it is kept for ``problems``."""

    def problems(self) -> list[Problem]:
        """What was found."""


@dataclass(kw_only=True, slots=True)
class Estimate:
    """What a job file costs, by model; its memory does not grow with the jobs."""

    jobs: Counter[str] = field(default_factory=Counter)
    costs: Counter[str] = field(default_factory=Counter)
    sources: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    assumed: Counter[str] = field(default_factory=Counter)
    first: list[tuple[JobRow, Price]] = field(default_factory=list)


class Pricing:
    """Price rows one by one; problems are one for each model."""

    def __init__(self, file: JobFile) -> None:
        self._file = str(file.path)
        self._prices = Prices(books_of(file.settings.prices))
        self._problems: dict[str, Problem] = {}
        self.estimate = Estimate()

    def take(self, row: JobRow) -> None:
        """Price one row."""
        model, found = row.job.model, self.estimate
        try:
            price = self._prices.of(row.job)
        except UsageError as exc:
            if model not in self._problems:
                place = row.file or self._file
                self._problems[model] = Problem(message=str(exc), file=place, line=row.line)
            return
        if len(found.first) < SHOWN:
            found.first.append((row, price))
        found.jobs[model] += 1
        found.costs[model] += price.micro
        found.sources[price.source].add(model)
        if price.assumed:
            found.assumed.update(price.assumed)

    def end(self) -> Estimate:
        """The estimate; raises JobFileError naming every model that has no price."""
        if self._problems:
            raise JobFileError(list(self._problems.values()))
        return self.estimate


def price_all(file: JobFile) -> Estimate:
    """Check and price every job; raises JobFileError for whatever is wrong."""
    pricing = Pricing(file)
    for row in file.rows:
        pricing.take(row)
    return pricing.end()


async def look_through(file: JobFile, watch: Watch | None, echo: Echo) -> Estimate:
    """Like ``price_all``, with ``watch`` looking at each row, too, and progress said."""
    pricing = Pricing(file)
    for row in told(file.rows, "checked", echo):
        pricing.take(row)
        if watch is not None:
            await watch.look(row)
    estimate = pricing.end()
    if watch is not None and (problems := watch.problems()):
        raise JobFileError(problems)
    return estimate


def told(jobs: Iterable[T], verb: str, echo: Echo) -> Iterator[T]:
    """Pass ``jobs`` on and say now and then how many they are."""
    said = time.monotonic()
    for n, job in enumerate(jobs, start=1):
        yield job
        if n % 1000 == 0 and (now := time.monotonic()) - said >= BEAT_S:
            said = now
            echo(f"  {n} jobs {verb}")


def known(folder: Path, digest: str) -> Taken | None:
    """Whether a folder's last run took the very same jobs: then they need no second look."""
    if not ledger_path(folder).exists():
        return None
    try:
        with reading(folder) as connection:
            return taken(connection, digest)
    except LedgerError:  # said by the run that opens it; or of a version without digests
        return None
