"""For tests of pipelines, yours and ours: virtual time, and a provider that follows a script.

A test of a service needs no network, no key, and no patience::

    >>> from decimal import Decimal
    >>> from tempfile import TemporaryDirectory
    >>> from asyncpipe import Pipeline
    >>> from asyncpipe.errors import RateLimited
    >>> async def main() -> str:
    ...     provider = FakeAccount(
    ...         prices={"demo/text-to-image": Decimal("0.04")},
    ...         scripts={"mug": Script(submits=[RateLimited("429")], generation_s=120.0)},
    ...     )
    ...     job = {"name": "mug", "model": "demo/text-to-image", "prompt": "a mug"}
    ...     with TemporaryDirectory() as folder:
    ...         async with Pipeline(provider, folder, storage={"min_free_bytes": 0}) as pipeline:
    ...             result = await pipeline.generate(job)
    ...     return f"{result.outcome}: {result.cost:.2f} USD, {provider.money} are left"
    >>> run_virtual(main())
    'succeeded: 0.04 USD, 99.96 are left'

``running_simulator`` serves on real sockets, ``failing_ledger`` breaks a pipeline's ledger; with
pytest these are fixtures (``asyncpipe.pytest_plugin``). Whoever writes a provider has
``check_provider`` try it; a store for ledgers is tried by ``asyncpipe.testing.ledgers``.
"""

from __future__ import annotations

from asyncpipe.testing.check import NOBODYS, check_provider
from asyncpipe.testing.clock import STUCK_S, VirtualTimeLoop, run_virtual, virtual_time
from asyncpipe.testing.provider import (
    PIXEL,
    SAMPLES,
    USUAL_USD,
    FakeAccount,
    FakeProvider,
    Script,
)
from asyncpipe.testing.simulated import RunningSimulator, running_simulator
from asyncpipe.testing.trouble import failing_ledger

__all__ = [
    "NOBODYS",
    "PIXEL",
    "SAMPLES",
    "STUCK_S",
    "USUAL_USD",
    "FakeAccount",
    "FakeProvider",
    "RunningSimulator",
    "Script",
    "VirtualTimeLoop",
    "check_provider",
    "failing_ledger",
    "run_virtual",
    "running_simulator",
    "virtual_time",
]
