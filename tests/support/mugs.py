"""One job file of three mugs, worked by one process after the other."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from asyncpipe import Manifest
from asyncpipe.report.totals import Totals
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.pipelines import job, opened

MUGS = ("mug 0", "mug 1", "mug 2")


def mugs(folder: Path, provider: FakeProvider, usd: str | None = None) -> Manifest:
    """A process of its own that works the same job file."""

    async def main() -> Manifest:
        cap = None if usd is None else Decimal(usd)
        async with opened(folder, provider, max_cost=cap) as pipeline:
            return await pipeline.batch_generate([job(name) for name in MUGS], digest="d1")

    return run_virtual(main())


def counts(totals: Totals) -> tuple[int, int, int, int]:
    return totals.total, totals.successful, totals.pending, totals.removed
