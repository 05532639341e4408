"""Properties that hold for any names, any events and any damage; not for chosen examples."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, partial
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpipe import Job, JobState, Pipeline, read_manifest
from asyncpipe._fs import folded, safe_stem
from asyncpipe.engine.fetch import Fetcher
from asyncpipe.errors import IllegalTransition, LedgerError, UsageError
from asyncpipe.jobs.events import (
    AskedAgain,
    AssetStored,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Generated,
    Intended,
    Lost,
    LostSettled,
    NotBought,
    Polled,
    PolledAgain,
    Released,
    Resubmitted,
    RetryAsked,
    Submitted,
    Succeeded,
    Unknown,
    Withdrawn,
    now,
)
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.jobs.states import TRANSITIONS
from asyncpipe.ledger import queries
from asyncpipe.ledger.asset_names import claim_stems
from asyncpipe.ledger.database import Ledger, reading
from asyncpipe.ledger.folder import Origin, ledger_path
from asyncpipe.ledger.queries import LostAnswer
from asyncpipe.ledger.schema import prepare
from asyncpipe.ledger.write import INLINE, statements, write
from asyncpipe.pricing.money import to_micro
from asyncpipe.report.results import iter_results
from asyncpipe.report.totals import Totals, read_totals
from asyncpipe.testing import FakeProvider, Script, run_virtual

T = TypeVar("T")

MODELS = ["m/text-to-image", "m/text-to-video"]
ORIGIN = Origin(provider="atlas", origin="simulator", simulated=True)
few = partial(settings, deadline=None, derandomize=True)


def ledger_in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    prepare(connection)
    return connection


def with_jobs(connection: sqlite3.Connection, jobs: list[Job]) -> list[JobRecord]:
    run = queries.start_run(connection, now(), session=None, job_file=None)
    rows = [(job.key("atlas"), job) for job in jobs]
    queries.add_jobs(connection, rows, run=run, position=0)
    found = [queries.record_by_key(connection, key) for key, _ in rows]
    return [record for record in found if record is not None]


# -- names --------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.text(max_size=12),
    st.text("aAbB_1-. ", max_size=6),
    st.sampled_from(["a", "A", "a_1", "A_1", "a_2", "a_1_1", "ä", "a\u0308", "Ä", "ß", "SS"]),
    st.sampled_from(["con", "CON", "con_", "K", "\u212a", "İ", "i\u0307", "ﬁ", "fi", "ſs"]),
    st.sampled_from(["..", "", "/", ".", "a.", "a.png", "A.PNG", "-", "_", "_1", "µ", "μ"]),
    st.sampled_from(["ᾳ", "αι", "\u0345", "\u0390", "\u1fd3", "x" * 300, "x" * 301, "1", "١"]),
)


def canonical_caseless(text: str) -> str:
    """What Unicode calls a canonical caseless match (D145): what the strictest systems do."""

    def nfd(s: str) -> str:
        return unicodedata.normalize("NFD", s)

    return nfd(nfd(nfd(text).casefold()).casefold())


@few(max_examples=300)
@given(one=NAMES, two=NAMES)
def test_stems_that_some_file_system_takes_for_one_fold_alike(one: str, two: str) -> None:
    """The ledger's comparison is no weaker than any file system's."""
    first, second = safe_stem(one), safe_stem(two)
    if canonical_caseless(first) == canonical_caseless(second):
        assert folded(first) == folded(second)
    if first.upper() == second.upper() or first.lower() == second.lower():
        assert folded(first) == folded(second)


class Asked:
    """A ledger that is asked at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return query(self._connection)


def stems_of(connection: sqlite3.Connection, record: JobRecord, outputs: int) -> list[str]:
    """The stems that a fetcher takes for a job with so many outputs."""
    nothing: Any = None
    ledger: Any = Asked(connection)
    fetcher = Fetcher(
        inquiry=nothing,
        ledger=ledger,
        folder=Path("nowhere"),
        downloader=nothing,
        downloads=1,
        emit=nothing,
        stop=nothing,
        rng=Random(1),
    )
    urls = tuple(f"https://h/{n}" for n in range(outputs))
    return asyncio.run(fetcher._stems(replace(record, outputs=urls)))


