"""Pipelines that share a ledger: callers of one job, and what workers found out of others' jobs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, Manifest, Pipeline, Polling
from asyncpipe.engine.sharing import adopt
from asyncpipe.errors import LedgerError, UsageError
from asyncpipe.jobs.events import Event, Intended, NotBought, Resubmitted, Submitted, Unknown, now
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.place import SharedPlace, mark, where_of
from asyncpipe.ledger.postgres import STUCK_S, PostgresLedger, connect, find_place, open_place
from asyncpipe.ledger.protocol import SharedLedger
from asyncpipe.ledger.rows import FIRST, Fact, Named
from asyncpipe.ledger.sharing import Stand, Writing, judge
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.pipelines import a_pipeline
from tests.support.postgres import shared_url
from tests.support.tables import ORIGIN

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def worker(simulator: Simulator, folder: Path, place: str, **options: Any) -> Pipeline:
    provider = AtlasCloud("apikey-1", base_url=simulator.base_url, simulated=True)
    polling = Polling(initial_s=0.05, maximum_s=0.2)
    return a_pipeline(
        provider,
        folder,
        ledger=shared_url(),
        place=place,
        polling=polling,
        min_free_bytes=0,
        **options,
    )


def with_simulator(
    main: Callable[[Simulator], Awaitable[None]], generation_s: tuple[float, float] = (0.5, 1.0)
) -> None:
    async def run() -> None:
        settings = SimulatorSettings(generation_s=generation_s, speed=4, body_bytes=2000)
        async with Simulator(settings) as simulator:
            await main(simulator)

    asyncio.run(run())


def a_mug(name: str) -> dict[str, Any]:
    return {"name": name, "model": FLUX, "prompt": "a mug", "width": 64, "height": 64}


def test_a_job_that_two_processes_ask_for_by_name_is_bought_once(tmp_path: Path) -> None:
    """Both get its result, wherever its file lies; so does a third one that comes later."""

    async def main(simulator: Simulator) -> None:
        place = str(tmp_path)
        async with (
            worker(simulator, tmp_path / "a", place) as one,
            worker(simulator, tmp_path / "b", place) as other,
        ):
            results = await asyncio.gather(
                *(each.generate(a_mug(f"杯 {n}")) for n in range(4) for each in (one, other))
            )
            assert {result.outcome for result in results} == {"succeeded"}
            assert len(simulator.books.predictions()) == 4
            late = await other.generate(a_mug("杯 0"))
            assert late.outcome == "succeeded"
        assert len(simulator.books.predictions()) == 4

    with_simulator(main)


def test_a_caller_whose_worker_leaves_gets_its_job_from_the_next(tmp_path: Path) -> None:
    """The one that carried it is closed in mid-flight; the other goes on, and pays nothing."""

    async def main(simulator: Simulator) -> None:
        place = str(tmp_path)
        bought = asyncio.Event()

        def hear(event: Event, after: JobRecord) -> None:
            if isinstance(event, Submitted):
                bought.set()

        async with worker(simulator, tmp_path / "b", place) as other:
            async with worker(simulator, tmp_path / "a", place, on_event=hear) as one:
                first = asyncio.ensure_future(one.generate(a_mug("杯")))
                await bought.wait()
                second = asyncio.ensure_future(other.generate(a_mug("杯")))
                first.cancel()
                await asyncio.wait([first])
            assert (await second).outcome == "succeeded"
            assert len(simulator.books.predictions()) == 1

    with_simulator(main)


def test_a_run_writes_its_jobs_after_another_worker_has_written_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write at once would leave rows that only the earlier run names.

    Seen once in a benchmark: the other ended at once, and said that all jobs were removed.
    """
    monkeypatch.setattr("asyncpipe.engine.ingest.PAGE", 3)
    order = list[str]()

    async def main(simulator: Simulator) -> None:
        place, started = str(tmp_path), list[asyncio.Future[Manifest]]()
        async with (
            worker(simulator, tmp_path / "a", place) as one,
            worker(simulator, tmp_path / "b", place) as other,
        ):

            async def named(who: str) -> AsyncIterator[Job]:
                order.append(who)
                for number in range(12):
                    if who == "one" and number == 3:
                        started.append(asyncio.ensure_future(other.batch_generate(named("other"))))
                    yield Job(name=f"杯 {number}", model=FLUX, prompt="a mug")
                order.append(f"{who} ends")

            totals = [(await one.batch_generate(named("one"))).totals, (await started[0]).totals]
        assert [(each.successful, each.removed) for each in totals] == [(12, 0), (12, 0)]
        assert len(simulator.books.predictions()) == 12

    with_simulator(main)
    assert order == ["one", "one ends", "other", "other ends"]


