"""From admission to the drivers: one job at a time, only when somebody is there to take it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from asyncpipe.jobs.record import JobRecord


class Handover:
    """A meeting point of one giver and many takers; nothing is stored in between.

    (anyio's memory stream does the same and costs several times as much for each job.)
    """

    def __init__(self) -> None:
        self._takers: deque[asyncio.Future[JobRecord]] = deque()
        self._somebody = asyncio.Event()

    async def give(self, record: JobRecord) -> None:
        """Wait for a taker, and give it the job."""
        while True:
            while self._takers:
                taker = self._takers.popleft()
                if not taker.done():  # cancelled meanwhile
                    taker.set_result(record)
                    return
            self._somebody.clear()
            await self._somebody.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobRecord:
        taker: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        self._somebody.set()
        return await taker
