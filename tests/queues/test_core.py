"""What comes of a delivery, decided without any queue; how a worker hears that it is to leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import date
from decimal import Decimal

import anyio
import pytest

from asyncpipe.engine import ShardWork
from asyncpipe.errors import AsyncpipeError, JobFileError, KeyRefused, LedgerError, UsageError
from asyncpipe.jobs import Deadlines, JobState, Limits, Polling
from asyncpipe.pricing import PriceBook, Rate
from asyncpipe.queues import core, queue_of, shown
from asyncpipe.queues.settings import PlaceSettings
from asyncpipe.testing import run_virtual


def found(
    done: int = 0,
    *others: str,
    failed: int = 0,
    elsewhere: int = 0,
    stopped: AsyncpipeError | None = None,
) -> ShardWork:
    states = {JobState.SUCCEEDED: done, JobState.FAILED: failed, JobState.EXPIRED: 0}
    states |= {JobState(state): 1 for state in others}
    return ShardWork(jobs=states, elsewhere=elsewhere, stopped=stopped)


def test_a_shard_that_ended_is_not_delivered_again() -> None:
    """A failed job is its result, no failure of the shard."""
    end = core.end_of(found(2, failed=1), drained=False, lease_s=30)
    assert (end.totals, end.again_s) == ({"succeeded": 2, "failed": 1, "left": 0}, None)


def test_a_shard_that_others_carry_comes_back_within_a_lease() -> None:
    """Often enough to find a lease that has just ended, and never at once."""
    taken = found(1, "submitted", elsewhere=3)
    end = core.end_of(taken, drained=False, lease_s=30)
    assert end.again_s == 10
    assert end.why == "other workers carry 3 of its jobs"
    assert core.end_of(taken, drained=False, lease_s=0.5).again_s == 1


REFUSED = KeyRefused("the key is not accepted")


@pytest.mark.parametrize(
    "worked", [None, found(0, "pending"), found(0, "pending", stopped=REFUSED)]
)
def test_a_drained_shard_goes_on_elsewhere_at_once(worked: ShardWork | None) -> None:
    """Whatever else was found, cut short or not: a worker that leaves decides nothing."""
    assert core.end_of(worked, drained=True, lease_s=30).again_s == 0


def test_a_shard_that_ended_while_its_worker_leaves_is_over() -> None:
    end = core.end_of(found(1), drained=True, lease_s=30)
    assert (end.totals, end.again_s) == ({"succeeded": 1, "left": 0}, None)


def test_a_stop_is_a_failure_with_its_reason() -> None:
    with pytest.raises(core.ShardStopped, match=r"KeyRefused: the key is not .* \(1 pending\)"):
        core.end_of(found(0, "pending", stopped=REFUSED), drained=False, lease_s=3)
    # One that stopped when all was done already is none.
    core.end_of(found(2, stopped=REFUSED), drained=False, lease_s=3)


@pytest.mark.parametrize("state", ["expired", "generated", "unknown"])
def test_what_is_paid_for_and_not_here_is_no_success(state: str) -> None:
    """Nobody looks at a shard that is done; people have to."""
    with pytest.raises(core.ShardStopped, match=f"not finished .*1 {state}"):
        core.end_of(found(1, state), drained=False, lease_s=3)


def test_a_nameless_job_is_the_same_whenever_its_message_is_delivered() -> None:
    """Two messages are two jobs; a name that was given stays."""
    job = {"model": "black-forest-labs/flux-2-pro/text-to-image", "prompt": "a mug"}
    one, again, two = (core.with_name(job, once) for once in ("3fa2-b1c4-55", "3fa2-b1c4-55", "7"))
    assert one.name == again.name == "a_mug-3fa2b1c455"
    assert one.key("atlas") == again.key("atlas") != two.key("atlas")
    assert core.with_name({**job, "name": "mug"}, "3fa2").name == "mug"


def test_a_job_with_an_idempotency_key_is_the_same_by_that() -> None:
    """Sent twice, in two messages; a key that is none is refused before it is sent."""
    job = {"model": "black-forest-labs/flux-2-pro/text-to-image", "prompt": "a mug"}
    asked = core.checked_job({**job, "idempotency_key": "order 7"})
    one, two = (core.with_name(asked, once).once() for once in ("3fa2-b1c4-55", "7"))
    assert one.key("atlas") == two.key("atlas")
    with pytest.raises(JobFileError, match="idempotency_key"):
        core.checked_job({**job, "idempotency_key": ""})


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
    with pytest.raises(UsageError, match=rf"pip install 'asyncpipe\[{name}\]'"):
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
        budgets={"label:campaign=spring": Decimal("0.000001"), "day": Decimal(5)},
        wait_for_day=True,
        prices={"m": Rate(per_image=Decimal("0.04"))},
        price_book=PriceBook(rates={}, source="price file p.yaml", as_of=date(2026, 11, 25)),
    )
    assert PlaceSettings.of(settings.document()) == settings
    assert PlaceSettings.of({}) == PlaceSettings()
    assert not [name for name in settings.document() if "key" in name]


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="max_workers"):
        PlaceSettings.of({"max_workers": "many"})
