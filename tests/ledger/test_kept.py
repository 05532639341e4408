"""A ledger that is gone is missed, and what it records does not stand in the log alone."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from asyncpipe.errors import LedgerError
from asyncpipe.ledger.database import open_ledger
from asyncpipe.ledger.folder import ledger_path
from tests.contract.ledger import begun, intent


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
