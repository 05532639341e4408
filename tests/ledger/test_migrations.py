"""Ledgers of older versions become today's, whole, in place."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from asyncpipe.errors import LedgerError
from asyncpipe.jobs.states import JobState
from asyncpipe.ledger import queries, schema
from asyncpipe.ledger.database import Ledger, reading
from asyncpipe.ledger.folder import Origin, ledger_path
from asyncpipe.report.results import iter_results
from asyncpipe.report.totals import read_totals
from tests.support.old_ledgers import version_1

ORIGIN = Origin(provider="atlas", origin="simulator", simulated=True)


def opened(folder: Path) -> sqlite3.Connection:
    async def main() -> None:
        ledger = Ledger(folder)
        try:
            await ledger.open(ORIGIN)
        finally:
            await ledger.aclose()

    asyncio.run(main())
    return sqlite3.connect(ledger_path(folder))


def shape(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'index')")
    return {
        name: sorted(connection.execute(f"SELECT name, type, pk FROM pragma_table_info('{name}')"))
        for (name,) in tables.fetchall()
    }


def test_an_old_ledger_becomes_like_a_new_one_and_keeps_everything(tmp_path: Path) -> None:
    """The same tables and columns as a new ledger's; the job, its money and its prediction."""
    version_1(tmp_path)
    (tmp_path / "new" / ".asyncpipe").mkdir(parents=True)
    migrated, new = opened(tmp_path), opened(tmp_path / "new")
    assert shape(migrated) == shape(new)
    assert migrated.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    (record,) = queries.paid_open(migrated)
    assert (record.state, record.prediction_id) == (JobState.EXPIRED, "p1")
    assert (record.reserved, record.resumed_at) == (40_000, None)
    assert record.submitted_at == datetime(2026, 11, 20, 8, 0, 2, tzinfo=UTC)
    totals = read_totals(migrated)
    assert (totals.total, totals.pending, totals.reserved) == (1, 1, 40_000)
    for connection in (migrated, new):
        connection.close()


def test_an_old_ledger_can_be_read_before_it_is_migrated(tmp_path: Path) -> None:
    """Reading changes nothing, so that an older asyncpipe can still go on."""
    version_1(tmp_path)
    with reading(tmp_path) as connection:
        (result,) = iter_results(connection)
        assert result.prediction_id == "p1"
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_migration_that_fails_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a migration is none: the next try begins where the first began."""
    version_1(tmp_path)
    broken = (*schema.MIGRATIONS[1], "UPDATE nothing_of_that_name SET a=1")
    with monkeypatch.context() as patch:
        patch.setitem(schema.MIGRATIONS, 1, broken)
        with pytest.raises(LedgerError, match="nothing_of_that_name"):
            opened(tmp_path)
    with reading(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    with opened(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    connection.close()


def test_every_version_has_its_way_up() -> None:
    """A step from each older version to the next."""
    assert sorted(schema.MIGRATIONS) == list(range(1, schema.SCHEMA_VERSION))


def test_when_it_was_bought_stays_what_it_was(tmp_path: Path) -> None:
    """An expired job that is polled again gets a new deadline; its submit keeps its time."""
    from asyncpipe.jobs.events import PolledAgain, now

    version_1(tmp_path)

    async def main() -> None:
        ledger = Ledger(tmp_path)
        await ledger.open(ORIGIN)
        ledger.append(PolledAgain(job_id=1, at=now()))
        (record,) = await ledger.ask(partial(queries.records_by_id, ids=[1]))
        assert record.submitted_at == datetime(2026, 11, 20, 8, 0, 2, tzinfo=UTC)
        assert record.resumed_at is not None
        await ledger.aclose()

    asyncio.run(main())
