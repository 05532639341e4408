"""A provider and a downloader that cost nothing: what is left is the engine's own."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asyncpipe.jobs.job import Job
from asyncpipe.media.source import StoredFile, Target
from asyncpipe.providers import known_prices
from asyncpipe.providers.base import Prediction, PredictionStatus

_DIGEST = "0" * 64


class NullProvider:
    """Takes every submit, and has every prediction ready at its first poll."""

    name, origin, simulated = "atlas", "null", True

    def __init__(self) -> None:
        self._ids = map(str, itertools.count(1))
        self.price_book = known_prices(simulated=True)
        self.first_submit: float | None = None
        self.cpu_before = 0.0

    async def submit(self, job: Job) -> Prediction:
        """Sell; the first one is noted."""
        if self.first_submit is None:
            self.first_submit, self.cpu_before = time.perf_counter(), time.process_time()
        return Prediction(id=next(self._ids))

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Say that it is ready."""
        url = f"http://null/{prediction_id}.png"
        return Prediction(
            id=prediction_id, status=PredictionStatus.COMPLETED, outputs=(url,), said="completed"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class NullDownloader:
    """Says that every file stands."""

    def __init__(self, folder: Path, **_: Any) -> None:
        self.folder = folder

    async def fetch(self, url: str, target: Target) -> StoredFile:
        """Store nothing."""
        return StoredFile(path=f"{target.stem}.png", size=8, sha256=_DIGEST)

    async def stands(self, file: StoredFile) -> bool:
        """Say that what was stored is there."""
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None
