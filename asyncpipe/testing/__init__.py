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
    ...         async with Pipeline(provider, folder, min_free_bytes=0) as pipeline:
    ...             result = await pipeline.generate(job)
    ...     return f"{result.outcome}: {result.cost:.2f} USD, {provider.money} are left"
    >>> run_virtual(main())
    'succeeded: 0.04 USD, 99.96 are left'

Whoever writes a provider has ``check_provider`` try it.
"""

from __future__ import annotations

from asyncpipe.testing.check import NOBODYS, check_provider
from asyncpipe.testing.clock import STUCK_S, VirtualTimeLoop, run_virtual
from asyncpipe.testing.provider import PIXEL, SAMPLES, FakeAccount, FakeProvider, Script

__all__ = [
    "NOBODYS",
    "PIXEL",
    "SAMPLES",
    "STUCK_S",
    "FakeAccount",
    "FakeProvider",
    "Script",
    "VirtualTimeLoop",
    "check_provider",
    "run_virtual",
]
