"""One side, measured once, in a fresh process; prints one line of JSON.

It is kept on core 0, or with ``--free`` on none, as users run it.

python -m benchmarks.harness.side asyncpipe http://127.0.0.1:8000/api/v1 /dev/shm/x --jobs 3000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from asyncpipe.cli.session import prepare_process
from benchmarks.harness.line import Peak, new_loop, pin

__all__ = ["prepare_process"]

LOOK_S = 0.01


class Lag:
    """How late a timer comes that is due every 10 ms."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def watch(self) -> None:
        """Look for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.late_s.append(clock() - due)

    def percentile(self, share: float) -> float:
        """The lag in milliseconds that ``share`` of all looks stayed below."""
        late = sorted(self.late_s) or [0.0]
        return 1000 * late[min(int(len(late) * share), len(late) - 1)]


async def _watched(work: Coroutine[Any, Any, None], lag: Lag | None) -> None:
    if lag is None:
        await work
        return
    watcher = asyncio.create_task(lag.watch(), name="benchmark lag")
    try:
        await work
    finally:
        watcher.cancel()


def _runner(options: argparse.Namespace, lag: Lag | None) -> Callable[[], None]:
    """Import the side now, so that its imports are not measured; return what is."""
    run: Callable[..., Any]
    keywords: dict[str, float] = {}
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if options.side == "threads":
        from benchmarks.peers.threads import run
    elif options.side == "httpx":
        from benchmarks.peers.httpx_client import run
    elif options.side == "aiohttp":
        from benchmarks.peers.idiomatic import run
    else:
        import_module("anyio._backends._asyncio")  # anyio would at its first use
        from benchmarks.peers.ours import run

        prepare_process()  # as the command line does
        keywords["poll_s"] = options.poll
        factory = asyncio.new_event_loop if options.side == "asyncpipe-stock" else new_loop
    work = partial(
        run, options.url, Path(options.folder), options.jobs, options.in_flight, **keywords
    )
    if options.side == "threads":
        return work

    def measured() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_watched(work(), lag))

    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    sides = ["asyncpipe", "asyncpipe-stock", "aiohttp", "httpx", "threads"]
    parser.add_argument("side", choices=sides)
    parser.add_argument("url")
    parser.add_argument("folder")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--poll", type=float, default=0.001)
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--lag", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if not options.free:
        pin(0)
    lag = Lag() if options.lag else None
    measured = _runner(options, lag)
    peak = Peak()
    if options.memory:
        peak.start()
    started, cpu = time.perf_counter(), time.process_time()
    measured()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    if options.memory:
        peak.stop()
    told = {"seconds": seconds, "cpu_s": cpu_s, "base": peak.base, "peak": peak.most}
    if lag is not None:
        told |= {"lag_p50_ms": lag.percentile(0.5), "lag_p99_ms": lag.percentile(0.99)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