def test_a_run_whose_jobs_another_worker_is_just_drawing_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is locked at its draw is not seen: it is neither drawn nor somebody's yet.

    Seen once at a cap: what the other worker drew it let go again, and ours had ended unfinished.
    """
    draw, locked = PostgresLedger.draw, list[int]()

    async def beside(ledger: PostgresLedger, *args: Any, **named: Any) -> Any:
        if len(locked) == 6:  # at the first draw, and at that after the first look
            return await draw(ledger, *args, **named)
        with connect(shared_url()) as raw, raw.transaction():
            schema = find_place(raw, str(tmp_path))
            raw.execute("SELECT set_config('search_path', %s, true)", (schema,))
            locked.extend(row[0] for row in raw.execute("SELECT id FROM jobs FOR UPDATE"))
            return await draw(ledger, *args, **named)

    monkeypatch.setattr(PostgresLedger, "draw", beside)

    async def main(simulator: Simulator) -> None:
        async with worker(simulator, tmp_path / "a", str(tmp_path)) as pipeline:
            manifest = await pipeline.batch_generate([a_mug(f"杯 {n}") for n in range(3)])
        assert len(locked) == 6
        assert manifest.totals.successful == 3

    with_simulator(main)


def test_a_draw_leaves_other_workers_their_share(tmp_path: Path) -> None:
    """Half of what is ours of what is left, down to the last, and never more than asked for."""

    async def main() -> list[int]:
        url, place, pages = shared_url(), str(tmp_path), list[int]()
        jobs = [Job(model=FLUX, prompt=f"杯 {n}", name=f"{n}") for n in range(24)]
        async with (
            open_place(url, place, tmp_path, ORIGIN) as one,
            open_place(url, place, tmp_path, ORIGIN) as other,
        ):
            begun, _ = await one.begin_session(now())
            run = await one.start_run(now(), session=begun.since, job_file=None)
            await one.add_jobs([(job.key("toy"), job) for job in jobs], run=run, position=0)
            await one.end_pass(run, digest=None, jobs=24)
            named = Named(run=run)

            async def draw(ledger: SharedLedger, limit: int, *, fair: bool = True) -> int:
                held = await ledger.named_of(range(1, 25), named) if ledger is one else set()
                mine = [i for i in held if i in drawn]
                page = await ledger.draw(named, {FLUX: FIRST}, limit=limit, held=mine, fair=fair)
                drawn.update(record.id for record in page[FLUX])
                return len(page[FLUX])

            drawn = set[int]()
            pages += [await draw(one, 9), await draw(one, 2), await draw(other, 9)]
            while page := await draw(one, 9):
                pages.append(page)
        return pages

    assert asyncio.run(main()) == [6, 2, 4, 3, 2, 1, 1, 1, 1, 1, 1, 1]


def test_a_row_goes_on_to_bear_the_later_of_two_runs(tmp_path: Path) -> None:
    """A worker that was stopped while it wrote them, and wakes up, takes no job from another's run.

    Nor does the session of one that came later count as a new one, in which they were removed.
    """

    async def main() -> None:
        url, place = shared_url(), str(tmp_path)
        jobs = [(job.key("toy"), job) for job in (Job(model=FLUX, prompt="杯", name="杯"),)]
        async with (
            open_place(url, place, tmp_path, ORIGIN) as one,
            open_place(url, place, tmp_path, ORIGIN) as other,
        ):
            first, _ = await one.begin_session(now())
            earlier = await one.start_run(now(), session=first.since, job_file=None)
            second, _ = await other.begin_session(now())
            assert second.since == first.id
            later = await other.start_run(now(), session=second.since, job_file=None)
            for ledger, run in ((other, later), (one, earlier)):
                await ledger.add_jobs(jobs, run=run, position=0)
                await ledger.end_pass(run, digest=None, jobs=1)
            for ledger, run, single in ((one, earlier, first.id), (other, later, second.id)):
                assert await ledger.pending_models(Named(run=run, single=single)) == [FLUX]
                assert (await ledger.sums()).removed == 0

    asyncio.run(main())


def test_enqueued_jobs_are_in_shards_and_each_shard_is_worked_by_itself(tmp_path: Path) -> None:
    """The same jobs again are in the same shards; one that was worked has no work left."""

    async def main(simulator: Simulator) -> None:
        jobs, place = [a_mug(f"杯 {n}") for n in range(5)], str(tmp_path)
        async with worker(simulator, tmp_path / "a", place) as one:
            assert await one.enqueue(jobs, shard_size=2, settings={"a": "甲"}) == [1, 2, 3]
            assert await one.enqueue(jobs, shard_size=2) == [1, 2, 3]
        async with worker(simulator, tmp_path / "b", place) as other:
            worked = await other.work(shard=2)
            assert worked.totals == {"succeeded": 2, "left": 0}
            assert worked.elsewhere == 0
            assert len(simulator.books.predictions()) == 2
            assert await other.enqueue(jobs, shard_size=2) == [1, 3]
            assert (await other.work()).totals == {"succeeded": 5, "left": 0}

    with_simulator(main)


def record(*events: tuple[type, dict[str, Any]]) -> JobRecord:
    job = JobRecord(id=1, key="k", name="杯", job=Job(model=FLUX, prompt="p"))
    for kind, fields in events:
        job = fold(job, kind(job_id=1, at=now(), **fields))
    return job


INTENDED: tuple[type, dict[str, Any]] = (
    Intended,
    {"attempt": 1, "reserved": 4, "booked": 4, "price_source": "t"},
)
LOST: tuple[type, dict[str, Any]] = (Unknown, {"error": "lost"})


@pytest.mark.parametrize(
    ("events", "found", "becomes"),
    [
        ([INTENDED, LOST], "p1", "Found"),
        ([INTENDED, LOST], "", "Absent"),
        ([INTENDED, LOST, (Resubmitted, {})], "p1", "TurnedUp"),
        ([INTENDED, LOST, (Resubmitted, {})], "", None),
        ([INTENDED, (Submitted, {"prediction_id": "p1"})], "p1", None),
        ([INTENDED, (NotBought, {"error": "no"})], "", None),
        ([], "", None),
    ],
)
def test_what_a_worker_found_out_is_adopted_by_the_one_that_has_the_job(
    events: list[Any], found: str, becomes: str | None
) -> None:
    """Where nothing is known yet: an id, or that nothing was bought; never twice."""
    fact = Fact(job_id=1, n=1, prediction_id=found, route="", at=None)
    event = adopt(record(*events), fact)
    assert (type(event).__name__ if event is not None else None) == becomes


@pytest.mark.parametrize(
    ("stands", "held", "again", "verdict"),
    [
        (Stand(2, 7, 7, True, 0), True, False, Writing.WRITE),
        (Stand(3, 7, 7, True, 0), True, True, Writing.WRITTEN),
        (Stand(2, 9, 9, True, 0), True, False, Writing.GONE),
        (Stand(2, None, 9, False, 0), True, False, Writing.GONE),
        (Stand(2, None, 9, False, 0), False, False, Writing.WRITE),
        (Stand(2, 9, 9, False, 0), False, False, Writing.WRITE),
        (Stand(2, 9, 9, True, 0), False, False, Writing.GONE),
        (Stand(1, None, 9, False, 0), False, False, Writing.GONE),
        (Stand(2, None, None, False, 0), False, False, Writing.WRITE),
    ],
)
def test_who_may_write_a_job(stands: Stand, held: bool, again: bool, verdict: Writing) -> None:
    """Its holder; of one that was only read, whoever read what stands there."""
    after = record(INTENDED, LOST, (Resubmitted, {}))
    assert after.version == 3
    assert judge(after, 2, stands, me=7, held=held, again=again) is verdict


def test_our_own_writes_out_of_order_are_a_bug_that_is_said() -> None:
    """A record that is no newer than what we wrote last."""
    with pytest.raises(LedgerError, match="written since"):
        judge(record(INTENDED), 0, Stand(1, 7, 7, True, 0), me=7, held=True, again=False)


def test_a_folder_knows_its_place_and_two_ledgers_are_refused(tmp_path: Path) -> None:
    """Whose record it is does not change by an option that was forgotten, or added."""
    folder = tmp_path / "out"
    (folder / ".asyncpipe").mkdir(parents=True)
    place = where_of(folder, shared_url())
    assert isinstance(place, SharedPlace)
    assert place.name == str(folder)
    store = mark(place)
    assert store == mark(place)
    assert str(folder) in store
    assert where_of(folder, shared_url()) == place
    with pytest.raises(UsageError, match="belongs to the place"):
        where_of(folder)
    with pytest.raises(UsageError, match="belongs to the place"):
        where_of(folder, shared_url(), "another")
    own = tmp_path / "own"
    (own / ".asyncpipe").mkdir(parents=True)
    (own / ".asyncpipe" / "ledger.sqlite3").write_bytes(b"x")
    with pytest.raises(UsageError, match="a ledger of its own"):
        where_of(own, shared_url())
    with pytest.raises(UsageError, match="postgresql://"):
        where_of(tmp_path / "new", "mysql://x")


def test_a_worker_that_lost_a_job_writes_facts_and_nothing_else(tmp_path: Path) -> None:
    """Its lease has ended, another has the job: the id is kept, the state is the other's."""

    async def main() -> None:
        url, place = shared_url(), str(tmp_path)
        gone: list[int] = []
        job = Job(name="杯", model=FLUX, prompt="p")
        async with (
            open_place(url, place, tmp_path, ORIGIN, on_gone=gone.extend) as one,
            open_place(url, place, tmp_path, ORIGIN) as other,
        ):
            session, _ = await one.begin_session(now())
            await one.add_jobs([(job.key("atlas"), job)], run=session.id, position=0)
            (drawn,) = (await one.draw(Named(run=1), {FLUX: FIRST}, limit=9))[FLUX]
            assert await other.claim([drawn.id]) == []
            intent = fold(drawn, INTENDED[0](job_id=drawn.id, at=now(), **INTENDED[1]))
            assert await one.reserve(intent) is None
            one.release(drawn.id)  # as the end of a lease would
            await one.durable()
            (taken,) = await other.interrupted()
            lost = fold(taken.record, Unknown(job_id=drawn.id, at=now(), error="lost"))
            other.append(lost)
            await other.durable()
            answer = Submitted(job_id=drawn.id, at=now(), prediction_id="p-late")
            one.append(fold(intent, answer), held=True)
            await one.durable()
            assert gone == [drawn.id]
            assert await other.records([drawn.id]) == [lost]
            held = {"held": [drawn.id], "left": [], "awaited": [], "runs": [], "news": "{}"}
            (fact,) = (await other.look(**held)).facts  # type: ignore[arg-type]
            assert (fact.n, fact.prediction_id) == (1, "p-late")
            await other.adopted(fact)
            assert (await other.look(**held)).facts == []  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize("what", ["searching", "taking_in"])
