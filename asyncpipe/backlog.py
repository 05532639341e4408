"""One run's jobs, as admission knows them, and when they are all done with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection

from asyncpipe.errors import AsyncpipeError
from asyncpipe.jobs.record import JobRecord
from asyncpipe.ledger.asset_names import claim_stems
from asyncpipe.ledger.queries import pending
from asyncpipe.ledger.runs import Named


@dataclass(slots=True)
class Backlog:
    """One run's jobs: those still in the ledger, drawn in small pages, and those under way.

    ``comparing``: assets of jobs that had succeeded are still being looked at; more may come.
    """

    named: Named | None  # which rows it draws; None: it draws nothing
    models: dict[str, int]  # models with jobs not drawn yet -> last id drawn
    open: set[int]  # ids drawn and not let go
    comparing: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: bool = False

    async def wait(self) -> None:
        """Wait for the end; raises AsyncpipeError when the pipeline was closed before it."""
        await self.done.wait()
        if self.abandoned:
            raise AsyncpipeError("the pipeline was closed before the jobs ended; they are kept")

    def left_over(self, expired: Mapping[int, object]) -> list[int]:
        """The jobs that are open, if those that are ``expired`` are all there is."""
        more = self.models or self.comparing or len(self.open) > len(expired)
        return [] if more or not self.open <= expired.keys() else sorted(self.open)

    def settle(self) -> None:
        """Note the end, when it has come."""
        if not self.models and not self.open and not self.comparing:
            self.done.set()


def read_page(
    connection: Connection, *, folder: Path, named: Named, model: str, after: int, limit: int
) -> list[JobRecord]:
    """The next pending jobs of a run and a model, their stems fixed."""
    records = pending(connection, named, model, after=after, limit=limit)
    return claim_stems(connection, records, folder)
