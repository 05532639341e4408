"""PostgreSQL does what any store has to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from asyncpipe.ledger import Ledger, LedgerReader
from asyncpipe.ledger.postgres import open_place, read_place
from tests.contract.ledger import LedgerContract, Store
from tests.support.postgres import shared_url
from tests.support.tables import ORIGIN


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ledger]:
    async with open_place(shared_url(), str(folder), folder, ORIGIN) as ledger:
        yield ledger


@contextmanager
def read(folder: Path) -> Iterator[LedgerReader]:
    with read_place(shared_url(), str(folder)) as reader:
        yield reader


class TestPostgres(LedgerContract):
    """A place of its own for every test, in one database."""

    @pytest.fixture
    def store(self) -> Store:
        return Store(open=opened, read=read)
