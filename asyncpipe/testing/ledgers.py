"""What any store of a ledger has to do, by its face alone: ``check_ledger``, or LedgerContract.

With pytest a subclass of the latter shows every rule as a test of its own::

    class TestMine(LedgerContract):
        @pytest.fixture
        def store(self) -> LedgerStore:
            return LedgerStore(open=open_mine, read=read_mine)
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.errors import LedgerError
from asyncpipe.jobs import (
    Absent,
    AssetStored,
    Event,
    Failed,
    Found,
    Generated,
    Intended,
    Job,
    JobRecord,
    JobState,
    LostSettled,
    NotBought,
    Resubmitted,
    Submitted,
    Succeeded,
    TurnedUp,
    Unknown,
    fold,
    now,
)
from asyncpipe.ledger import (
    FIRST,
    Counted,
    Ledger,
    LedgerReader,
    Named,
    NotReserved,
    place_in_draws,
)

MODELS = ["m/text-to-image", "n/text-to-image"]
JOBS = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(4)]
ROWS = [(job.key("fake"), job) for job in JOBS]


@dataclass(frozen=True, kw_only=True)
class LedgerStore:
    """A kind of store: opens a folder's ledger, and reads it beside that."""

    open: Callable[[Path], AbstractAsyncContextManager[Ledger]]
    read: Callable[[Path], AbstractContextManager[LedgerReader]]


async def begun(ledger: Ledger) -> tuple[int, list[JobRecord]]:
    """A run with the jobs above."""
    session, _ = await ledger.begin_session(now())
    run = await ledger.start_run(now(), session=session.id, job_file="jobs.yaml")
    added, cut = await ledger.add_jobs(ROWS, run=run, position=0)
    assert (added.new, added.twice, cut) == (4, (), None)
    await ledger.end_pass(run, digest="d", jobs=4)
    return run, await ledger.records_in([JobState.PENDING])


def intent(record: JobRecord, micro: int = 40_000, **fields: Any) -> JobRecord:
    money: Any = {"reserved": micro, "booked": micro, "price_source": "t", "at": now(), **fields}
    attempt = record.next_attempt
    trace = f"00-{record.id:032x}-{attempt:016x}-01"
    return fold(record, Intended(job_id=record.id, attempt=attempt, trace=trace, **money))


def went(record: JobRecord, kind: type[Event], **fields: Any) -> JobRecord:
    return fold(record, kind(job_id=record.id, at=now(), **fields))


def told(ledger: Ledger, record: JobRecord, kind: type[Event], **fields: Any) -> JobRecord:
    """Append a job as it stands, and after one more event."""
    if record.state is not JobState.UNKNOWN:
        ledger.append(record)
    record = went(record, kind, **fields)
    ledger.append(record)
    return record


def delivered(ledger: Ledger, record: JobRecord) -> JobRecord:
    """Append every step of a job that goes well."""
    steps: list[tuple[type[Event], dict[str, Any]]] = [
        (Submitted, {"prediction_id": f"p{record.id}"}),
        (Generated, {"outputs": ("https://h/1",), "generation_s": 1.5}),
        (AssetStored, {"index": 0, "path": f"images/{record.id}.png", "size": 7, "sha256": "0"}),
        (Succeeded, {}),
    ]
    record = intent(record)
    ledger.append(record)
    for kind, fields in steps:
        record = went(record, kind, **fields)
        ledger.append(record)
    return record


