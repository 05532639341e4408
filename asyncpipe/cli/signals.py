"""Ctrl-C and SIGTERM: drain first, leave at once the second time."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from asyncpipe._tasks import ungrouped
from asyncpipe.engine.pipeline import Pipeline


@dataclass(slots=True)
class Interruption:
    """Which signal came first; None while none has."""

    signal: int | None = None


@asynccontextmanager
async def draining(
    pipeline: Pipeline, *, grace_s: float, echo: Callable[[str], None]
) -> AsyncIterator[Interruption]:
    """Run the block; the first signal stops submitting and gives it ``grace_s`` more seconds.

    The second one, or the end of the grace, cuts the block short: the statement after it is the
    next to run. Submits that are out are still waited for, so that no answer is lost.
    """
    seen = Interruption()
    with ungrouped():
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    async for number in signals:
                        if seen.signal is not None:
                            tasks.cancel_scope.cancel()
                            return
                        seen.signal = int(number)
                        tasks.cancel_scope.deadline = anyio.current_time() + grace_s
                        pipeline.drain()
                        echo(
                            f"Interrupted: submitting stopped, {grace_s:g} s for what is quick. "
                            "Once more leaves at once."
                        )

            async def listen_where_possible() -> None:
                try:
                    await listen()
                except NotImplementedError:  # Windows: KeyboardInterrupt cancels the run instead
                    return

            tasks.start_soon(listen_where_possible, name="asyncpipe signals")
            yield seen
            tasks.cancel_scope.cancel()
