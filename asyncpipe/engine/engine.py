"""Join the parts that carry jobs: room, admission, fetcher, driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from asyncpipe.engine.admission import Admission
from asyncpipe.engine.fetch import Emit, Fetcher
from asyncpipe.engine.poll import Paced
from asyncpipe.engine.submit import Driver, Policy, Stop
from asyncpipe.engine.upload import Uploads
from asyncpipe.errors import AsyncpipeError
from asyncpipe.flow import (
    LATENCY,
    Gate,
    Latencies,
    Latency,
    Memory,
    Pace,
    Traffic,
    Watches,
    Windows,
    latencies_of,
    lessons,
    recall,
)
from asyncpipe.http import on_loopback
from asyncpipe.jobs import Caps, Deadlines, JobRecord, Polling
from asyncpipe.ledger import Ledger
from asyncpipe.media import Downloader, Room
from asyncpipe.pricing import Budget, Purse
from asyncpipe.providers import Provider, account_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a pipeline's constructor was told, checked; but for money."""

    workers: int
    window: str
    caps: Caps
    downloads: int
    retries: int
    deadlines: Deadlines
    polling: Polling
    patience_s: float | None
    min_free_bytes: int
    resubmit_unknown: bool
    rng: Random


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """What the parts tell their pipeline, and ask it."""

    emit: Emit
    stop: Stop
    unfit: Callable[[JobRecord, AsyncpipeError], None]
    wanted: Callable[[JobRecord], bool]
    stopped: Callable[[JobRecord], bool]
    clock: Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts, joined."""

    room: Room
    admission: Admission
    driver: Driver
    traffic: Traffic
    keep_windows: Callable[[], None]
    latencies: Latencies

    def keep(self) -> None:
        """Keep for the next run what this one learned; never raises."""
        self.keep_windows()
        self.latencies.keep()


def join_parts(
    limits: Limits,
    calls: Calls,
    *,
    provider: Provider,
    ledger: Ledger,
    folder: Path,
    downloader: Downloader,
    budget: Budget,
    purse: Purse,
) -> Parts:
    """Make the parts of one opened pipeline."""
    traffic, keep_windows = _traffic(limits, calls.clock, provider)
    paced = Paced(provider, traffic, calls.clock)
    room = Room(folder, limits.min_free_bytes, calls.clock, limits.patience_s, calls.stop)
    admission = Admission(
        ledger,
        folder,
        max_workers=limits.workers,
        room=room,
        budget=budget,
        purse=purse,
        unfit=calls.unfit,
        traffic=traffic,
        clock=calls.clock,
    )
    latencies = latencies_of(
        limits.polling, memory_of(provider, LATENCY), limits.rng, tail=admission.tail
    )
    fetcher = Fetcher(
        provider=paced,
        ledger=ledger,
        folder=folder,
        downloader=downloader,
        downloads=limits.downloads,
        emit=calls.emit,
        stop=calls.stop,
        rng=limits.rng,
    )
    driver = Driver(
        provider=paced,
        ledger=ledger,
        fetcher=fetcher,
        uploads=Uploads(provider, ledger, limits.rng),
        admission=admission,
        policy=_policy(limits, calls, latencies.polls),
        emit=calls.emit,
        stop=calls.stop,
        rng=limits.rng,
        clock=calls.clock,
    )
    return Parts(
        room=room,
        admission=admission,
        driver=driver,
        traffic=traffic,
        latencies=latencies,
        keep_windows=keep_windows,
    )


def memory_of(provider: Provider, subject: str) -> Memory | None:
    """The memory for ``subject`` at ``provider``'s account; None for what is not worth keeping.

    A simulator, or whatever else runs on this machine, says nothing of a real API.
    """
    if provider.simulated or on_loopback(provider.origin):
        return None
    return Memory(subject, origin=provider.origin, account=account_of(provider))


def learned_before(provider: Provider) -> Callable[[str, Mapping[str, Any]], Latency | None]:
    """What earlier runs at ``provider`` learned: a model and a job's parameters to its times."""
    return recall(memory_of(provider, LATENCY))


def _policy(limits: Limits, calls: Calls, polls: Watches) -> Policy:
    return Policy(
        polls=polls,
        deadlines=limits.deadlines,
        retries=limits.retries,
        patience_s=limits.patience_s,
        resubmit_unknown=limits.resubmit_unknown,
        wanted=calls.wanted,
        stopped=calls.stopped,
    )


def _traffic(
    limits: Limits, clock: Callable[[], float], provider: Provider
) -> tuple[Traffic, Callable[[], None]]:
    """What is known of the API's limits, and how to keep what is learned for the next run."""
    memory = memory_of(provider, "window") if limits.window == "learned" else None
    windows = Windows(
        max_workers=limits.workers,
        caps=limits.caps,
        learned=limits.window == "learned",
        kept=memory.load() if memory else {},
    )
    gate = Gate(Pace(cap=limits.caps.requests_per_second), clock=clock)
    traffic = Traffic(gate, limits.rng, windows.of)

    def keep() -> None:
        if memory is not None:
            memory.save(lessons(traffic.limited))

    return traffic, keep
