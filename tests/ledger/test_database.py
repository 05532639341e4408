"""The ledger: durable, ordered, honest about failure, and equal to the fold of its events."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.errors import LedgerError, UsageError
from asyncpipe.jobs.events import (
    AssetStored,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Generated,
    Intended,
    Lost,
    NotBought,
    Polled,
    PolledAgain,
    Released,
    Resubmitted,
    RetryAsked,
    Submitted,
    Succeeded,
    Unknown,
    now,
)
from asyncpipe.jobs.job import Job
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.ledger.asset_names import claim_stems
from asyncpipe.ledger.database import SqliteLedger
from asyncpipe.ledger.folder import Origin, ledger_path
from asyncpipe.ledger.rows import FIRST, Named
from asyncpipe.report.export import export_file
from asyncpipe.report.manifest import read_manifest
from asyncpipe.report.purchases import read_entries
from asyncpipe.report.status import read_status
from tests.support.events import check_same
from tests.support.tables import ORIGIN, ledger_of, tables

JOBS = [Job(name=f"杯子 {n}", model="m/text-to-image", prompt="a mug") for n in range(5)]


def rows(jobs: list[Job]) -> list[tuple[str, Job]]:
    return [(job.key("atlas"), job) for job in jobs]


async def with_jobs(folder: Path, jobs: list[Job] = JOBS) -> tuple[SqliteLedger, list[JobRecord]]:
    ledger = await ledger_of(folder)
    begun, _ = await ledger.begin_session(now())
    await ledger.add_jobs(rows(jobs), run=begun.id, position=0)
    named = Named(run=begun.id)
    return ledger, await ledger.pending(named, jobs[0].model, after=FIRST, limit=100)


def ways(job_id: int) -> list[list[Event]]:
    """Ways of a job through the table, as events."""
    base: Any = {"job_id": job_id, "at": now()}
    price: Any = {"booked": 40_000, "price_source": "test"}
    intended = Intended(**base, attempt=1, reserved=40_000, **price, assumed="5 s")
    again = Intended(**base, attempt=2, reserved=50_000, **price)
    submitted = Submitted(**base, prediction_id="p1", route="article", request_id="r1")
    generated = Generated(**base, outputs=("https://x/1", "data:abc"), generation_s=2.5)
    stored = AssetStored(**base, index=0, path="images/a.png", size=3, sha256="00")
    released = Released(**base, error="gpu", error_code=5)
    return [
        [intended, submitted, generated, stored, Succeeded(**base)],
        [intended, NotBought(**base, error="429"), intended, submitted],
        [intended, submitted, released, again, submitted, generated],
        [intended, submitted, Expired(**base, error="late"), PolledAgain(**base)],
        [intended, Unknown(**base, error="reset")],
        [intended, Failed(**base, error="400"), RetryAsked(**base), again],
        [intended, submitted, Failed(**base, error="empty", charged=True)],
        [
            intended,
            Unknown(**base, error="reset"),
            Resubmitted(**base),
            again,
            submitted,
        ],
        [intended, generated, FetchFailed(**base, error="net"), Lost(**base, error="404")],
    ]


@pytest.mark.parametrize("way", range(9))
def test_what_is_read_back_equals_the_fold(tmp_path: Path, way: int) -> None:
    """Ledger rows and the in-memory fold of the same events never disagree."""

    async def main() -> None:
        ledger, records = await with_jobs(tmp_path)
        record = records[2]
        for event in ways(record.id)[way]:
            record = fold(fold(record, Polled(job_id=record.id, at=now())), event)
            ledger.append(record)
        (stored,) = await ledger.records([record.id])
        await ledger.aclose()
        check_same(record, stored)

    asyncio.run(main())


def test_durable_means_another_connection_sees_it(tmp_path: Path) -> None:
    """After ``durable`` the row is committed, not only handed over."""

    async def main() -> None:
        ledger, records = await with_jobs(tmp_path)
        ledger.append(fold(records[0], ways(records[0].id)[0][0]))
        await ledger.durable()
        with tables(tmp_path) as other:
            states = other.execute("SELECT state FROM jobs WHERE id=?", (records[0].id,))
            assert states.fetchone() == ("submitting",)
        await ledger.aclose()

    asyncio.run(main())


def test_appends_are_written_even_if_nobody_waits(tmp_path: Path) -> None:
    """An appended record is never lost to a cancelled waiter."""

    async def main() -> None:
        ledger, records = await with_jobs(tmp_path)
        record = records[0]
        for event in ways(record.id)[0]:
            record = fold(record, event)
            ledger.append(record)
        waiting = asyncio.ensure_future(ledger.durable())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ledger.aclose()
        with tables(tmp_path) as other:
            assert other.execute("SELECT version FROM jobs WHERE id=1").fetchone() == (5,)

    asyncio.run(main())


def test_a_failed_commit_fails_every_waiter_and_what_follows(tmp_path: Path) -> None:
    """Nobody may believe in a record that is not there."""

    async def main() -> None:
        ledger, records = await with_jobs(tmp_path)
        await ledger._ask(lambda connection: connection.execute("DROP TABLE attempts"))
        intended = fold(records[0], ways(records[0].id)[0][0])
        ledger.append(intended)
        waiters = [asyncio.ensure_future(ledger.durable()) for _ in range(3)]
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, LedgerError) for outcome in outcomes)
        with pytest.raises(LedgerError, match="run the same command again"):
            ledger.append(intended)
        with pytest.raises(LedgerError):
            await ledger.aclose()

    asyncio.run(main())


def test_the_same_jobs_are_added_once(tmp_path: Path) -> None:
    """A second pass marks rows as seen; new ones are added behind them."""

    async def main() -> None:
        ledger, first = await with_jobs(tmp_path)
        more = [*JOBS, Job(name="新", model="m/text-to-image", prompt="x")]
        added, _ = await ledger.add_jobs(rows(more), run=2, position=0)
        assert (added.new, added.twice) == (1, ())
        found = await ledger.pending(Named(run=2), "m/text-to-image", after=FIRST, limit=100)
        assert [r.id for r in found] == [*(r.id for r in first), 6]
        await ledger.aclose()

    asyncio.run(main())


def test_the_same_job_twice_in_a_pass_is_named(tmp_path: Path) -> None:
    """Also when its twin came in an earlier page of the same pass."""

    async def main() -> None:
        ledger = await ledger_of(tmp_path)
        first, _ = await ledger.add_jobs(rows(JOBS), run=1, position=0)
        assert first.twice == ()
        twin, _ = await ledger.add_jobs(rows(JOBS[:1]), run=1, position=5)
        assert twin.twice == ("杯子 0",)
        await ledger.aclose()

    asyncio.run(main())


def test_stems_never_clash(tmp_path: Path) -> None:
    """Two jobs, a stranger's file, case and Unicode form: every job gets its own stem."""
    names = ["Mug", "mug", "MUG", "Cafe\u0301", "Café", "!!!", "???", "taken"]
    jobs = [Job(name=n, model="m/text-to-image", prompt=str(i)) for i, n in enumerate(names)]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "taken.png").write_bytes(b"mine")

    async def main() -> list[str | None]:
        ledger, records = await with_jobs(tmp_path, jobs)
        claim = partial(claim_stems, records=records, folder=tmp_path)
        claimed = await ledger._ask(claim)
        await ledger.aclose()
        return [record.stem for record in claimed]

    stems = asyncio.run(main())
    assert stems[0] == "images/mug"
    assert len({str(stem).casefold() for stem in stems}) == len(names)
    assert "images/taken" not in stems


