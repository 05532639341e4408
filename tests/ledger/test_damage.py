"""Ledgers that a disk or a power cut damaged: a moment of the true history, or said to be none."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncpipe import Job, JobState, read_manifest
from asyncpipe.errors import LedgerError, UsageError
from asyncpipe.jobs.events import now
from asyncpipe.jobs.record import fold
from asyncpipe.ledger.database import open_ledger
from asyncpipe.ledger.folder import ledger_path
from tests.support.events import MODELS, event, few, possible, with_jobs
from tests.support.tables import ORIGIN, ledger_of, tables


@dataclass(frozen=True, kw_only=True)
class History:
    """The files of a ledger that was never checkpointed, and what each length of its WAL holds.

    ``moments`` are (bytes of WAL, everything in the tables), one for each commit.
    """

    database: bytes
    wal: bytes
    moments: list[tuple[int, str]]

    def at(self, size: int) -> str:
        """What the first ``size`` bytes of the WAL promise: all that was whole in them."""
        return [dump for length, dump in self.moments if length <= size][-1]


def dump(connection: Any) -> str:
    return "\n".join(connection.iterdump())


@cache
def history() -> History:
    """Forty jobs on different ways, each event a commit of its own."""
    moments: list[tuple[int, str]] = []

    async def main(folder: Path) -> History:
        path = ledger_path(folder)
        wal = path.with_name(f"{path.name}-wal")
        with closing(sqlite3.connect(":memory:")) as nothing:
            moments.append((0, dump(nothing)))
        ledger = await ledger_of(folder)
        moments.append((wal.stat().st_size, await ledger._ask(dump)))
        jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(6)]
        records = await ledger._ask(partial(with_jobs, jobs=jobs))
        moments.append((wal.stat().st_size, await ledger._ask(dump)))
        random = Random(7)
        for _ in range(60):
            n = random.randrange(len(records))
            if kinds := possible(records[n]):
                happened = event(random.choice(kinds), records[n], random.randrange(10**6))
                records[n] = fold(records[n], happened)
                if happened.stored:
                    ledger.append(records[n])
                    await ledger.durable()
                    moments.append((wal.stat().st_size, await ledger._ask(dump)))
        kept = History(database=path.read_bytes(), wal=wal.read_bytes(), moments=moments)
        await ledger.aclose()
        return kept

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(main(Path(folder)))


@contextmanager
def folder_with(database: bytes, wal: bytes) -> Iterator[Path]:
    """An output folder with these files: a copy, or what a disk gave back."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = ledger_path(folder)
        path.parent.mkdir()
        path.write_bytes(database)
        path.with_name(f"{path.name}-wal").write_bytes(wal)
        yield folder


def read_back(folder: Path) -> str:
    with tables(folder) as connection:
        return dump(connection)


def test_the_history_has_many_moments_and_no_checkpoint() -> None:
    """What the tests below stand on."""
    made = history()
    assert len(made.moments) > 40
    assert len({text for _, text in made.moments}) == len(made.moments)
    assert made.moments[-1][0] == len(made.wal)


def test_a_wal_cut_around_any_commit_holds_all_commits_before_the_cut() -> None:
    """A record that is whole is never forgotten; one that is not is not there at all."""
    made = history()
    for length, _ in made.moments:
        for size in {max(length - 1, 0), length, min(length + 1, len(made.wal))}:
            with folder_with(made.database, made.wal[:size]) as folder:
                assert read_back(folder) == made.at(size), size


@few(max_examples=100)
@given(st.data())
def test_a_damaged_wal_holds_exactly_what_was_whole_before_the_damage(data: st.DataObject) -> None:
    """Cut and flipped anywhere: a moment of the true history, the last one that can be trusted."""
    made = history()
    size = data.draw(st.integers(0, len(made.wal)), label="cut")
    places = data.draw(st.lists(st.integers(0, max(size - 1, 0)), max_size=4), label="flips")
    wal = bytearray(made.wal[:size])
    for place in set(places) if size else ():
        wal[place] ^= data.draw(st.integers(1, 255), label="bits")
    with folder_with(made.database, bytes(wal)) as folder:
        assert read_back(folder) == made.at(min([size, *places]))


@few(max_examples=15)
@given(st.data())
def test_a_damaged_ledger_is_opened_and_used_like_any_other(data: st.DataObject) -> None:
    """The engine's own way in: what is left is gone on with, and written to."""
    made = history()
    size = data.draw(st.integers(made.moments[2][0], len(made.wal)), label="cut")

    async def main(folder: Path) -> None:
        ledger = await ledger_of(folder)
        assert await ledger._ask(dump) == made.at(size)
        begun, _ = await ledger.begin_session(now())
        await ledger.aclose()
        with tables(folder) as connection:
            assert connection.execute("SELECT max(id) FROM runs").fetchone() == (begun.id,)

    with folder_with(made.database, made.wal[:size]) as folder:
        asyncio.run(main(folder))


def look_at_everything(folder: Path) -> None:
    """Read what a run and the manifest would."""

    async def main() -> None:
        async with open_ledger(folder, ORIGIN) as ledger:
            await ledger.records_in([*JobState])
            await ledger.sums()

    asyncio.run(main())
    list(read_manifest(folder))


@cache
def settled() -> bytes:
    """The same ledger, closed: all of it in the one file."""
    made = history()
    with folder_with(made.database, made.wal) as folder:
        with closing(sqlite3.connect(ledger_path(folder))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return ledger_path(folder).read_bytes()


@few(max_examples=60)
@given(size=st.integers(0, 200_000))
def test_a_ledger_file_cut_anywhere_opens_or_says_why_not(size: int) -> None:
    """Half a file is no ledger: LedgerError, and nothing else."""
    whole = settled()
    with folder_with(whole[: size % len(whole)], b"") as folder:
        try:
            look_at_everything(folder)
        except LedgerError:
            return


def test_a_ledger_file_with_flipped_bits_opens_or_says_why_not() -> None:
    """Pages of a database have no checksums, so that a flipped bit may reach a value."""
    whole, random, odd = settled(), Random(3), []
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        with folder_with(bytes(damaged), b"") as folder:
            try:
                look_at_everything(folder)
            except (LedgerError, UsageError):  # flipped in the provider's name: another's folder
                continue
            except Exception as exc:
                odd.append(repr(exc)[:100])
    assert odd == []
