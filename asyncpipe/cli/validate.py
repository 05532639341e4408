"""One look through a job file before anything is spent: rows, prices, models and fields."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import anyio.lowlevel
import click
import orjson

from asyncpipe._text import fit, json_text, printable
from asyncpipe.errors import JobFileError, LedgerError, Problem, UsageError
from asyncpipe.jobfile import JobFile, JobRow, load_price_file, open_jobs
from asyncpipe.jobs import Job
from asyncpipe.ledger import Taken, ledger_path, reading
from asyncpipe.pricing import Price, Prices, Quotes, Unpriced, books_of, price_key, usd
from asyncpipe.providers import DEFAULT_PROVIDER
from asyncpipe.report import money

QUOTES_S = 120.0
"""Longest wait for the quotes of one job file."""

BEAT_S = 2.0
"""How often a long look says how far it is, in seconds."""

T = TypeVar("T")

Echo = Callable[[str], None]

Take = Callable[[JobRow, Price], None]

Wanted = Callable[[Job], bool]


class Watch(Protocol):
    """What looks at every row besides prices."""

    async def look(self, row: JobRow) -> None:
        """Look at one row; what is wrong with it is kept for ``problems``."""

    def problems(self) -> list[Problem]:
        """What was found."""


def all_of_them(job: Job) -> bool:
    """Every job is to be bought."""
    return True


def prices_of(file: JobFile, price_file: Path | None) -> Prices:
    """Every source of prices that a job file and the user name, no quotes yet.

    Raises JobFileError for the price file's problems.
    """
    book = None if price_file is None else load_price_file(price_file)
    return Prices(
        books=books_of(file.settings.prices, book), estimate_factor=file.settings.estimate_factor
    )


class Pricing:
    """Price rows one by one; problems are one for each model, of jobs that are ``wanted``.

    ``take`` receives the wanted ones with their prices. ``unpriced`` are models that no source
    prices yet; the provider may be asked for them.
    """

    def __init__(
        self,
        file: JobFile,
        prices: Prices,
        take: Take | None = None,
        *,
        wanted: Wanted = all_of_them,
    ) -> None:
        self._file, self._prices = str(file.path), prices
        self._take, self._wanted = take, wanted
        self._problems: dict[str, Problem] = {}
        self.unpriced: set[str] = set()

    def look(self, row: JobRow) -> Price | None:
        """Price one row; None, and a problem kept, where that cannot be."""
        try:
            price = self._prices.of(row.job)
        except UsageError as exc:
            self._note(row, exc)
            return None
        if self._take is not None and self._wanted(row.job):
            self._take(row, price)
        return price

    def _note(self, row: JobRow, error: UsageError) -> None:
        model = row.job.model
        if model not in self._problems and self._wanted(row.job):
            place = row.file or self._file
            self._problems[model] = Problem(message=str(error), file=place, line=row.line)
            if isinstance(error, Unpriced):
                self.unpriced.add(model)

    def end(self, *, but_for_unpriced: bool = False) -> None:
        """Raise JobFileError naming every model with a problem, once, by its first line."""
        unsaid = self.unpriced if but_for_unpriced else ()
        if found := [each for model, each in self._problems.items() if model not in unsaid]:
            raise JobFileError(found)


class Kinds:
    """Jobs counted by what their price depends on: the first row of each kind stands for all.

    A file is read once, and kept are as many rows as there are different prices.
    """

    def __init__(
        self, file: JobFile, *, wanted: Wanted = all_of_them, echo: Echo = lambda line: None
    ) -> None:
        self._file = file
        self._first: dict[bytes, JobRow] = {}
        self._counts: Counter[bytes] = Counter()
        for row in told(file.rows, "counted", echo):
            if wanted(row.job):
                key = price_key(row.job)
                self._first.setdefault(key, row)
                self._counts[key] += 1

    async def ask(self, quoting: Quotes) -> None:
        """Ask what one of each costs."""
        for row in self._first.values():
            quoting.want(row.job)
        await quoting.fill(limit_s=QUOTES_S)

    def price(self, prices: Prices, take: Callable[[Job, Price, int], None]) -> None:
        """Hand one of each to ``take``, with its price and how many they are.

        Raises JobFileError naming every model that has no price, once, by its first line.
        """
        pricing = Pricing(self._file, prices)
        for key, row in self._first.items():
            if (price := pricing.look(row)) is not None:
                take(row.job, price, self._counts[key])
        pricing.end()


def price_rows(file: JobFile, prices: Prices, take: Take, *, wanted: Wanted = all_of_them) -> None:
    """Price the jobs that are ``wanted`` and hand each to ``take``; raises JobFileError."""
    pricing = Pricing(file, prices, take, wanted=wanted)
    for row in file.rows:
        pricing.look(row)
    pricing.end()


async def ask_quotes(
    file: JobFile,
    quoting: Quotes,
    *,
    wanted: Wanted = all_of_them,
    models: Iterable[str],
) -> None:
    """Ask what ``wanted`` jobs of ``models`` cost, once per price key."""
    these = set(models)
    for n, row in enumerate(file.rows):
        if n % 1000 == 0:
            await anyio.lowlevel.checkpoint()  # a long file can be interrupted
        if row.job.model in these and wanted(row.job):
            quoting.want(row.job)
    await quoting.fill(limit_s=QUOTES_S)


async def look_through(
    file: JobFile,
    prices: Prices,
    echo: Echo,
    *,
    watch: Watch | None = None,
    wanted: Wanted = all_of_them,
) -> set[str]:
    """Check every row, its price included, and let ``watch`` look at it; progress is said.

    Returns the models that no table prices. Raises JobFileError for everything else.
    """
    pricing = Pricing(file, prices, wanted=wanted)
    for row in told(file.rows, "checked", echo):
        pricing.look(row)
        if watch is not None:
            await watch.look(row)
    pricing.end(but_for_unpriced=True)
    if watch is not None and (problems := watch.problems()):
        raise JobFileError(problems)
    return pricing.unpriced


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
        with reading(folder) as ledger:
            return ledger.taken(digest)
    except LedgerError:  # said by the run that opens it
        return None


SHOWN = 5
"""Jobs that ``validate`` shows."""


def validate_jobs(path: Path, *, as_json: bool, price_file: Path | None = None) -> None:
    """Check a job file and show what it expands to; raises JobFileError or UsageError.

    A model that no table prices is no mistake here: a run asks the provider.
    """
    file = open_jobs(path)
    pricing = Pricing(file, prices_of(file, price_file))
    jobs = total = 0
    first: list[tuple[JobRow, Price | None]] = []
    for row in file.rows:
        price = pricing.look(row)
        jobs += 1
        total += price.micro if price else 0
        if len(first) < SHOWN:
            first.append((row, price))
    pricing.end(but_for_unpriced=True)
    unpriced = sorted(pricing.unpriced)
    if as_json:
        document = {
            "valid": True,
            "jobs": jobs,
            "total_cost": None if unpriced else money(total),
            "unpriced_models": unpriced,
        }
        click.echo(json_text(orjson.dumps(document | _of_rows(file))))
        return
    cost = "" if unpriced else f"; {usd(total)} in all, by tables"
    click.echo(f"{printable(str(path))}: {jobs} jobs, no problems{cost}")
    for line in made_of(file):
        click.echo(f"  {line}")
    click.echo("The first ones:")
    for row, price in first:
        for line in _shown(row, price):
            click.echo(line)
    for model in unpriced:
        click.echo(printable(f"no price is known for {model}: a run asks the provider for it"))


def _shown(row: JobRow, price: Price | None) -> Iterator[str]:
    """One job as people check it before they pay for it."""
    name, model = row.job.title(row.job.key(DEFAULT_PROVIDER)), printable(row.job.model)
    cost = usd(price.micro) if price else "no price"
    yield f"  {fit(name, 28)}  {row.job.kind.value:<5}  {cost:>11}  {model}"
    if row.job.said:
        yield f"    {printable(row.job.said)[:160]}"
    if row.job.params:
        yield f"    {printable(orjson.dumps(dict(row.job.params)).decode())[:160]}"


def _of_rows(file: JobFile) -> dict[str, object]:
    if file.made_of is None:
        return {}
    return {"rows": file.made_of, "unused_columns": file.unused, "label_columns": file.kept}


def made_of(file: JobFile) -> Iterator[str]:
    """Lines that say which rows the jobs are made of, and what becomes of their columns."""
    if file.made_of is None:
        return
    yield printable(f"rows: {file.made_of}")
    unused = {*file.unused}
    used = [name for name in file.columns if name not in unused]
    for what, names in (
        ("columns used", used),
        ("columns no template names (kept as labels)", file.unused),
        ("columns kept as labels, not sent", file.kept),
    ):
        if names:
            yield printable(f"{what}: {', '.join(names)}")