def test_the_second_of_several_outputs_takes_no_strangers_name(tmp_path: Path) -> None:
    """A file called ``mug_2.png`` that is not ours stays; once claimed, the names are the job's."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mug_2.png").write_bytes(b"mine")

    async def main() -> list[list[str]]:
        ledger, records = await with_jobs(
            tmp_path, [Job(name="mug", model="m/text-to-image", prompt="x")]
        )
        (record,) = await ledger._ask(partial(claim_stems, records=records, folder=tmp_path))
        claimed = [await ledger.claim_parts(record, 2)]
        for stem in claimed[0]:
            (tmp_path / f"{stem}.png").write_bytes(b"ours")
        claimed.append(await ledger.claim_parts(record, 2))
        await ledger.aclose()
        return claimed

    first, again = asyncio.run(main())
    assert "images/mug_2" not in first
    assert first == again


def test_another_provider_is_refused(tmp_path: Path) -> None:
    """A simulated folder never counts as done for a real run; both are named."""

    async def main() -> None:
        await (await ledger_of(tmp_path)).aclose()
        ledger = SqliteLedger(tmp_path)
        real = Origin(provider="atlas", origin="https://api.atlascloud.ai", simulated=False)
        with pytest.raises(UsageError, match=r"simulator.*https://api.atlascloud.ai.*--output-dir"):
            await ledger.open(real)
        await ledger.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(version, "finish the folder with the asyncpipe that wrote it") for version in (1, 2, 3, 4)]
    + [(99, "install the asyncpipe that wrote it, or a newer one")],
)
def test_a_ledger_of_another_version_is_left_alone(
    tmp_path: Path, version: int, remedy: str
) -> None:
    """It is refused with the remedy, untouched; also by those who would only read."""

    async def main() -> None:
        await (await ledger_of(tmp_path)).aclose()
        with closing(sqlite3.connect(ledger_path(tmp_path))) as connection:
            connection.execute(f"PRAGMA user_version={version}")
        before = ledger_path(tmp_path).read_bytes()
        ledger = SqliteLedger(tmp_path)
        with pytest.raises(LedgerError, match=rf"version {version},.*{remedy}"):
            await ledger.open(ORIGIN)
        await ledger.aclose()
        readers: list[Callable[[Path], object]] = [read_status, read_entries, read_manifest]
        readers.append(lambda folder: export_file(folder, tmp_path / "rows.csv", "csv"))
        for reader in readers:
            with pytest.raises(LedgerError, match=remedy):
                reader(tmp_path)
        assert ledger_path(tmp_path).read_bytes() == before

    asyncio.run(main())


def test_a_file_that_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    """Garbage under the ledger's name gives a message, not a traceback of sqlite3."""
    (tmp_path / ".asyncpipe").mkdir()
    ledger_path(tmp_path).write_bytes(b"no database at all" * 100)

    async def main() -> None:
        ledger = SqliteLedger(tmp_path)
        with pytest.raises(LedgerError, match=r"ledger\.sqlite3 is damaged.*do not delete"):
            await ledger.open(ORIGIN)
        await ledger.aclose()

    asyncio.run(main())
