"""A process that forks runs which end at a step chosen beforehand, as if the power went.

Steps are: before, inside and after every ledger transaction; before and after every request, and
every piece of an answer; before and after every fsync and every rename. One JSON line on stdin
asks for a run, one on stdout answers how it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from asyncpipe import AtlasCloud, Pipeline, Polling, Provider, Rate, SpendingLimits
from asyncpipe.engine.verify import verify
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.database import SqliteLedger
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.keyed_api import KeyedApi

MODEL = "black-forest-labs/flux-2-pro/text-to-image"

_lock = threading.Lock()
_left: int | None = None


def step(*_: object) -> None:
    """Count down, and die at the end of the count."""
    global _left  # noqa: PLW0603 - one process, one countdown
    with _lock:
        if _left is None:
            return
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)


def install() -> None:
    """Put steps around everything that leaves a trace outside this process."""
    try_ = SqliteLedger._try

    def stepping_try(self: SqliteLedger, query: Callable[[Connection], Any]) -> Any:
        def inside(connection: Connection) -> Any:
            answer = query(connection)
            step()
            return answer

        step()
        answer = try_(self, inside)
        step()
        return answer

    request, read = aiohttp.ClientSession._request, aiohttp.StreamReader.readany

    async def stepping_request(self: Any, *arguments: Any, **options: Any) -> Any:
        step()
        answer = await request(self, *arguments, **options)
        step()
        return answer

    async def stepping_read(self: Any) -> bytes:
        chunk = await read(self)
        step()
        return chunk

    replace, fsync = os.replace, os.fsync

    def stepping_replace(source: Any, target: Any) -> None:  # Path.replace calls it, too
        step()
        replace(source, target)
        step()

    def stepping_fsync(descriptor: int) -> None:
        fsync(descriptor)
        step()

    SqliteLedger._try = stepping_try  # type: ignore[method-assign]
    aiohttp.ClientSession._request = stepping_request  # type: ignore[method-assign]
    aiohttp.StreamReader.readany = stepping_read  # type: ignore[method-assign]
    os.replace = stepping_replace  # type: ignore[assignment]
    os.fsync = stepping_fsync  # type: ignore[assignment]


async def run(folder: Path, url: str, jobs: Iterable[dict[str, Any]], what: str) -> None:
    """Run (``same``: over an unchanged file), or collect, or verify and collect.

    ``keyed``: run with the provider whose submits have keys.
    """
    if what == "verify":
        await verify(folder)
    provider: Provider = AtlasCloud("any", base_url=url)
    spending = SpendingLimits()
    if what == "keyed":
        provider = KeyedApi("any", url)
        spending = SpendingLimits(prices={MODEL: Rate(per_job=Decimal("0.05"))})
    polling = Polling(initial_s=0.01, maximum_s=0.02)
    async with Pipeline(
        provider,
        folder,
        spending=spending,
        max_workers=2,
        polling=polling,
        recovery={"search_s": 0.2},
        storage={"min_free_bytes": 0, "local_files": folder.parent},
    ) as pipeline:
        if what in ("run", "same", "keyed"):
            await pipeline.batch_generate(jobs, digest="d1" if what == "same" else None)
        else:
            await pipeline.collect()


def load() -> None:
    """Make one run that costs nothing, so that no forked one imports anything any more."""
    with TemporaryDirectory() as folder:

        async def one() -> None:
            async with Pipeline(FakeProvider(), folder, storage={"min_free_bytes": 0}) as pipeline:
                await pipeline.batch_generate([{"name": "mug", "model": MODEL, "prompt": "mug"}])

        run_virtual(one())


def serve() -> None:
    """Fork one run per line; it has the modules loaded already, also those that load late."""
    load()
    install()
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 70
            try:
                global _left  # noqa: PLW0603
                _left = asked["stop_at"]
                folder = Path(asked["folder"])
                asyncio.run(run(folder, asked["url"], asked["jobs"], asked["what"]))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(ended)
        print(json.dumps({"killed": killed, "code": os.waitstatus_to_exitcode(ended)}), flush=True)


if __name__ == "__main__":
    serve()
