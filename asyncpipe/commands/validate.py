"""Whether jobs are what a run takes, and what they come to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from asyncpipe.commands.jobs import Jobs, file_of, prices_at
from asyncpipe.commands.precheck import CatalogueCheck
from asyncpipe.commands.survey import Survey, survey_rows
from asyncpipe.jobfile import JobFile
from asyncpipe.pricing import PriceBook, Prices, from_micro, to_micro
from asyncpipe.providers import Provider
from asyncpipe.report import money

logger = logging.getLogger("asyncpipe.commands")


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """What jobs come to that are in order; ``cost`` is Decimal USD by tables.

    That is None where a model has no price in them (``unpriced_models``): a run asks the provider.
    ``checked``: models and fields were compared with the provider's catalogue.
    """

    jobs: int
    cost: Decimal | None
    unpriced_models: tuple[str, ...] = ()
    checked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        document: dict[str, Any] = orjson.loads(orjson.dumps(self.document()))
        return document

    def document(self) -> dict[str, Any]:
        """The same for orjson, amounts to the last digit."""
        return {
            "valid": True,
            "jobs": self.jobs,
            "total_cost": None if self.cost is None else money(to_micro(self.cost)),
            "unpriced_models": list(self.unpriced_models),
        }


async def validate(
    jobs: Jobs,
    provider: Provider | None = None,
    *,
    price_book: PriceBook | None = None,
    allow_unknown_models: bool = False,
    on_remark: Callable[[str], None] = logger.warning,
) -> Validated:
    """Check ``jobs`` (a job file, or jobs) as a run does; buys nothing.

    With a ``provider`` models and fields are compared with its catalogue, too. ``on_remark`` is
    called with what a user should know. Raises JobFileError with every problem, and UsageError.
    """
    file = file_of(jobs)
    found, models = Survey(file, prices_at(file, price_book, provider)), None
    if provider is not None:
        models = CatalogueCheck(
            file, provider, lambda _: True, allow_unknown=allow_unknown_models, echo=on_remark
        )
    await survey_rows(found, file.rows, logger.info, models)
    return validated(found, checked=models is not None and models.checked)


def look_over(file: JobFile, prices: Prices) -> Survey:
    """Check every row of a file without asking anybody; raises JobFileError."""
    found = Survey(file, prices)
    for row in file.rows:
        found.add(row)
    found.check()
    return found


def validated(found: Survey, *, checked: bool = False) -> Validated:
    """What a survey came to that found nothing wrong."""
    unpriced = sorted({kind.row.job.model for kind in found.unpriced})
    total = sum(kind.price.micro * kind.count for kind in found.kinds if kind.price)
    return Validated(
        jobs=found.jobs,
        cost=None if unpriced else from_micro(total),
        unpriced_models=tuple(unpriced),
        checked=checked,
    )
