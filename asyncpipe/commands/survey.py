"""One survey of a job file before anything is spent: what kinds of jobs are in it, and what not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import anyio.lowlevel

from asyncpipe.commands.precheck import CatalogueCheck
from asyncpipe.errors import JobFileError, Problem, UsageError
from asyncpipe.jobfile import JobFile, JobRow
from asyncpipe.jobs import Job
from asyncpipe.pricing import Price, PriceBook, Prices, Quotes, Unpriced, books_of, price_key
from asyncpipe.providers import known_prices

QUOTES_S = 120.0
"""Longest wait for the quotes of one job file."""

BEAT_S = 2.0
"""How often a long look says how far it is, in seconds."""

MOST_KINDS = 5000
"""More are not told apart by all that a quote depends on: no provider is asked for so many."""

T = TypeVar("T")

Echo = Callable[[str], None]

Wanted = Callable[[Job], bool]
"""Whether a job is still to be bought."""


@dataclass(slots=True)
class Kind:
    """Jobs that cost the same: the first of them, and how many they are.

    ``price`` is that of the tables; without it ``trouble`` says why there is none.
    """

    row: JobRow
    price: Price | None
    trouble: UsageError | None
    count: int = 0


class Survey:
    """The jobs of a file by what their price depends on: a row of each kind stands for all.

    What has no price is a problem only where it is ``wanted``; with ``only_wanted`` nothing else is
    counted. Memory follows the number of kinds, MOST_KINDS and a few of each model at most.
    """

    def __init__(
        self,
        file: JobFile,
        prices: Prices,
        *,
        wanted: Wanted = lambda job: True,
        only_wanted: bool = False,
    ) -> None:
        self.jobs = 0
        self._file, self._prices = str(file.path), prices
        self._wanted, self._only_wanted = wanted, only_wanted
        self._kinds: dict[object, Kind] = {}

    @property
    def kinds(self) -> list[Kind]:
        """The kinds there are, in the file's order."""
        return [kind for kind in self._kinds.values() if kind.count]

    @property
    def unpriced(self) -> list[Kind]:
        """Those whose model no table prices: the provider may be asked."""
        return [kind for kind in self.kinds if isinstance(kind.trouble, Unpriced)]

    def add(self, row: JobRow) -> None:
        """Count one job."""
        self.jobs += 1
        if self._only_wanted and not self._wanted(row.job):
            return
        key = price_key(row.job)
        kind = self._kinds.get(key) or self._new(key, row)
        if kind.trouble is not None and not kind.count:
            if not self._wanted(row.job):
                return
            kind.row = row
        kind.count += 1

    def _new(self, key: object, row: JobRow) -> Kind:
        price, trouble = _priced(row, self._prices)
        new = Kind(row, price, trouble)
        if len(self._kinds) < MOST_KINDS:
            return self._kinds.setdefault(key, new)
        amount = price.micro if price and len(self._kinds) < 2 * MOST_KINDS else None
        kind = self._kinds.setdefault((row.job.model, amount), new)
        if price and kind.price and price.micro > kind.price.micro:
            kind.row, kind.price = row, price  # the dearest stands for all: too much is no harm
        return kind

    def check(self) -> None:
        """Raise JobFileError for what cannot be priced, but for models that no table knows."""
        found = [(kind, kind.trouble) for kind in self.kinds if kind.trouble]
        self._refuse(found, but_for_unpriced=True)

    async def ask(self, quoting: Quotes, kinds: Iterable[Kind]) -> None:
        """Ask what one of each costs."""
        for kind in kinds:
            quoting.want(kind.row.job)
        await quoting.fill(limit_s=QUOTES_S)

    def priced(self, quoting: Quotes | None = None) -> list[tuple[Kind, Price]]:
        """Each kind with its price, a quote where there is one; raises JobFileError without any."""
        prices = self._prices if quoting is None else replace(self._prices, quotes=quoting.quotes)
        found = [(kind, *_priced(kind.row, prices)) for kind in self.kinds]
        refusal = quoting.refusal if quoting is not None else None
        if refusal is not None and any(isinstance(why, Unpriced) for _, _, why in found):
            raise refusal  # not that a price is lacking: that follows from it
        self._refuse([(kind, trouble) for kind, _, trouble in found if trouble])
        return [(kind, price) for kind, price, _ in found if price]

    def _refuse(
        self, troubles: Iterable[tuple[Kind, UsageError]], *, but_for_unpriced: bool = False
    ) -> None:
        """Raise JobFileError naming every model once, by its first line."""
        first: dict[str, tuple[Kind, UsageError]] = {}
        for kind, trouble in troubles:
            first.setdefault(kind.row.job.model, (kind, trouble))
        problems = [
            Problem(message=str(why), file=kind.row.file or self._file, line=kind.row.line)
            for kind, why in first.values()
            if not (but_for_unpriced and isinstance(why, Unpriced))
        ]
        if problems:
            raise JobFileError(problems)


def _priced(row: JobRow, prices: Prices) -> tuple[Price | None, UsageError | None]:
    try:
        return prices.of(row.job), None
    except UsageError as exc:
        return None, exc


async def survey_rows(
    found: Survey, rows: Iterable[JobRow], echo: Echo, models: CatalogueCheck | None = None
) -> None:
    """Look at every job once, with ``models`` by the catalogue, too; progress is said.

    Raises JobFileError for everything but models that no table prices.
    """
    for row in told(rows, "checked", echo):
        if found.jobs % 1000 == 0:
            await anyio.lowlevel.checkpoint()  # a long file can be interrupted
        found.add(row)
        if models is not None:
            await models.look(row)
    found.check()
    if models is not None and (problems := models.problems()):
        raise JobFileError(problems)


def prices_of(
    file: JobFile,
    book: PriceBook | None,
    *,
    provider: str,
    base_url: str | None = None,
    simulated: bool = False,
) -> Prices:
    """Every source of prices of a job file, the user's price file and the provider; no quotes yet.

    ``base_url`` and ``simulated`` say where the provider is, as for ``providers.connect``.
    """
    own = known_prices(provider, base_url=base_url, simulated=simulated)
    return Prices(
        books=books_of(file.settings.prices, book, own),
        estimate_factor=file.settings.estimate_factor,
    )


def told(jobs: Iterable[T], verb: str, echo: Echo) -> Iterator[T]:
    """Pass ``jobs`` on and say now and then how many they are."""
    said = time.monotonic()
    for n, job in enumerate(jobs, start=1):
        yield job
        if n % 1000 == 0 and (now := time.monotonic()) - said >= BEAT_S:
            said = now
            echo(f"  {n} jobs {verb}")
