"""Prices of many jobs: what only a few of their fields decide is worked out once."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpipe.jobs import Job
from asyncpipe.pricing.book import PriceBook
from asyncpipe.pricing.price import OUTPUT_COUNTS, Price, price

_FIELDS = ("duration", *OUTPUT_COUNTS)
_MOST_KEPT = 10_000


class Prices:
    """Price jobs by ``books``, as ``price`` does, remembering each combination that decides it."""

    def __init__(self, books: Sequence[PriceBook]) -> None:
        self._books = books
        self._known: dict[tuple[object, ...], Price] = {}

    def of(self, job: Job) -> Price:
        """The price of ``job``; raises what ``price`` raises."""
        params = job.params
        # Types, too: True equals 1, and is none.
        values = [params.get(name) for name in _FIELDS]
        key = (job.model, job.type, *values, *map(type, values))
        try:
            known = self._known.get(key)
        except TypeError:  # a list, where there should be a number
            return price(job, self._books)
        if known is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            known = self._known[key] = price(job, self._books)
        return known
