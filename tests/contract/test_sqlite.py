"""The store there is does what any store has to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncpipe.ledger import Ledger, open_ledger, reading
from asyncpipe.ledger.folder import STATE_FOLDER
from asyncpipe.testing.ledgers import LedgerContract, LedgerStore
from tests.support.tables import ORIGIN


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ledger]:
    (folder / STATE_FOLDER).mkdir(exist_ok=True)
    async with open_ledger(folder, ORIGIN) as ledger:
        yield ledger


class TestSqlite(LedgerContract):
    """SQLite in a file of the folder."""

    @pytest.fixture
    def store(self) -> LedgerStore:
        return LedgerStore(open=opened, read=reading)