@few(max_examples=120)
@given(
    wanted=st.lists(
        st.tuples(NAMES, st.sampled_from(MODELS), st.integers(1, 3)), min_size=1, max_size=8
    ),
    late=st.integers(0, 8),
)
def test_no_two_jobs_share_a_file(wanted: list[tuple[str, str, int]], late: int) -> None:
    """Whatever they are called, however many outputs they have, whoever comes first."""
    jobs = [Job(name=name, model=model, prompt=str(n)) for n, (name, model, _) in enumerate(wanted)]
    with tempfile.TemporaryDirectory() as empty, closing(ledger_in_memory()) as connection:
        claim = partial(claim_stems, connection, folder=Path(empty))
        records = with_jobs(connection, jobs)
        owners: dict[str, int] = {}
        for page in (range(late), range(late, len(records))):
            claimed = {n: claim([records[n]])[0] for n in page if n < len(records)}
            for n, record in claimed.items():
                for stem in stems_of(connection, record, wanted[n][2]):
                    check_place(stem, record)
                    assert owners.setdefault(canonical_caseless(stem), n) == n
    assert len(owners) == sum(outputs for _, _, outputs in wanted)


def check_place(stem: str, record: JobRecord) -> None:
    path = PurePosixPath(f"{stem}.png")
    assert path.parts[:-1] == (record.job.kind.folder,)
    assert len(path.name.encode()) < 255
    assert not path.name.startswith(".")
    assert not set(path.name) & set('\\/:*?"<>|')
    assert path.name.isprintable()


def test_names_made_to_take_every_stem_of_another_job() -> None:
    """A job's key is known beforehand, so others can be called what it falls back to."""
    victim = Job(name="x", model=MODELS[0], prompt="victim")
    key = victim.key("atlas")
    names = ["x", f"x-{key[:6]}", key]
    takers = [Job(name=name, model=MODELS[0], prompt="taker") for name in names]
    with tempfile.TemporaryDirectory() as empty, closing(ledger_in_memory()) as connection:
        records = with_jobs(connection, [*takers, victim])
        claimed = claim_stems(connection, records, Path(empty))
    assert len({record.stem for record in claimed}) == 4


def test_a_folder_whose_ledger_was_deleted_thrice_still_takes_its_jobs(tmp_path: Path) -> None:
    """``rm -r .asyncpipe`` to start anew leaves the files, which are strangers' then."""
    job = Job(name="x", model=MODELS[0], prompt="p")
    (tmp_path / "images").mkdir()
    for _ in range(4):
        with closing(ledger_in_memory()) as connection:
            (record,) = claim_stems(connection, with_jobs(connection, [job]), tmp_path)
            assert record.stem is not None
            (tmp_path / f"{record.stem}.png").write_bytes(b"x")


def test_numbered_stems_of_last_resort_are_claimed() -> None:
    """A job that comes later may be called what an earlier one fell back to."""
    first = Job(name="x", model=MODELS[0], prompt="first")
    key = first.key("atlas")
    names = ["x_1", f"x-{key[:6]}_1", f"{key}_1"]
    others = [Job(name=name, model=MODELS[0], prompt="other") for name in names]
    with tempfile.TemporaryDirectory() as empty, closing(ledger_in_memory()) as connection:
        records = with_jobs(connection, [*others[:2], first, others[2]])
        claimed = claim_stems(connection, records[:3], Path(empty))
        taken = stems_of(connection, claimed[2], 2)
        (later,) = claim_stems(connection, records[3:], Path(empty))
    assert later.stem not in taken


# -- states and money ---------------------------------------------------------------------------

S = JobState
AMOUNTS = st.integers(0, 10**9)


def possible(record: JobRecord) -> list[str]:
    """The events that the engine may emit for a job as it stands."""
    return {
        S.PENDING: ["Intended", "Withdrawn"],
        S.SUBMITTING: ["Submitted", "Generated", "Failed", "NotBought", "Released", "Unknown"],
        S.SUBMITTED: ["Generated", "Failed", "Charged", "Released", "Expired", "Unknown", "Polled"],
        S.EXPIRED: ["PolledAgain"],
        S.UNKNOWN: ["Resubmitted", "Charged"],
        S.GENERATED: ["AssetStored", "AssetStored", "FetchFailed", "Succeeded", "Lost"],
        S.FAILED: [] if record.paid else ["RetryAsked"],
        S.CANCELLED: ["AskedAgain"],
        S.SUCCEEDED: ["Generated"],
    }.get(record.state, [])


def with_settling(record: JobRecord) -> list[str]:
    """The same, and what the user may say of lost answers at any time."""
    return [*possible(record), *(["LostCharged", "LostFree"] if record.lost else [])]


def found_out(lost: LostAnswer, record: JobRecord, *, charged: bool) -> LostSettled:
    return LostSettled(
        job_id=record.id,
        at=now(),
        attempt=lost.attempt,
        charged=charged,
        reserved=lost.reserved,
        booked=lost.booked,
        estimated=lost.estimated,
    )


