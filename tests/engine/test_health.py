"""How a pipeline says that it is: well, waiting, stopped, failed; and how it comes right."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Health, HealthStatus, LedgerError
from asyncpipe.engine.health import Wait, Waits, health_of, may_pass
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    DiskError,
    KeyRefused,
    NotAccepted,
    NotSent,
    RateLimited,
)
from asyncpipe.ledger.errors import LedgerFull
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.ledger.schema import SETTINGS
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.pipelines import job, opened

AT = datetime(2026, 1, 1, tzinfo=UTC)
DOWN = NotSent("no route to host")
WELL: dict[str, Any] = {"opened": True, "failure": None, "stopped": None, "waits": ()}


@pytest.mark.parametrize(
    ("so", "status", "why"),
    [
        ({}, "ok", None),
        ({"opened": False}, "closed", None),
        ({"waits": [Wait(error=DOWN, since=AT)]}, "waiting", "no route to host"),
        ({"stopped": (KeyRefused("401"), AT)}, "stopped", "401"),
        ({"failure": LedgerError("broken"), "opened": False}, "failed", "broken"),
        ({"failure": KeyError(), "opened": False}, "failed", "KeyError"),
    ],
)
def test_the_worst_is_said(so: dict[str, Any], status: str, why: str | None) -> None:
    """In one word, with its reason; all of it as JSON."""
    health = health_of(**{**WELL, **so})
    assert (health.status.value, health.why, health.ok) == (status, why, status == "ok")
    assert health.to_dict()["why"] == why


def test_of_several_waits_the_longest_is_said() -> None:
    later = Wait(error=AsyncpipeError("later"), since=AT + timedelta(seconds=5))
    health = health_of(**{**WELL, "waits": [later, Wait(error=DOWN, since=AT)]})
    assert health == Health(status=HealthStatus.WAITING, error=DOWN, since=AT)


def test_what_may_pass_is_told_from_what_somebody_must_do() -> None:
    assert all(map(may_pass, [DOWN, RateLimited("429"), NotAccepted("10 min"), DiskError("full")]))
    assert not any(map(may_pass, [KeyRefused("401"), BalanceExhausted("402"), None]))


def test_a_wait_is_said_at_once_and_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """And counts no longer than it was noted for."""
    clock = [0.0]
    waits = Waits(lambda: clock[0])
    for second in range(0, 130, 10):
        clock[0] = float(second)
        waits.note("submit", DOWN, for_s=30.0)
    said = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == 3
    (wait,) = waits.all
    clock[0] += 31.0
    assert waits.all == []
    waits.note("submit", DOWN)
    assert waits.all[0].since >= wait.since
    waits.end("submit")
    waits.end("submit")
    assert waits.all == []


def test_an_api_that_is_down_is_waited_for_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By `health` and `waiting` at once, in the log about once a minute; then all is well."""
    provider = FakeProvider(scripts={"a": Script(submits=[DOWN] * 8)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            assert pipeline.health() == Health(status=HealthStatus.OK)
            call = asyncio.create_task(pipeline.generate(job("a")))
            await asyncio.sleep(100.0)
            health = pipeline.health()
            assert (health.status, health.error) == (HealthStatus.WAITING, DOWN)
            assert pipeline.waiting is health.error
            assert health.since is not None
            assert (await call).status == "success"
            assert pipeline.health().ok
        assert pipeline.health().status is HealthStatus.CLOSED

    run_virtual(main())
    said = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert 2 <= len(said) <= 9


def test_patience_has_an_end_in_the_library_too(tmp_path: Path) -> None:
    """After ten minutes the caller has the real error; who asks later may be luckier."""
    provider = FakeProvider(scripts={"a": Script(submits=[DOWN] * 10_000)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            with pytest.raises(NotAccepted, match="for 600 s; the last answer: no route to host"):
                await pipeline.generate(job("a"))
            health = pipeline.health()
            assert health.status is HealthStatus.STOPPED
            assert isinstance(health.error, NotAccepted)
            assert (await pipeline.generate(job("b"))).status == "success"
            assert pipeline.health().ok

    run_virtual(main())


def test_what_was_accepted_goes_on_when_the_api_is_back(tmp_path: Path) -> None:
    """An hour later, with nobody to ask for anything."""
    provider = FakeProvider(scripts={"a": Script(submits=[DOWN] * 100)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            with pytest.raises(NotAccepted):
                await handle.wait()
            async for update in handle.events():
                last = update
            assert last.name == "Succeeded"
            assert pipeline.health().ok

    run_virtual(main())


def test_a_refused_key_waits_for_somebody(tmp_path: Path) -> None:
    """Stopped, and nothing is tried again by itself."""
    provider = FakeProvider(scripts={"a": Script(submits=[KeyRefused("401")] * 2)})

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            handle = await pipeline.submit(job("a"))
            await asyncio.sleep(36_000.0)
            assert pipeline.health().status is HealthStatus.STOPPED
            assert pipeline.health().why == "401"
            with pytest.raises(KeyRefused):
                await handle.wait()

    run_virtual(main())
    assert provider.submits == 2


def test_a_ledger_that_failed_is_said(tmp_path: Path) -> None:
    """For good, until it is opened anew."""

    async def main() -> None:
        pipeline = opened(tmp_path, FakeProvider())
        await pipeline.open()
        ledger: Any = pipeline._parts().ledger
        error = LedgerError("on fire")

        def fail(query: Any) -> Any:
            raise error

        ledger._transact = fail
        with pytest.raises(LedgerError, match="on fire"):
            await pipeline.generate(job("a"))
        await pipeline.aclose()
        async with pipeline:
            assert pipeline.health().ok
            assert (await pipeline.generate(job("a"))).status == "success"

    run_virtual(main())


def test_a_ledger_that_somebody_holds_is_said_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup, a database browser: health says so, and the job is done when it lets go."""
    busy = [f"{each[:-4]}1" if "busy_timeout" in each else each for each in SETTINGS]
    monkeypatch.setattr("asyncpipe.ledger.database.SETTINGS", busy)
    waits = threading.Event()

    async def main() -> None:
        async with opened(tmp_path, FakeProvider(default=Script(generation_s=0.0))) as pipeline:
            ledger: Any = pipeline._parts().ledger
            note = ledger._waits

            def noted(error: LedgerError) -> None:
                note(error)
                waits.set()

            ledger._waits = noted
            with closing(sqlite3.connect(ledger_path(tmp_path), isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                accepting = asyncio.create_task(pipeline.submit(job("a")))
                await asyncio.to_thread(waits.wait, 30)
                health = pipeline.health()
                assert health.status is HealthStatus.WAITING
                assert "locked" in str(health.why)
                other.execute("ROLLBACK")
            await accepting
            assert pipeline.health().ok

    asyncio.run(main())


def test_a_full_disk_is_waited_for_by_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With no ballast left it is tried again; with room again nothing was lost, and it is held."""
    monkeypatch.setattr("asyncpipe.ledger.database.FULL_PAUSE_S", 0.0)
    monkeypatch.setattr("asyncpipe.ledger.database.LOOK_EVERY_S", 0.0)

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            ledger: Any = pipeline._parts().ledger
            once, full = ledger._try, [LedgerFull("no room")] * 5

            def tried(query: Any) -> Any:
                if full:
                    raise full.pop()
                return once(query)

            ledger._try = tried
            handle = await pipeline.submit(job("a"))
            assert (await handle.wait()).status == "success"
            assert not ledger._ballast.spent
            assert ledger._ballast._path.exists()
            assert ledger.trouble is None

    run_virtual(main())
    assert "waiting: no room" in caplog.text
