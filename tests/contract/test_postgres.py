"""PostgreSQL does what any store has to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import orjson
import pytest

from asyncpipe import Job
from asyncpipe.jobs.events import Failed, Unknown, now
from asyncpipe.ledger import Ledger, LedgerReader, Named, NotReserved, sharing
from asyncpipe.ledger.asset_names import FolderNames
from asyncpipe.ledger.postgres import (
    PostgresConnection,
    connect,
    make_place,
    open_place,
    read_place,
)
from asyncpipe.ledger.queries import job_to_spec
from asyncpipe.testing.ledgers import LedgerContract, LedgerStore, intent, went
from tests.support.postgres import shared_url
from tests.support.tables import ORIGIN

TODAY, RUN = date(2026, 11, 28), Named(run=1)
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
            connection,
            me=1,
            held=[],
            left=[3002],
            awaited=[],
            runs=[Named(run=1)],
            news="{}",
            today=TODAY,
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


SPRING = "label:campaign=spring"


def test_intents_of_all_workers_are_weighed_against_one_budget(tmp_path: Path) -> None:
    """The lowest that any of them has, in the transaction of the intent; given back, it is there.

    Also against one that came later than what was spent before, and for workers that have none.
    """
    labels = [{"campaign": "spring"}] * 4 + [{"campaign": "autumn"}] * 2
    jobs = [Job(name=f"{n}", model=MODELS[0], prompt="p", labels=labels[n]) for n in range(6)]
    rows = [(job.key("atlas"), job) for job in jobs]

    async def main() -> None:
        where = shared_url(), str(tmp_path), tmp_path, ORIGIN
        async with open_place(*where) as first:
            session, _ = await first.begin_session(now())
            await first.add_jobs(rows, run=session.id, position=0)
            records = await first.claim(range(1, 7))
            spent = intent(records[0], 40)
            assert await first.reserve(spent) is None
            async with (
                open_place(*where, budgets={SPRING: 100, "day": 130}) as one,
                open_place(*where, budgets={SPRING: 110}) as other,
            ):
                assert await first.reserve(intent(records[1], 60)) is None
                assert await first.reserve(intent(records[2], 1)) is NotReserved.PURSE
                first.append(went(spent, Failed, error="e"))
                third = intent(records[2], 40)
                assert await first.reserve(third) is None
                assert await first.reserve(intent(records[4], 30)) is None
                assert await first.reserve(intent(records[5], 1)) is NotReserved.PURSE
                told = await one.look(held=[], left=[], awaited=[], runs=[], news="{}")
                assert told.money.purses == {SPRING: (100, 100, 100), "day": (130, 130, 130)}
                first.append(went(third, Failed, error="e"))
                midnight = now() + timedelta(days=1)
                fifth = intent(records[5], 50, at=midnight)
                assert await first.reserve(fifth) is None
                assert await first.reserve(intent(records[3], 41)) is NotReserved.PURSE
                # The sums that were counted along are those of the rows.
                first.append(went(fifth, Unknown, error="reset"))
                await first.durable()
                with connect(shared_url()) as raw:
                    schema = make_place(raw, str(tmp_path))
                    raw.execute("SELECT set_config('search_path', %s, false)", (schema,))
                    kept = dict(raw.execute("SELECT name, committed FROM purses").fetchall())
                names = [SPRING, "day"]
                true = await first.spent_on(names, now().date())
                tomorrow = await first.spent_on(names[1:], midnight.date())
                days = {f"day:{now():%F}": true["day"], f"day:{midnight:%F}": tomorrow["day"]}
                assert kept == {SPRING: true[SPRING], **days} == {SPRING: 60, **days}
                assert await other.spent_on(names, now().date()) == true
            # Those whose budget it was have left.
            assert await first.reserve(intent(records[3], 10**6)) is None

    asyncio.run(main())


class TestPostgres(LedgerContract):
    """A place of its own for every test, in one database."""

    @pytest.fixture
    def store(self) -> LedgerStore:
        return LedgerStore(open=opened, read=read)