def event(kind: str, record: JobRecord, amount: int) -> Event:
    """One event of a kind, fitting ``record``."""
    base: Any = {"job_id": record.id, "at": now()}
    wrong: Any = {**base, "error": f"错误 {amount}"}
    polls = amount % 5
    made: dict[str, Callable[[], Event]] = {
        "Intended": lambda: Intended(
            **base,
            attempt=record.attempt,
            reserved=amount + amount // 4 * (amount % 2),
            price_source="t",
            booked=amount,
            estimated=amount % 2 == 1,
        ),
        "Submitted": lambda: Submitted(**base, prediction_id=f"p{amount}", route="article"),
        "Generated": lambda: Generated(
            **base,
            outputs=("https://h/1", "data:x"),
            generation_s=1.0,
            polls=polls,
            told=told(record, amount),
        ),
        "Failed": lambda: Failed(**wrong, polls=polls),
        "Charged": lambda: Failed(**wrong, charged=True, polls=polls, told=told(record, amount)),
        "NotBought": lambda: NotBought(**wrong, request_id="r"),
        "Released": lambda: Released(**wrong, polls=polls, error_code=3, prediction_id="late"),
        "Unknown": lambda: Unknown(**wrong, polls=polls),
        "Expired": lambda: Expired(**wrong, polls=polls),
        "Polled": lambda: Polled(**base, said="processing"),
        "PolledAgain": lambda: PolledAgain(**base),
        "Resubmitted": lambda: Resubmitted(**base),
        "AssetStored": lambda: AssetStored(
            **base, index=amount % 2, path="images/a.png", size=amount, sha256="0"
        ),
        "FetchFailed": lambda: FetchFailed(**wrong),
        "Succeeded": lambda: Succeeded(**base),
        "Lost": lambda: Lost(**wrong),
        "RetryAsked": lambda: RetryAsked(**base),
        "AskedAgain": lambda: AskedAgain(**base),
        "Withdrawn": lambda: Withdrawn(**base),
    }
    return made[kind]()


def told(record: JobRecord, amount: int) -> int | None:
    """What the provider says it cost: nothing said, less than reserved, nothing, or more."""
    if record.state is S.UNKNOWN:
        return None
    return {0: None, 1: record.booked // 2, 2: 0}.get(amount % 4, record.reserved + amount)


def check_same(record: JobRecord, stored: JobRecord) -> None:
    """The fold and the ledger agree; where an attempt is used up, on what outlives it."""
    earlier = ("held", "lost", "spent")
    for name in ("id", "key", "state", "used", "failures", "reserved", *earlier):
        assert getattr(stored, name) == getattr(record, name), name
    if record.state in (JobState.PENDING, JobState.CANCELLED):
        return
    if record.state is not JobState.SUCCEEDED:  # an expected failure below
        assert stored.error == record.error
    money = ("charged", "booked", "overrun", "paid", "estimated", "committed", "in_doubt")
    for name in (*money, "prediction_id", "route", "stored", "polls"):
        assert getattr(stored, name) == getattr(record, name), name
    inline = tuple(INLINE if url.startswith(INLINE) else url for url in record.outputs)
    assert stored.outputs == inline


@pytest.mark.parametrize("seed", range(30))
def test_the_fold_the_ledger_and_the_totals_agree_after_any_history(seed: int) -> None:
    """Three jobs, any legal events: one truth three times, no money below zero or out of thin air.

    After every single event, since a run may end after any.
    """
    random = Random(seed)
    jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(3)]
    with closing(ledger_in_memory()) as connection:
        records = with_jobs(connection, jobs)
        totals = read_totals(connection)
        for _ in range(80):
            which, amount = random.randrange(3), random.choice([0, 1, random.randrange(10**9)])
            before = records[which]
            kinds = with_settling(before)
            if not kinds:
                continue
            kind = random.choice(kinds)
            if kind.startswith("Lost") and kind != "Lost":
                lost = random.choice(queries.lost_answers(connection, before.id))
                happened: Event = found_out(lost, before, charged=kind == "LostCharged")
            else:
                happened = event(kind, before, amount)
            after = records[which] = fold(before, happened)
            for sql, values in statements(happened) if happened.stored else ():
                connection.execute(sql, values)
            totals.fold(before, happened, after)
            check_same(after, queries.records_by_id(connection, [after.id])[0])
            check_money(connection, records, totals)


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_writes_what_its_events_write_one_after_the_other(seed: int) -> None:
    """Whatever any of four jobs went through within one commit, and wherever commits are cut."""
    random = Random(seed)
    jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(4)]
    with closing(ledger_in_memory()) as singly, closing(ledger_in_memory()) as together:
        records = with_jobs(singly, jobs)
        singly.backup(together)
        batch: list[Event] = []
        for _ in range(300):
            which = random.randrange(4)
            if kinds := likely(records[which]):
                happened = event(random.choice(kinds), records[which], random.choice([0, 7]))
                records[which] = fold(records[which], happened)
                batch += [happened] if happened.stored else []
        while batch:
            size = random.choice([1, 5, 40])
            for each in batch[:size]:
                for sql, values in statements(each):
                    singly.execute(sql, values)
            write(batch[:size], together)
            assert [*singly.iterdump()] == [*together.iterdump()]
            del batch[:size]


