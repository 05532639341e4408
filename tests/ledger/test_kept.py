"""A ledger that is gone is missed, and what it records does not stand in the log alone."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.errors import LedgerError
from asyncpipe.ledger.database import SqliteLedger, open_ledger
from asyncpipe.ledger.errors import LedgerFails
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.ledger.schema import SETTINGS
from asyncpipe.testing.ledgers import begun, intent


@pytest.mark.parametrize("sign", ["manifest.json", ".asyncpipe/ballast"])
@pytest.mark.parametrize("empty", [True, False])
def test_a_ledger_that_is_gone_is_not_begun_anew(tmp_path: Path, sign: str, empty: bool) -> None:
    """Everything would be bought twice: what shows that there was one is named."""
    folder = tmp_path / "产出"
    (folder / ".asyncpipe").mkdir(parents=True)
    (folder / sign).write_text("{}")
    if empty:
        ledger_path(folder).touch()

    async def main() -> None:
        with pytest.raises(LedgerError, match="missing or empty") as caught:
            async with open_ledger(folder, None):
                pass
        assert str(folder / sign) in str(caught.value)

    asyncio.run(main())


def test_what_is_recorded_stands_in_the_ledgers_own_file_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy without the log has the tables at once, and the jobs within seconds."""
    monkeypatch.setattr("asyncpipe.ledger.database.CHECKPOINT_S", 0.0)
    folder = tmp_path / "out"
    (folder / ".asyncpipe").mkdir(parents=True)
    copy = tmp_path / "copy.sqlite3"

    def jobs() -> int:
        shutil.copyfile(ledger_path(folder), copy)
        with closing(sqlite3.connect(copy)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM attempts").fetchone()
            return int(count)

    async def main() -> None:
        async with open_ledger(folder, None) as ledger:
            assert jobs() == 0
            _, records = await begun(ledger)
            ledger.append(intent(records[0]))
            await ledger.durable()
            for _ in range(100_000):  # turns of the loop, not time
                if jobs():
                    break
                await asyncio.sleep(0)
            assert jobs() == 1

    asyncio.run(main())


def test_a_ledger_that_somebody_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup, a database browser: longer than SQLite itself waits."""
    busy = [f"{each[:-4]}1" if "busy_timeout" in each else each for each in SETTINGS]
    monkeypatch.setattr("asyncpipe.ledger.database.SETTINGS", busy)
    tries = threading.Event()
    folder = tmp_path / "out"
    (folder / ".asyncpipe").mkdir(parents=True)

    async def main() -> None:
        async with open_ledger(folder, None) as ledger:
            _, records = await begun(ledger)
            once = SqliteLedger._try
            turns = iter(range(100))

            def tried(this: SqliteLedger, query: Any) -> Any:
                if next(turns) == 5:
                    tries.set()
                return once(this, query)

            monkeypatch.setattr(SqliteLedger, "_try", tried)
            with closing(sqlite3.connect(ledger_path(folder), isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                ledger.append(intent(records[0]))
                held = asyncio.ensure_future(ledger.durable())
                await asyncio.to_thread(tries.wait, 30)
                assert not held.done()
                other.execute("ROLLBACK")
            await held

    asyncio.run(main())


def test_a_ledger_that_is_held_while_it_is_opened_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is in hand yet, but nobody may be there to start the run again."""
    busy = [f"{each[:-4]}1" if "busy_timeout" in each else each for each in SETTINGS]
    monkeypatch.setattr("asyncpipe.ledger.database.SETTINGS", busy)
    folder = tmp_path / "产出"
    (folder / ".asyncpipe").mkdir(parents=True)
    once, turns = SqliteLedger._open, iter(range(100))

    async def main() -> None:
        async with open_ledger(folder, None):
            pass
        with closing(sqlite3.connect(ledger_path(folder), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            def opened(this: SqliteLedger, origin: Any) -> None:
                if next(turns) == 3:
                    loop.call_soon_threadsafe(released.set)
                once(this, origin)

            async def release() -> None:
                await released.wait()
                other.execute("ROLLBACK")

            loop, released = asyncio.get_running_loop(), asyncio.Event()
            monkeypatch.setattr(SqliteLedger, "_open", opened)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(release(), name="release")
                async with open_ledger(folder, None):
                    pass

    asyncio.run(main())
    assert next(turns) > 3


@pytest.mark.parametrize("failures", [1, 3, 4])
def test_a_disk_that_fails_for_a_moment_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """It is tried again; what lasts is told."""
    monkeypatch.setattr("asyncpipe.ledger.database.PAUSES_S", (0.0,) * 4)
    folder = tmp_path / "out"
    (folder / ".asyncpipe").mkdir(parents=True)

    async def main() -> None:
        async with open_ledger(folder, None) as ledger:
            _, records = await begun(ledger)
            once, left = SqliteLedger._try, iter(range(failures))

            def tried(this: SqliteLedger, query: Any) -> Any:
                if next(left, None) is not None:
                    raise LedgerFails("disk I/O error")
                return once(this, query)

            monkeypatch.setattr(SqliteLedger, "_try", tried)
            ledger.append(intent(records[0]))
            await ledger.durable()

    if failures < 4:
        asyncio.run(main())
    else:
        with pytest.raises(LedgerError, match="I/O"):
            asyncio.run(main())
