"""PostgreSQL does what any store has to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest

from asyncpipe import Job
from asyncpipe.ledger import Ledger, LedgerReader, Named, sharing
from asyncpipe.ledger.asset_names import FolderNames
from asyncpipe.ledger.postgres import (
    PostgresConnection,
    connect,
    make_place,
    open_place,
    read_place,
)
from asyncpipe.ledger.queries import job_to_spec
from tests.contract.ledger import LedgerContract, Store
from tests.support.postgres import shared_url
from tests.support.tables import ORIGIN

MODELS = ["m0/text-to-image", "m1/text-to-image"]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ledger]:
    async with open_place(shared_url(), str(folder), folder, ORIGIN) as ledger:
        yield ledger


@contextmanager
def read(folder: Path) -> Iterator[LedgerReader]:
    with read_place(shared_url(), str(folder)) as reader:
        yield reader


@contextmanager
def a_large_place(name: str) -> Iterator[PostgresConnection]:
    """A transaction in a place with 9,000 jobs of two models, the first 3,000 of them done."""
    with connect(shared_url()) as raw:
        schema = make_place(raw, name)
        raw.execute("SELECT set_config('search_path', %s, false)", (schema,))
        raw.execute("INSERT INTO runs(session, started_at, digest, seen) VALUES(1, '', 'd', 1)")
        raw.execute(
            "INSERT INTO jobs(key, name, type, model, spec, seen_run, position, state)"
            " SELECT 'k' || n, n, 'image', 'm' || mod(n, 2) || '/text-to-image', %s, 1, n,"
            " CASE WHEN n <= 3000 THEN 'succeeded' ELSE 'pending' END"
            " FROM generate_series(1, 9000) n",
            (orjson.dumps(job_to_spec(Job(name="a", model=MODELS[0], prompt="p"))),),
        )
        raw.execute("ANALYZE jobs")
        raw.execute("BEGIN")
        yield PostgresConnection(raw)
        raw.execute("ROLLBACK")


def rows_read(connection: PostgresConnection) -> int:
    query = (
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relid='jobs'::regclass"
    )
    return int(connection.execute(query).fetchone()[0])


def test_a_look_reads_few_rows_however_many_are_pending(tmp_path: Path) -> None:
    """All workers look all the time: ten million pending jobs must not be counted for it."""
    with a_large_place(str(tmp_path)) as connection:
        look = sharing.look(
            connection, me=1, held=[], left=[3002], awaited=[], runs=[Named(run=1)], news="{}"
        )
        assert look.waiting == [[MODELS[1], MODELS[0]]]
        assert rows_read(connection) < 100


def test_a_draw_reads_few_rows_however_many_are_done(tmp_path: Path) -> None:
    """Nor is what has ended gone through for the next job."""
    with a_large_place(str(tmp_path)) as connection:
        draw = partial(sharing.draw, limit=4, held=[], folder=FolderNames(tmp_path), me=1)
        pages = draw(connection, Named(run=1), MODELS)
        assert [[each.id for each in page] for page in pages.values()] == [
            [3002, 3004, 3006, 3008],
            [3001, 3003, 3005, 3007],
        ]
        assert rows_read(connection) < 100


class TestPostgres(LedgerContract):
    """A place of its own for every test, in one database."""

    @pytest.fixture
    def store(self) -> Store:
        return Store(open=opened, read=read)