def likely(record: JobRecord) -> list[str]:
    """Mostly what brings a job on: most batches hold little else."""
    kinds = [
        kind for kind in with_settling(record) if not kind.startswith("Lost") or kind == "Lost"
    ]
    good = [kind for kind in kinds if kind in ("Intended", "Submitted", "Generated", "Succeeded")]
    return kinds + 4 * good


def check_money(connection: sqlite3.Connection, records: list[JobRecord], totals: Totals) -> None:
    assert all(min(r.reserved, r.charged, r.held) >= 0 for r in records)
    assert not any(r.reserved and r.charged for r in records)
    assert not any(r.reserved and r.paid for r in records)
    rows = connection.execute("SELECT reserved, charged FROM attempts").fetchall()
    assert all(min(row) >= 0 for row in rows)
    assert totals.reserved == sum(r.reserved + r.held for r in records)
    assert (totals.reserved, totals.charged) == (
        sum(row[0] for row in rows), sum(row[1] for row in rows)
    )  # fmt: skip
    again = read_totals(connection)
    for name in MONEY:
        assert getattr(totals, name) == getattr(again, name), name
    assert totals.charged == sum(totals.cost_by_model.values())
    assert totals.in_doubt == sum(r.in_doubt for r in records)
    assert (+totals.failures, +totals.losses) == (+again.failures, +again.losses)
    outcomes = Counter(result.status for result in iter_results(connection))
    assert outcomes["unknown"] == totals.unknown
    assert outcomes["failed"] == totals.failed
    assert outcomes["success"] == totals.successful
    results = [*iter_results(connection)]
    listed = sum(result.cost + result.reserved for result in results)
    cancelled = sum(r.committed for r in records if r.state is S.CANCELLED)
    assert to_micro(Decimal(listed)) + cancelled == totals.charged + totals.reserved
    assert sum(r.lost_answers for r in results if r.state is not S.CANCELLED) <= totals.lost_answers
    assert +totals.cost_by_model == +again.cost_by_model
    assert +totals.jobs == +again.jobs


MONEY = (
    *("charged", "estimated", "overrun", "overruns", "reserved", "held", "lost_answers"),
    *("in_doubt", "removed"),
)

KINDS = [
    "Intended", "Submitted", "Generated", "Failed", "Charged", "NotBought", "Released", "Unknown",
    "Expired", "Polled", "PolledAgain", "Resubmitted", "AssetStored", "FetchFailed", "Succeeded",
    "Lost", "RetryAsked", "AskedAgain", "Withdrawn",
]  # fmt: skip


@few(max_examples=300)
@given(
    state=st.sampled_from(S),
    kind=st.sampled_from(KINDS),
    reserved=AMOUNTS,
    held=AMOUNTS,
    amount=AMOUNTS,
)
def test_an_illegal_event_raises_and_changes_nothing(
    state: JobState, kind: str, reserved: int, held: int, amount: int
) -> None:
    """The table decides, whatever else the event says."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    fields: Any = {"id": 1, "key": "k", "name": "杯子", "job": job, "state": state}
    record = JobRecord(**fields, reserved=reserved, held=held)
    twin = JobRecord(**fields, reserved=reserved, held=held)
    happened = event(kind, record, amount)
    if happened.target is None or happened.target in TRANSITIONS[state]:
        assert fold(record, happened).state is (happened.target or state)
    else:
        with pytest.raises(IllegalTransition):
            fold(record, happened)
    assert record == twin


def test_an_asset_that_has_to_be_fetched_again_keeps_its_price() -> None:
    """The table leads from succeeded back to generated; what was charged stays charged."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    record = JobRecord(id=1, key="k", name="杯子", job=job)
    for kind in ("Intended", "Submitted", "Generated", "Succeeded", "Generated"):
        record = fold(record, event(kind, record, 40_000))
    assert record.charged == 40_000


