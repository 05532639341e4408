"""Jobs as programs name them: a job file, or jobs of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from asyncpipe.engine import JobLike
from asyncpipe.jobfile import JobFile, as_file, open_jobs
from asyncpipe.pricing import PriceBook, Prices, books_of, price_book_of
from asyncpipe.providers import Provider, known_prices, provider_named

Jobs: TypeAlias = str | Path | JobFile | Iterable[JobLike]
"""The path of a job file, an opened one, or jobs."""


def file_of(jobs: Jobs) -> JobFile:
    """The job file that is meant, or one of jobs alone; raises JobFileError and UsageError."""
    if isinstance(jobs, JobFile):
        return jobs
    if isinstance(jobs, str | Path):
        return open_jobs(jobs)
    return as_file(jobs)


def prices_at(file: JobFile, book: PriceBook | None, provider: Provider | None) -> Prices:
    """Every source of prices of jobs: the file's, the user's book, a provider's own; no quotes."""
    if provider is None:
        own = known_prices(provider_named(file.settings.provider))
    else:
        own = price_book_of(provider)
    return Prices(
        books=books_of(file.settings.prices, book, own),
        estimate_factor=file.settings.estimate_factor,
    )
