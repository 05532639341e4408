"""Join the parts that carry jobs: room, admission, fetcher, driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from asyncpipe.admission import Admission
from asyncpipe.downloader import Downloader
from asyncpipe.driver import Driver, Policy, Stop
from asyncpipe.fetcher import Emit, Fetcher
from asyncpipe.ledger.base import JobRecord
from asyncpipe.ledger.sqlite import Ledger
from asyncpipe.pricing import Budget, Price, PriceBook, price
from asyncpipe.providers.base import Provider
from asyncpipe.settings import Deadlines, Polling
from asyncpipe.volume import Room


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a pipeline's constructor was told, checked; ``cap`` in micro-dollars."""

    workers: int
    downloads: int
    retries: int
    deadlines: Deadlines
    polling: Polling
    patience_s: float | None
    min_free_bytes: int
    resubmit_unknown: bool
    cap: int | None
    books: tuple[PriceBook, ...]
    rng: Random


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """What the parts tell their pipeline, and ask it."""

    emit: Emit
    stop: Stop
    unfit: Callable[[JobRecord, Price], None]
    wanted: Callable[[JobRecord], bool]
    clock: Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts, joined."""

    room: Room
    admission: Admission
    driver: Driver


def join_parts(
    limits: Limits,
    calls: Calls,
    *,
    provider: Provider,
    ledger: Ledger,
    folder: Path,
    downloader: Downloader,
    budget: Budget,
) -> Parts:
    """Make the parts of one opened pipeline."""
    room = Room(folder, limits.min_free_bytes, calls.clock, limits.patience_s, calls.stop)
    admission = Admission(
        ledger,
        folder,
        max_workers=limits.workers,
        room=room,
        budget=budget,
        price=lambda record: price(record.job, limits.books),
        unfit=calls.unfit,
        rng=limits.rng,
        clock=calls.clock,
    )
    fetcher = Fetcher(
        provider=provider,
        ledger=ledger,
        folder=folder,
        downloader=downloader,
        downloads=limits.downloads,
        emit=calls.emit,
        stop=calls.stop,
        rng=limits.rng,
    )
    driver = Driver(
        provider=provider,
        ledger=ledger,
        fetcher=fetcher,
        admission=admission,
        policy=Policy(
            polling=limits.polling,
            deadlines=limits.deadlines,
            retries=limits.retries,
            patience_s=limits.patience_s,
            resubmit_unknown=limits.resubmit_unknown,
            wanted=calls.wanted,
        ),
        emit=calls.emit,
        stop=calls.stop,
        rng=limits.rng,
        clock=calls.clock,
    )
    return Parts(room=room, admission=admission, driver=driver)