def test_a_failed_answer_to_a_submit_keeps_its_prediction_id() -> None:
    """The ledger's row has it; the record in memory, and so hooks, do not."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    record = JobRecord(id=1, key="k", name="杯子", job=job, state=JobState.SUBMITTING)
    failed = Failed(job_id=1, at=now(), error="no", prediction_id="late")
    assert fold(record, failed).prediction_id == "late"


def test_a_success_after_a_failed_download_has_no_error() -> None:
    """The ledger's row has none; the record that hooks get still has."""
    job = Job(name="杯子", model=MODELS[0], prompt="p")
    record = JobRecord(id=1, key="k", name="杯子", job=job)
    for kind in ("Intended", "Generated", "FetchFailed", "Succeeded"):
        record = fold(record, event(kind, record, 40_000))
    assert record.error is None


# -- damage -------------------------------------------------------------------------------------


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


def dump(connection: sqlite3.Connection) -> str:
    return "\n".join(connection.iterdump())


@cache
def history() -> History:
    """Forty jobs on different ways, each event a commit of its own."""
    moments: list[tuple[int, str]] = []

    async def main(folder: Path) -> History:
        path = ledger_path(folder)
        wal = path.with_name(f"{path.name}-wal")
        path.parent.mkdir()
        with closing(sqlite3.connect(":memory:")) as nothing:
            moments.append((0, dump(nothing)))
        ledger = Ledger(folder)
        await ledger.open(ORIGIN)
        moments.append((wal.stat().st_size, await ledger.ask(dump)))
        jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(6)]
        records = await ledger.ask(partial(with_jobs, jobs=jobs))
        moments.append((wal.stat().st_size, await ledger.ask(dump)))
        random = Random(7)
        for _ in range(60):
            n = random.randrange(len(records))
            if kinds := possible(records[n]):
                happened = event(random.choice(kinds), records[n], random.randrange(10**6))
                records[n] = fold(records[n], happened)
                if happened.stored:
                    ledger.append(happened)
                    await ledger.durable()
                    moments.append((wal.stat().st_size, await ledger.ask(dump)))
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
    with reading(folder) as connection:
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
        ledger = Ledger(folder)
        await ledger.open(ORIGIN)
        assert await ledger.ask(dump) == made.at(size)
        run = await ledger.ask(partial(queries.start_run, at=now(), session=None, job_file=None))
        await ledger.aclose()
        with reading(folder) as connection:
            assert connection.execute("SELECT max(id) FROM runs").fetchone() == (run,)

    with folder_with(made.database, made.wal[:size]) as folder:
        asyncio.run(main(folder))


def look_at_everything(folder: Path) -> None:
    """Read what a run and the manifest would."""

    async def main() -> None:
        ledger = Ledger(folder)
        try:
            await ledger.open(ORIGIN)
            await ledger.ask(lambda c: [queries.ids_in_state(c, state) for state in JobState])
            await ledger.ask(queries.paid_open)
            await ledger.ask(read_totals)
        finally:
            await ledger.aclose()

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


def test_a_copy_taken_at_any_moment_never_buys_again_what_was_bought(tmp_path: Path) -> None:
    """Power fails, or somebody copies the folder mid-run: what was sold by then is known by it."""
    script = Script(generation_s=30.0)
    provider = FakeProvider(default=script)
    model = "black-forest-labs/flux-2-pro/text-to-image"
    jobs = [Job(name=f"n{n}", model=model, prompt="p") for n in range(7)]
    copies: list[tuple[list[str], bytes, bytes]] = []
    folder = tmp_path / "first"
    path = ledger_path(folder)

    def copy(event: Event, record: JobRecord) -> None:
        if not isinstance(event, Intended | Submitted):
            return
        sold = list(provider.sold)
        wal = path.with_name(f"{path.name}-wal")
        copies.append((sold, path.read_bytes(), wal.read_bytes()))

    async def run(where: Path, **options: Any) -> None:
        async with Pipeline(provider, where, seed=1, max_workers=3, **options) as pipeline:
            await pipeline.batch_generate(jobs)

    run_virtual(run(folder, on_event=copy))
    assert len(provider.sold) == len(jobs)
    assert len(copies) == 2 * len(jobs)
    for n, (sold, database, wal) in enumerate(copies):
        again = tmp_path / f"copy{n}"
        shutil.copytree(folder / "images", again / "images")
        ledger_path(again).parent.mkdir()
        ledger_path(again).write_bytes(database)
        path_of_wal = ledger_path(again)
        path_of_wal.with_name(f"{path_of_wal.name}-wal").write_bytes(wal)
        for made in provider._made.values():
            made.ready = 0.0
        before = len(provider.sold)
        run_virtual(run(again))
        assert not set(provider.sold[before:]) & set(sold), n