class LedgerContract:
    """Subclass it with a fixture ``store``."""

    def test_durable_means_that_others_see_it(self, store: LedgerStore, tmp_path: Path) -> None:
        """What was appended before is there, read back whole and beside the run."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                after = delivered(ledger, records[0])
                await ledger.durable()
                with store.read(tmp_path) as reader:
                    assert reader.sums().states[JobState.SUCCEEDED] == 1
                assert await ledger.records([after.id]) == [after]

        asyncio.run(main())

    def test_nothing_appended_is_lost_to_a_cancelled_waiter(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Only the wait can be cut, not the write; closing waits for it."""

        async def main() -> int:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                delivered(ledger, records[0])
                waiting = asyncio.ensure_future(ledger.durable())
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            with store.read(tmp_path) as reader:
                return reader.sums().states[JobState.SUCCEEDED]

        assert asyncio.run(main()) == 1

    def test_many_waiters_share_a_commit(self, store: LedgerStore, tmp_path: Path) -> None:
        """Each waits for what it appended; one that waits for nothing does not wait."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                await ledger.durable()
                _, records = await begun(ledger)

                async def one(record: JobRecord) -> None:
                    ledger.append(intent(record))
                    await ledger.durable()
                    with store.read(tmp_path) as reader:
                        assert record.key in {row["key"] for row in reader.attempts()}

                await asyncio.gather(*map(one, records))

        asyncio.run(main())

    def test_an_older_record_of_the_same_commit_is_refused_at_once(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Before anything of it is written; what was appended before stays."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                first = intent(records[0])
                second = went(first, Submitted, prediction_id="p")
                ledger.append(first)
                ledger.append(second)
                with pytest.raises(LedgerError, match="written since"):
                    ledger.append(first)
                assert await ledger.records([first.id]) == [second]

        asyncio.run(main())

    def test_an_older_record_of_a_later_commit_fails_every_waiter_and_what_follows(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """As another process would write it: nobody believes in a record that is not there."""

        async def main() -> None:
            opened = store.open(tmp_path)
            ledger = await opened.__aenter__()
            _, records = await begun(ledger)
            ledger.append(intent(records[1]))
            await ledger.durable()
            ledger.append(intent(records[1]))
            ledger.append(intent(records[2]))
            waiters = [asyncio.ensure_future(ledger.durable()) for _ in range(3)]
            heard = await asyncio.gather(*waiters, return_exceptions=True)
            assert [type(each) for each in heard] == [LedgerError] * 3
            with pytest.raises(LedgerError):
                ledger.append(intent(records[3]))
            with store.read(tmp_path) as reader:
                assert {row["key"] for row in reader.attempts()} == {records[1].key}
            with pytest.raises(LedgerError):
                await opened.__aexit__(None, None, None)

        asyncio.run(main())

    def test_an_intent_beyond_a_cap_is_refused(self, store: LedgerStore, tmp_path: Path) -> None:
        """Up to the cap it is taken, durably; a refused one leaves nothing; without one, never."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                assert await ledger.claim([record.id for record in records]) == records
                first, second, third = map(intent, records[:3])
                assert await ledger.reserve(first, cap=80_000) is None
                assert await ledger.reserve(second, cap=80_000) is None
                assert await ledger.reserve(third, cap=119_999) is NotReserved.CAP
                assert (await ledger.records([third.id]))[0] == records[2]
                with store.read(tmp_path) as reader:
                    assert len([*reader.attempts()]) == 2
                assert await ledger.reserve(third) is None

        asyncio.run(main())

    def test_no_two_jobs_share_a_name(self, store: LedgerStore, tmp_path: Path) -> None:
        """Nor takes one a stranger's file; what is claimed stays claimed, each part of it too."""
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "mug.png").write_bytes(b"a stranger's")
        jobs = [Job(name=name, model=MODELS[0], prompt=name) for name in ("mug", "Mug", "MUG ")]

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                session, _ = await ledger.begin_session(now())
                rows = [(job.key("fake"), job) for job in jobs]
                await ledger.add_jobs(rows, run=session.id, position=0)
                named = Named(run=session.id)
                pages = await ledger.draw(named, {MODELS[0]: FIRST}, limit=9)
                stems = [record.stem for record in pages[MODELS[0]]]
                assert len({str(stem).casefold() for stem in stems}) == 3
                assert "images/mug" not in stems
                again = await ledger.draw(named, {MODELS[0]: FIRST}, limit=9)
                assert [record.stem for record in again[MODELS[0]]] == stems
                parts = [await ledger.claim_parts(record, 2) for record in pages[MODELS[0]]]
                assert len({part.casefold() for each in parts for part in each}) == 6
                assert parts[0] == await ledger.claim_parts(pages[MODELS[0]][0], 2)

        asyncio.run(main())

    def test_pages_of_a_run_go_by_model_and_id(self, store: LedgerStore, tmp_path: Path) -> None:
        """Each job once, none of another run's, none that was written since."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                run, records = await begun(ledger)
                named = Named(run=run, last=await ledger.last_row())
                assert await ledger.pending_models(named) == MODELS
                first = await ledger.draw(named, dict.fromkeys(MODELS, FIRST), limit=1)
                assert [[r.name for r in page] for page in first.values()] == [
                    ["杯子 0"],
                    ["杯子 1"],
                ]
                after = {model: place_in_draws(page[-1]) for model, page in first.items()}
                held = [page[-1].id for page in first.values()]
                second = await ledger.draw(named, after, limit=9, held=held)
                assert [[r.name for r in page] for page in second.values()] == [
                    ["杯子 2"],
                    ["杯子 3"],
                ]
                later = Job(name="later", model=MODELS[0], prompt="p")
                await ledger.add_jobs([(later.key("fake"), later)], run=run, position=4)
                found = await ledger.pending(named, MODELS[0], after=FIRST, limit=9)
                assert [record.name for record in found] == ["杯子 0", "杯子 2"]
                assert await ledger.named_of([1, 5], named) == {1}
                assert records[0].id == 1

        asyncio.run(main())

    def test_urgent_jobs_are_drawn_first(self, store: LedgerStore, tmp_path: Path) -> None:
        """By priority and then by id, page by page; a new pass may give them another one."""
        jobs = [
            Job(name=f"{n}", model=MODELS[0], prompt="p", priority=priority)
            for n, priority in enumerate((0, -1, 5, 0, 5, 0))
        ]

        async def drawn(ledger: Ledger, named: Named, limit: int) -> list[str]:
            names, after, held = list[str](), FIRST, list[int]()
            while page := (await ledger.draw(named, {MODELS[0]: after}, limit=limit, held=held))[
                MODELS[0]
            ]:
                names += [record.name for record in page]
                held += [record.id for record in page]
                after = place_in_draws(page[-1])
            return names

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                for priority, order in ((5, "240351"), (-2, "035124")):
                    session, _ = await ledger.begin_session(now())
                    given = [replace(j, priority=priority) if j.priority == 5 else j for j in jobs]
                    rows = [(job.key("fake"), job) for job in given]
                    run = await ledger.start_run(now(), session=session.id, job_file=None)
                    await ledger.add_jobs(rows, run=run, position=0)
                    await ledger.end_pass(run, digest=None, jobs=6)
                    named = Named(run=run)
                    for limit in (1, 2, 9):
                        assert "".join(await drawn(ledger, named, limit)) == order
                    looked = await ledger.pending(named, MODELS[0], after=FIRST, limit=4)
                    assert "".join(record.name for record in looked) == order[:4]

        asyncio.run(main())

    def test_an_idempotency_key_stands_for_one_job(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Also in a later process; one job may have several."""
        mug = Job(name="mug", model=MODELS[0], prompt="p", idempotency_key="order 7")
        cup = replace(mug, name="cup")

        async def main() -> None:
            for _ in range(2):
                async with store.open(tmp_path) as ledger:
                    session, _ = await ledger.begin_session(now())

                    async def add(job: Job, session: int = session.id) -> Any:
                        key, one = job.key("fake"), partial(ledger.add_job, run=session)
                        added, cut = await one(key, job, since=session)
                        assert cut is None
                        return added.record.name, added.conflict

                    assert await add(mug) == ("mug", False)
                    assert await add(replace(mug, priority=3)) == ("mug", False)
                    assert await add(cup) == ("mug", True)
                    assert await add(replace(mug, idempotency_key="order 8")) == ("mug", False)
                    assert await add(replace(cup, idempotency_key="order 8")) == ("mug", True)
                    found = await ledger.record_by_idempotency_key("order 8")
                    assert found is not None
                    assert found.name == "mug"
                    assert await ledger.record_by_idempotency_key("order") is None
                    assert len(await ledger.records_in([JobState.PENDING])) == 1

        asyncio.run(main())

    def test_a_job_comes_out_as_it_went_in(self, store: LedgerStore, tmp_path: Path) -> None:
        """With all that is wished for it, and whom an attempt was bought from, as what."""
        given = Job(
            name="mug",
            model=MODELS[0],
            prompt="p",
            priority=-3,
            max_cost=Decimal("0.250000"),
            store=False,
            labels={"campaign": 'spr"ing'},
            deadline_s=5.5,
            idempotency_key="k",
        )

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                session, _ = await ledger.begin_session(now())
                rows = [(given.key("fake"), given)]
                await ledger.add_jobs(rows, run=session.id, position=0)
                (record,) = await ledger.records_in([JobState.PENDING])
                assert record.job == given
                record = intent(record, provider="fal", model="m/other")
                ledger.append(record)
                assert await ledger.records([record.id]) == [record]
                row = await ledger.result(record.id)
                assert row is not None
                assert (row["provider"], row["bought_as"]) == ("fal", "m/other")
                with store.read(tmp_path) as reader:
                    (attempt,) = reader.attempts()
                    assert (attempt["provider"], attempt["bought_as"]) == ("fal", "m/other")
                    assert reader.label_names(9) == ["campaign"]

        asyncio.run(main())

    def test_what_is_spent_on_labels_and_days_is_counted(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Charged and reserved, lost answers too; a day's is what was intended on it."""
        labels = [{"c": "spring"}, {"c": "spring", "x": 'c":"autumn'}, {"c": "Spring"}, {}]
        jobs = [replace(job, labels=each) for job, each in zip(JOBS, labels, strict=True)]
        names = ["label:c=spring", "label:c=Spring", "label:c=autumn", 'label:x=c":"autumn', "day"]

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                session, _ = await ledger.begin_session(now())
                rows = [(job.key("fake"), job) for job in jobs]
                await ledger.add_jobs(rows, run=session.id, position=0)
                records = await ledger.records_in([JobState.PENDING])
                assert set((await ledger.spent_on(names, now().date())).values()) == {0}
                delivered(ledger, records[0])
                lost = told(ledger, intent(records[1], 7), Unknown, error="reset")
                yesterday = now() - timedelta(days=1)
                ledger.append(intent(records[2], 500, at=yesterday))
                told(ledger, intent(records[3], 9), Failed, error="e")
                spent = await ledger.spent_on(names, now().date())
                assert [spent[name] for name in names] == [40_007, 500, 0, 7, 40_007]
                assert await ledger.spent_on(["day"], yesterday.date()) == {"day": 500}
                ledger.append(intent(told(ledger, lost, Resubmitted, failures=0), 11))
                assert await ledger.spent_on(names[:1], now().date()) == {names[0]: 40_018}

        asyncio.run(main())

    def test_the_same_job_is_one_row(self, store: LedgerStore, tmp_path: Path) -> None:
        """Seen again by a pass, twice in a pass, and asked for by one caller."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                run, _ = await begun(ledger)
                twin, _ = await ledger.add_jobs(ROWS[:1], run=run, position=9)
                assert (twin.new, twin.twice) == (0, ("杯子 0",))
                again, _ = await ledger.add_jobs(ROWS, run=run + 1, position=0)
                assert (again.new, again.twice) == (0, ())
                one, _ = await ledger.add_job(*ROWS[0], run=run + 2, since=1)
                assert one.counted is Counted.IN_A_BATCH
                new = Job(name="new", model=MODELS[0], prompt="p")
                added, _ = await ledger.add_job(new.key("fake"), new, run=run + 2, since=1)
                assert (added.counted, added.record.id > 4) == (Counted.NOWHERE, True)
                assert added.record.stem == "images/new"

        asyncio.run(main())

    def test_what_a_run_buys_is_one_rule(self, store: LedgerStore, tmp_path: Path) -> None:
        """Asked by run or by key, it is the same: nothing charged, moderated or in doubt."""
        ways: dict[str, list[tuple[type[Event], dict[str, Any]]]] = {
            "failed": [(Failed, {"error": "x"})],
            "moderated": [(Failed, {"error": "x", "moderated": True})],
            "charged": [(Failed, {"error": "x", "charged": True})],
            "unknown": [(Unknown, {"error": "reset"})],
            "in doubt": [
                (Unknown, {"error": "reset"}),
                (Resubmitted, {}),
                (Failed, {"error": "x"}),
            ],
            "pending": [],
        }
        jobs = {name: Job(name=name, model=MODELS[0], prompt="p") for name in ways}
        keys = {job.key("fake"): name for name, job in jobs.items()}

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                session, _ = await ledger.begin_session(now())
                rows = [(job.key("fake"), job) for job in jobs.values()]
                await ledger.add_jobs(rows, run=session.id, position=0)
                names = {}
                for record in await ledger.records_in([JobState.PENDING]):
                    names[record.id], after = record.name, record
                    for kind, fields in ways[record.name]:
                        if after.state is JobState.PENDING:
                            after = intent(after)
                            ledger.append(after)
                        after = went(after, kind, **fields)
                        ledger.append(after)
                for retry, resubmit, bought in (
                    (False, False, set()),
                    (True, False, {"failed"}),
                    (False, True, {"unknown"}),
                    (True, True, {"failed", "unknown"}),
                ):
                    again = {"retry_failed": retry, "resubmit": resubmit}
                    found = await ledger.to_buy(session.id, **again)
                    assert {names[i] for i in found} == bought
                    alone = await ledger.left_alone([*keys, "none"], **again)
                    assert {keys[key] for key in alone} == {*ways} - bought - {"pending"}
                    with store.read(tmp_path) as reader:
                        assert reader.left_alone(keys, **again) == alone
                unresolved = [record.name for record in await ledger.unresolved()]
                assert unresolved == ["unknown", "in doubt"]

        asyncio.run(main())

    def test_the_same_jobs_again_are_a_run_without_a_pass(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Only those of the last finished pass; nobody's are removed by it."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                run, _ = await begun(ledger)
                session, _ = await ledger.begin_session(now())
                assert session.removed == 4
                asked: dict[str, Any] = {"since": session.id, "job_file": None}
                assert await ledger.repeat_run(now(), **asked, digest="other") is None
                repeated = await ledger.repeat_run(now(), **asked, digest="d")
                assert repeated is not None
                assert repeated.seen == run
                assert await ledger.removed() == (0, None)
                await ledger.start_run(now(), session=session.id, job_file=None)
                assert await ledger.repeat_run(now(), **asked, digest="d") is None, "it broke off"

        asyncio.run(main())

    def test_what_callers_asked_for_is_taken_up(self, store: LedgerStore, tmp_path: Path) -> None:
        """Pending jobs of an earlier session's callers, never those of this one's or of a run."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                await begun(ledger)
                sessions = []
                for name in ("早", "晚"):
                    session, _ = await ledger.begin_session(now())
                    job = Job(name=name, model="m/text-to-image", prompt="a mug")
                    same = {"run": session.id, "since": session.id}
                    await ledger.add_job(name, job, **same)
                    sessions.append(session.id)
                assert await ledger.removed() == (4, None), "those of the run; no caller's"
                for _ in range(2):  # killed before it was bought: taken up once more
                    run = await ledger.take_up(now(), session=sessions[-1])
                    assert run is not None
                    named = Named(run=run, single=sessions[-1])
                    (taken,) = await ledger.pending(named, "m/text-to-image", after=FIRST, limit=9)
                    assert taken.name == "早"
                mine = [taken.id]
                assert await ledger.take_up(now(), session=sessions[-1], but=mine) is None
                assert await ledger.take_up(now(), session=-1, but=mine) is not None
                assert await ledger.removed() == (4, None)

        asyncio.run(main())

    def test_a_job_is_found_by_whatever_names_it(self, store: LedgerStore, tmp_path: Path) -> None:
        """Its own id, key, name, its prediction's id, an idempotency key; of a name the newest."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                delivered(ledger, records[0])
                session, _ = await ledger.begin_session(now())
                same = {"run": session.id, "since": session.id}
                own = Job(name="單", model="m/text-to-image", prompt="a", idempotency_key="訂單 7")
                (one, _) = await ledger.add_job("單-key", own, **same)
                ways: dict[str, str | int] = {
                    "id": one.record.id,
                    "key": "單-key",
                    "name": "單",
                    "idempotency_key": "訂單 7",
                }
                for by, value in ways.items():
                    found = await ledger.find(by, value)
                    assert found is not None
                    assert (found.record.id, found.alone) == (one.record.id, True), by
                    assert await ledger.find(by, -7 if by == "id" else "nobody's") is None
                bought = await ledger.find("prediction_id", f"p{records[0].id}")
                assert bought is not None
                assert (bought.record.id, bought.alone) == (records[0].id, False)

        asyncio.run(main())

    def test_results_are_listed_newest_first_in_pages(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """All, those of an outcome, those with a label; what was never started, too."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                session, _ = await ledger.begin_session(now())
                same = {"run": session.id, "since": session.id}
                for n in range(6):
                    labels = {"campaign": "spring" if n % 2 else "fall", "%": '"'}
                    own = Job(name=f"{n}", model="m/text-to-image", prompt="a", labels=labels)
                    one, _ = await ledger.add_job(f"{n}", own, **same)
                    if n == 3:
                        delivered(ledger, one.record)

                async def names(**only: Any) -> list[str]:
                    found, before = [], 2**62
                    while rows := await ledger.results_page(before=before, limit=2, **only):
                        found += [row["name"] for row in rows]
                        before = rows[-1]["id"]
                        assert {row["cost"] for row in rows} <= {0, 40_000}
                    return found

                assert await names() == ["5", "4", "3", "2", "1", "0"]
                assert await names(label=("campaign", "spring")) == ["5", "3", "1"]
                assert await names(label=("%", '"')) == ["5", "4", "3", "2", "1", "0"]
                assert await names(outcome="succeeded") == ["3"]
                assert await names(outcome="pending", label=("campaign", "fall")) == ["4", "2", "0"]
                assert await names(label=("campaign", "spr")) == []

        asyncio.run(main())

    def test_money_is_summed_where_it_is(self, store: LedgerStore, tmp_path: Path) -> None:
        """Charged, reserved, held for a lost answer, and what became of that at last."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                delivered(ledger, records[0])
                lost = intent(records[1])
                ledger.append(lost)
                lost = went(went(lost, Unknown, error="reset"), Resubmitted)
                ledger.append(lost)
                lost = intent(lost, 5)
                ledger.append(lost)
                rows = (await ledger.sums()).money
                assert sum(row["charged"] for row in rows) == 40_000
                assert sum(row["reserved"] for row in rows if row["earlier"]) == 40_000
                assert sum(row["reserved"] for row in rows if not row["earlier"]) == 5
                ledger.append(went(lost, LostSettled, attempt=1, charged=False))
                rows = (await ledger.sums()).money
                assert sum(row["free"] for row in rows) == 1
                assert sum(row["lost"] + row["earlier"] * row["reserved"] for row in rows) == 0
                with store.read(tmp_path) as reader:
                    found = [(row["name"], row["outcome"]) for row in reader.results(started=True)]
                    listed = [row["n"] for row in reader.results(started=False)]
                assert found == [("杯子 0", "succeeded"), ("杯子 1", "pending")]
                assert listed == [1, 2, None, None]
                row = await ledger.result(1)
                assert row is not None
                assert [asset["path"] for asset in row["assets"]] == ["images/1.png"]
                assets = await ledger.assets(run=None, after=0, limit=9)
                assert [(asset.job_id, asset.size) for asset in assets] == [(1, 7)]
                assert (await ledger.open_work()).waiting == {MODELS[0]: 1, MODELS[1]: 1}

        asyncio.run(main())

    def test_what_is_pruned_keeps_its_money_and_is_not_bought_again(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Nor is what is reserved, or not old enough; a job that is named again is whole again."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, (done, failed, lost, _) = await begun(ledger)
                done = delivered(ledger, done)
                failed, lost = intent(failed), intent(lost)
                ledger.append(failed)
                ledger.append(lost)
                failed = went(failed, Failed, error="no")
                ledger.append(failed)
                ledger.append(went(lost, Unknown, error="cut"))
                await ledger.durable()
                before, old = await ledger.sums(), now()
                ids = [done.id, failed.id]
                page = await ledger.prunable(before=old, after=0, limit=10)
                assert [(row[0], row[2]) for row in page] == [(done.id, 40_000), (failed.id, 0)]
                assert await ledger.prunable(before=old, after=failed.id, limit=10) == []
                assert (
                    await ledger.prunable(before=done.attempt.ended_at or old, after=0, limit=1)
                    == []
                )
                await ledger.prune(ids, at=now(), files=False)
                assert await ledger.prunable(before=old, after=0, limit=10) == []
                assert await ledger.unpruned(before=now()) == {JobState.UNKNOWN: 1}
                assert await ledger.sums() == before
                forgot = (await ledger.records(ids))[0]
                assert (forgot.job.prompt, forgot.key) == ("(pruned)", done.key)
                assert forgot.attempt.outputs == ("data:",)
                assert forgot.attempt.prediction_id == done.attempt.prediction_id
                assert [each[1] for each in await ledger.stored(ids)] == [f"images/{done.id}.png"]
                keys = [failed.key]
                with store.read(tmp_path) as reader:
                    assert reader.left_alone(keys, retry_failed=True, resubmit=False) == {*keys}
                run = await ledger.start_run(now(), session=1, job_file=None)
                await ledger.add_jobs([(failed.key, failed.job)], run=run, position=0)
                with store.read(tmp_path) as reader:
                    assert reader.left_alone(keys, retry_failed=True, resubmit=False) == set()
                await ledger.prune(ids, at=now(), files=True)
                assert await ledger.stored(ids) == []
                await ledger.shrink()

        asyncio.run(main())

    def test_uploads_are_kept_and_forgotten(self, store: LedgerStore, tmp_path: Path) -> None:
        """The latest URL of a file, as long as it leads somewhere."""

        async def main() -> None:
            at = now()
            async with store.open(tmp_path) as ledger:
                assert await ledger.find_upload("a") is None
                before = await ledger.changes()
                for url in ("https://h/1", "https://h/2"):
                    await ledger.keep_upload("a", url=url, size=3, at=at)
                assert await ledger.find_upload("a") == ("https://h/2", at)
                assert await ledger.changes() > before
                await ledger.forget_uploads(["a", "b"])
                assert await ledger.find_upload("a") is None

        asyncio.run(main())

    def test_whose_it_is_changes_only_while_nothing_is_bought_or_when_told_to(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """A refusal names the account before; what was refused to an intent bought nothing."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                refused = intent(records[0])
                ledger.append(refused)
                ledger.append(went(refused, NotBought, error="no"))
                for account in ("acct-1", "acct-2", "acct-2"):
                    assert await ledger.note_account(account, accept=False) is None
                delivered(ledger, records[1])
                assert await ledger.note_account("acct-1", accept=False) == "acct-2"
                assert await ledger.note_account("acct-2", accept=False) is None
                assert await ledger.note_account("acct-1", accept=True) is None
            with store.read(tmp_path) as reader:
                origin = reader.origin()
                assert origin is not None
                assert origin.account == "acct-1"

        asyncio.run(main())

    def test_a_record_that_ends_in_the_same_commit_is_whole(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """Whatever was merged: the last is written, and the one before it is not."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                refused = went(intent(records[0]), Failed, error="400", moderated=True)
                ledger.append(intent(records[0]))
                ledger.append(refused)
                (found,) = await ledger.records([refused.id])
                at = refused.attempt.intended_at
                assert replace(found, attempt=replace(found.attempt, intended_at=at)) == refused

        asyncio.run(main())

    def test_whose_predictions_are_known_and_which_submits_are_sought(
        self, store: LedgerStore, tmp_path: Path
    ) -> None:
        """An id is claimed once; a lost submit is sought until it is found, absent ones on."""

        async def main() -> None:
            async with store.open(tmp_path) as ledger:
                _, records = await begun(ledger)
                delivered(ledger, records[0])
                lost = []
                for record in records[1:]:
                    ledger.append(intended := intent(record))
                    lost.append(went(intended, Unknown, error="lost"))
                    ledger.append(lost[-1])
                assert await ledger.sought() == lost
                found = went(lost[0], Found, prediction_id="late", created=now())
                absent = went(lost[1], Absent, error="not there")
                ledger.append(found)
                ledger.append(absent)
                assert await ledger.sought() == [absent, lost[2]]
                assert not await ledger.absence_failed()
                asked = {*map(str, range(2000)), "late", f"p{records[0].id}"}
                known = {"late": found.id, f"p{records[0].id}": records[0].id}
                assert await ledger.owners_of(asked) == known
                after = went(absent, TurnedUp, attempt=1, prediction_id="later")
                ledger.append(after)
                assert await ledger.absence_failed()
                assert await ledger.sought() == [lost[2]]
                made_at = found.attempt.intended_at
                assert made_at is not None
                since = await ledger.predictions(made_at)
                assert ("late", made_at) in since
                assert await ledger.predictions(now()) == []
                assert await ledger.records([found.id, after.id]) == [found, after]

        asyncio.run(main())


def check_ledger(store: LedgerStore) -> None:
    """Try every rule of LedgerContract on a store, each in a folder of its own.

    Raises AssertionError with the rule that is broken.
    """
    contract = LedgerContract()
    for name in sorted(vars(LedgerContract)):
        if not name.startswith("test_"):
            continue
        rule = getattr(contract, name)
        with tempfile.TemporaryDirectory() as folder:
            try:
                rule(store, Path(folder))
            except Exception as exc:
                said = name.removeprefix("test_").replace("_", " ")
                raise AssertionError(f"broken: {said} ({type(exc).__name__}: {exc})") from exc
