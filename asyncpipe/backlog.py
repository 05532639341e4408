"""One run's jobs: those still in the ledger, and those under way."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from asyncpipe.errors import AsyncpipeError


@dataclass(slots=True)
class Backlog:
    """One run's jobs: those still in the ledger, drawn in small pages, and those under way."""

    run: int
    models: dict[str, int]  # models with jobs not drawn yet -> last id drawn
    open: set[int]  # ids drawn and not let go
    done: anyio.Event = field(default_factory=anyio.Event)
    abandoned: bool = False

    async def wait(self) -> None:
        """Wait for the end; raises AsyncpipeError when the pipeline was closed before it."""
        await self.done.wait()
        if self.abandoned:
            raise AsyncpipeError("the pipeline was closed before the jobs ended; they are kept")

    def settle(self) -> None:
        """Note the end, when it has come."""
        if not self.models and not self.open:
            self.done.set()