def test_lost_submits_are_looked_for_and_jobs_written_by_one_worker_at_a_time(
    tmp_path: Path, what: str
) -> None:
    """The second begins when the first has ended, or its lease has: stopped, it holds up nobody."""

    async def main() -> list[str]:
        url, place, seen = shared_url(), str(tmp_path), list[str]()
        async with (
            open_place(url, place, tmp_path, ORIGIN) as one,
            open_place(url, place, tmp_path, ORIGIN, lease_s=1.5) as other,
            open_place(url, place, tmp_path, ORIGIN) as third,
        ):

            async def look(ledger: SharedLedger, name: str) -> None:
                async with getattr(ledger, what)():
                    seen.append(name)

            async with getattr(one, what)():
                second = asyncio.ensure_future(look(third, "third"))
                await one.sums()
                seen.append("one")
            await second
            stopped = getattr(other, what)()
            await stopped.__aenter__()
            other.lease.close()  # as SIGSTOP would
            await look(one, "one again")
            await stopped.__aexit__(None, None, None)
        return seen

    assert asyncio.run(main()) == ["one", "third", "one again"]


def test_a_transaction_that_says_nothing_is_ended(tmp_path: Path) -> None:
    """A worker that is stopped in the middle of a commit keeps no row from the others."""

    async def main() -> float:
        url, place = shared_url(), str(tmp_path)
        async with (
            open_place(url, place, tmp_path, ORIGIN) as one,
            open_place(url, place, tmp_path, ORIGIN) as other,
        ):
            tries = []

            def stuck(connection: Connection) -> float:
                connection.execute("SELECT committed FROM spent FOR UPDATE")
                tries.append(time.monotonic())
                if len(tries) == 1:
                    held.set()
                    time.sleep(STUCK_S + 2)  # as SIGSTOP would
                connection.execute("SELECT committed FROM spent")
                return time.monotonic()

            held = threading.Event()
            slow = asyncio.ensure_future(one._ask(stuck))
            await asyncio.to_thread(held.wait)
            began = time.monotonic()
            await other._ask(lambda c: c.execute("SELECT 1 FROM spent FOR UPDATE").fetchone())
            took_s = time.monotonic() - began
            await slow
            assert len(tries) == 2, "it is tried again by who lives"
            return took_s

    assert asyncio.run(main()) < STUCK_S + 2


def test_a_limit_of_the_users_is_that_of_all_workers(tmp_path: Path) -> None:
    """Five at once of a model, though two have places for three each; and more than one has."""

    async def main(simulator: Simulator) -> None:
        told: dict[str, Any] = {"limits": {"models": {FLUX: 5}}, "max_workers": 3}
        async with (
            worker(simulator, tmp_path / "a", str(tmp_path), **told) as one,
            worker(simulator, tmp_path / "b", str(tmp_path), **told) as other,
        ):
            jobs = [a_mug(f"杯 {n}") for n in range(24)]
            await asyncio.gather(one.batch_generate(jobs), other.batch_generate(jobs))
        assert len(simulator.books.predictions()) == 24
        assert 3 < simulator.books.peak_in_flight() <= 5

    with_simulator(main, generation_s=(4.0, 6.0))
