"""What comes of a delivery, decided without any queue; how a worker hears that it is to leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import anyio
import pytest

from asyncpipe.errors import KeyRefused, LedgerError, UsageError
from asyncpipe.jobs import Deadlines, Limits, Polling
from asyncpipe.pricing import PriceBook, Rate
from asyncpipe.queues import core, queue_of, shown
from asyncpipe.queues.settings import PlaceSettings
from asyncpipe.testing import run_virtual


@dataclass(frozen=True, kw_only=True)
class Found:
    totals: dict[str, Any] = field(default_factory=dict)
    elsewhere: int = 0


def test_a_shard_that_ended_is_not_delivered_again() -> None:
    end = core.end_of(Found(totals={"succeeded": 2}), None, drained=False, lease_s=30)
    assert (end.totals, end.again_s) == ({"succeeded": 2}, None)


def test_a_shard_that_others_carry_comes_back_within_a_lease() -> None:
    """Often enough to find a lease that has just ended, and never at once."""
    end = core.end_of(Found(elsewhere=3), None, drained=False, lease_s=30)
    assert end.again_s == 10
    assert "3 of its jobs are carried by other workers" in end.why
    assert core.end_of(Found(elsewhere=3), None, drained=False, lease_s=0.5).again_s == 1


@pytest.mark.parametrize("worked", [None, Found(), Found(elsewhere=3)])
def test_a_drained_shard_goes_on_elsewhere_at_once(worked: Found | None) -> None:
    """Whatever else was found, cut short or not: a worker that leaves decides nothing."""
    refused = KeyRefused("the key is not accepted")
    assert core.end_of(worked, refused, drained=True, lease_s=30).again_s == 0


def test_a_stop_is_a_failure_with_its_reason() -> None:
    with pytest.raises(core.ShardStopped, match="KeyRefused: the key is not accepted"):
        core.end_of(
            Found(elsewhere=1), KeyRefused("the key is not accepted"), drained=False, lease_s=3
        )


def test_a_worker_without_a_ledger_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--ledger"):
        core.run_shard("place", 1)
    monkeypatch.setenv("ASYNCPIPE_LEDGER", "postgresql://u:secret@h/d")
    monkeypatch.setenv("ASYNCPIPE_LEASE_S", "soon")
    with pytest.raises(UsageError, match="ASYNCPIPE_LEASE_S: 'soon' is not a number of seconds"):
        core.WorkerSettings.of_environment()
    monkeypatch.setenv("ASYNCPIPE_LEASE_S", "6")
    told = core.WorkerSettings.of_environment()
    assert told == core.WorkerSettings(ledger="postgresql://u:secret@h/d", lease_s=6)
    assert "secret" not in repr(told)


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://user:se:c@ret@host/0?password=secret", "redis://user:***@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("amqp://guest@host//", "amqp://guest:***@host//"),
    ],
)
def test_no_url_is_shown_with_its_password(url: str, printed: str) -> None:
    assert shown(url) == printed


def test_a_queue_that_there_is_none_of_is_named() -> None:
    with pytest.raises(UsageError, match="there is no queue 'kafka': celery or rq"):
        queue_of("kafka")


@pytest.mark.parametrize("name", ["celery", "rq"])
def test_an_extra_that_is_not_installed_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"asyncpipe.queues.{name}", raising=False)
    with pytest.raises(UsageError, match=rf"pip install 'asyncpipe\[{name},postgres\]'"):
        queue_of(name)


def test_what_leaves_is_drained_and_then_cut_short() -> None:
    """By the word, at once; after the grace whatever still runs."""
    drains: list[float] = []

    async def leave() -> float:
        departure = core.Departure(10)
        departure.drains(lambda: drains.append(anyio.current_time()))
        with departure.scope:
            departure.tell()
            departure.tell()
            await anyio.sleep(3600)
        return anyio.current_time()

    assert run_virtual(leave()) - drains[0] == 10
    assert len(drains) == 1


def test_a_word_to_leave_before_there_is_anything_to_drain() -> None:
    """While the pipeline is being opened: it is drained as soon as it is open."""
    drained: list[bool] = []

    async def leave() -> None:
        departure = core.Departure(10)
        departure.tell()
        departure.drains(lambda: drained.append(True))

    run_virtual(leave())
    assert drained == [True]


def test_sigterm_is_heard_while_a_shard_runs_and_is_as_before_after() -> None:
    """The queue's own handler is back when the shard is over."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:

        async def hear() -> None:
            told = anyio.Event()
            with core.hearing(told.set):
                os.kill(os.getpid(), signal.SIGTERM)
                with anyio.fail_after(10):
                    await told.wait()

        anyio.run(hear)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_shard_in_a_thread_runs_without_hearing() -> None:
    """Threads get no signals: the shard runs all the same."""
    ran: list[bool] = []

    async def hear() -> None:
        with core.hearing(lambda: None):
            ran.append(True)

    thread = threading.Thread(target=lambda: anyio.run(hear))
    thread.start()
    thread.join()
    assert ran == [True]


def test_a_ledger_that_is_away_puts_the_shard_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise LedgerError("the ledger cannot be reached")

    monkeypatch.setattr(core, "in_pipeline", away)
    monkeypatch.setenv("ASYNCPIPE_LEDGER", "postgresql://h/d")
    end = core.run_shard("place", 1)
    assert (end.again_s, end.why) == (15, "the ledger cannot be reached")


def test_settings_are_the_same_when_they_are_read_again() -> None:
    """All of them, amounts to the last digit; and the key is none of them."""
    settings = PlaceSettings(
        base_url="http://127.0.0.1:8765/api/v1",
        max_workers=7,
        limits=Limits(requests_per_second=2.5, models={"m": 3}, window="fixed"),
        deadlines=Deadlines(image=1.5),
        polling=Polling(initial_s=0.05, maximum_s=0.2),
        patience_s=60,
        ambiguous="hold",
        max_cost=Decimal("20.100001"),
        prices={"m": Rate(per_image=Decimal("0.04"))},
        price_book=PriceBook(rates={}, source="price file p.yaml", as_of=date(2026, 11, 25)),
    )
    assert PlaceSettings.of(settings.document()) == settings
    assert PlaceSettings.of({}) == PlaceSettings()
    assert not [name for name in settings.document() if "key" in name]


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="max_workers"):
        PlaceSettings.of({"max_workers": "many"})
