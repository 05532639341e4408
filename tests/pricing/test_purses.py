"""Budgets of labels and of days, without a loop: what counts against which, and what fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Job, JobRecord
from asyncpipe.jobs.events import (
    Event,
    Failed,
    Generated,
    Intended,
    Released,
    Submitted,
    Unknown,
)
from asyncpipe.jobs.record import fold
from asyncpipe.pricing import Budget, Fit, Price
from asyncpipe.pricing.purses import Purse, Purses, PurseState, purse_of, purses_of

SPRING = "label:campaign=spring"
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Books:
    charged_micro = reserved_micro = 0


class Flying(list[JobRecord]):
    """The jobs in memory."""

    def releasable(self) -> int:
        return sum(record.releasable for record in self)

    def unanswered(self) -> int:
        return 0

    def releasable_in(self, purse: Purse, day: date) -> int:
        return sum(purse.releasable(record, day) for record in self)


@dataclass
class Wall:
    """A clock that a test sets."""

    at: datetime = NOON

    def __call__(self) -> datetime:
        return self.at


@dataclass
class World:
    """Purses, and the jobs they hear of."""

    budgets: dict[str, Decimal]
    wait: bool = False
    wall: Wall = field(default_factory=Wall)
    flying: Flying = field(default_factory=Flying)
    made: int = 0

    def __post_init__(self) -> None:
        self.purses = Purses(purses_of(self.budgets), self.flying, self.wait, clock=self.wall)
        self.budget = Budget(None, Books(), self.flying, self.purses)

    def job(self, campaign: str | None = "spring") -> Job:
        labels = {"campaign": campaign} if campaign else {}
        return Job(model="m/text-to-image", prompt="p", labels=labels)

    def fit(self, micro: int, campaign: str | None = "spring") -> Fit:
        return self.budget.fit(priced(micro), self.job(campaign))

    def intend(self, micro: int, campaign: str | None = "spring") -> JobRecord:
        """Hold, intend, submit."""
        job, self.made = self.job(campaign), self.made + 1
        record = JobRecord(id=self.made, key=f"{self.made}", name="a", job=job)
        hold = self.budget.hold(priced(micro), job)
        intended = Intended(
            job_id=record.id,
            at=self.wall.at,
            attempt=1,
            reserved=micro,
            booked=micro,
            price_source="t",
        )
        record = self.went(record, intended)
        hold.end(spent=True)
        return self.went(record, Submitted(job_id=record.id, at=self.wall.at, prediction_id="p"))

    def went(self, record: JobRecord, event: Event) -> JobRecord:
        after = fold(record, event)
        if record in self.flying:
            self.flying.remove(record)
        self.flying.append(after)
        self.purses.fold(record, after)
        return after

    def released(self, record: JobRecord) -> None:
        self.went(record, Released(job_id=record.id, at=self.wall.at, error="e"))

    def charged(self, record: JobRecord, told: int | None = None) -> None:
        at, outputs = self.wall.at, ("https://h/1",)
        event = Generated(job_id=record.id, at=at, outputs=outputs, generation_s=1.0, told=told)
        self.went(record, event)


def priced(micro: int) -> Price:
    return Price(amount=usd(micro), micro=micro, source="t")


def usd(micro: int) -> Decimal:
    return Decimal(micro).scaleb(-6)


@pytest.mark.parametrize(
    ("name", "label"),
    [(SPRING, ("campaign", "spring")), ("label:a=b=c", ("a", "b=c")), ("day", None)],
)
def test_a_budget_is_of_a_label_or_of_a_day(name: str, label: Any) -> None:
    """As its name says; the first = parts a label from its value."""
    assert purse_of(name, 7) == Purse(name, 7, label)


@pytest.mark.parametrize("name", ["week", "", "label:", "label:a", "label:a=", "label:=b", "a=b"])
def test_a_name_that_says_neither_is_refused(name: str) -> None:
    """Before anything is bought."""
    with pytest.raises(UsageError, match="neither day nor label:NAME=VALUE"):
        purses_of({name: Decimal(1)})


@pytest.mark.parametrize("amount", [Decimal(-1), Decimal("nan"), 1.5, "2", None])
def test_an_amount_that_is_none_is_refused_by_name(amount: Any) -> None:
    """A float is not money."""
    with pytest.raises(UsageError, match=r"budgets\['day'\]"):
        purses_of({"day": amount})


def test_what_does_not_fit_its_label_waits_or_never_goes_and_others_go_on() -> None:
    """It waits as long as what is in flight may give money back."""
    world = World({SPRING: usd(100)})
    first = world.intend(60)
    assert [world.fit(40), world.fit(41), world.fit(101)] == [Fit.NOW, Fit.WAITS, Fit.NEVER]
    assert world.fit(10**9, campaign="autumn") is world.fit(10**9, campaign=None) is Fit.NOW
    world.released(first)
    assert world.fit(100) is Fit.NOW
    world.charged(world.intend(60))
    assert [world.fit(40), world.fit(41)] == [Fit.NOW, Fit.NEVER]


def test_unknown_submits_count_and_give_nothing_back() -> None:
    """Nobody knows whether they were bought."""
    world = World({SPRING: usd(100), "day": usd(100)})
    record = world.intend(60)
    world.went(record, Unknown(job_id=record.id, at=NOON, error="reset"))
    assert (world.fit(41), world.purses.committed[SPRING]) == (Fit.NEVER, 60)


def test_a_failure_that_is_charged_counts() -> None:
    """Whatever came of it."""
    world = World({SPRING: usd(100)})
    record = world.intend(60)
    world.went(record, Failed(job_id=record.id, at=NOON, error="e", charged=True))
    assert world.purses.committed[SPRING] == 60


def test_a_day_frees_itself_and_a_clock_that_is_set_back_frees_none() -> None:
    """What was intended yesterday and is charged today was yesterday's."""
    world = World({"day": usd(100)})
    record = world.intend(60)
    assert world.fit(50, campaign=None) is Fit.WAITS
    assert world.purses.next_day_s == 12 * 3600
    world.wall.at = NOON + timedelta(hours=12)
    assert world.fit(100, campaign=None) is Fit.NOW
    world.charged(record)
    assert world.fit(100, campaign=None) is Fit.NOW
    world.charged(world.intend(30))
    assert world.fit(71) is Fit.NEVER
    world.wall.at = NOON
    assert (world.fit(41), world.fit(40)) == (Fit.NEVER, Fit.NOW)
    world.charged(world.intend(40))
    assert world.fit(1) is Fit.NEVER
    world.wall.at = NOON + timedelta(hours=12)
    assert (world.fit(71), world.fit(70)) == (Fit.NEVER, Fit.NOW)


def test_with_the_wish_to_wait_a_job_that_fits_no_more_today_waits() -> None:
    """Not one that fits no day."""
    for wait, verdict in ((False, Fit.NEVER), (True, Fit.WAITS)):
        world = World({"day": usd(100)}, wait=wait)
        world.charged(world.intend(60))
        assert (world.fit(50), world.fit(101)) == (verdict, Fit.NEVER)
    assert World({SPRING: usd(1)}).purses.next_day_s == float("inf")


def test_the_purse_that_never_has_room_again_is_the_one_that_is_named() -> None:
    """With the amount, and what to do."""
    world = World({"day": usd(100_000_000), SPRING: usd(50_000_000)})
    world.charged(world.intend(50_000_000))
    world.intend(50_000_000, campaign=None)
    refusal = str(world.budget.refusal(priced(10), world.job()))
    assert "the budget of 50.00 USD for label:campaign=spring is reached: 50.00 are" in refusal
    assert "'label:campaign=spring'" in refusal
    assert world.fit(10, campaign=None) is Fit.WAITS
    of_day = str(world.budget.refusal(priced(10), world.job(None)))
    assert "100.00 USD for 2026-11-28 (UTC)" in of_day
    assert "wait_for_day" in of_day


def test_jobs_that_wait_are_looked_at_again_when_money_comes_back_or_never_will() -> None:
    """Not at every submit: thousands may wait."""
    world = World({SPRING: usd(100)})
    first, second = world.intend(40), world.intend(40)
    assert not world.purses.freed()
    world.released(first)
    assert (world.purses.freed(), world.purses.freed()) == (True, False)
    world.charged(second)
    assert world.purses.freed()
    hold = world.budget.hold(priced(10), world.job())
    hold.end()
    assert world.purses.freed()
    world.wall.at += timedelta(days=1)
    assert world.purses.freed()


def test_a_charge_above_its_reservation_takes_the_holds_of_its_label_back() -> None:
    """Not those of others."""
    world = World({SPRING: usd(100)})
    record = world.intend(40)
    ours = world.budget.hold(priced(60), world.job())
    others = world.budget.hold(priced(60), world.job("autumn"))
    assert world.budget.covers(ours)
    world.charged(record, told=41)
    assert (world.budget.covers(ours), world.budget.covers(others)) == (False, True)


def test_what_a_shared_ledger_says_counts_and_what_was_reserved_here_since() -> None:
    """The lowest cap of all who share it; one that only others have binds us as well."""
    purses = Purses(purses_of({SPRING: usd(100)}), clock=Wall())
    budget, job = Budget(None, Books(), Flying(), purses), World({}).job()
    assert budget.fit(priced(100), job) is Fit.NOW
    purses.note({SPRING: PurseState(80, 50, 20), "day": PurseState(90, 60, 0)})
    assert [budget.fit(priced(n), job) for n in (30, 31, 50, 51)] == [
        *(Fit.NOW, Fit.NEVER, Fit.NEVER, Fit.NEVER)
    ]
    purses.note({SPRING: PurseState(80, 50, 20)})
    assert [budget.fit(priced(n), job) for n in (30, 31, 50, 51)] == [
        *(Fit.NOW, Fit.WAITS, Fit.WAITS, Fit.NEVER)
    ]
    purses.add(job, 10)
    assert [budget.fit(priced(n), job) for n in (20, 21)] == [Fit.NOW, Fit.WAITS]
    purses.full(job)
    assert budget.fit(priced(1), job) is Fit.WAITS


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "release", "charge", "over", "unknown", "day"]),
        st.integers(1, 60),
        st.sampled_from(["spring", "autumn", None]),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(steps=STEPS)
def test_no_order_of_events_spends_more_than_a_purse_has(steps: Any) -> None:
    """Nor is what is counted along ever another sum than that of the jobs."""
    world = World({SPRING: usd(100), "day": usd(150)})
    flying, all_records, over = list[JobRecord](), dict[int, JobRecord](), 0
    for what, micro, campaign in steps:
        if what == "buy" and world.fit(micro, campaign) is Fit.NOW:
            flying.append(world.intend(micro, campaign))
        elif what == "day":
            world.wall.at += timedelta(hours=8)
            world.purses.turn()
        elif what != "buy" and flying:
            record = flying.pop(0)
            if what == "release":
                world.released(record)
            elif what == "unknown":
                world.went(record, Unknown(job_id=record.id, at=world.wall.at, error="e"))
            else:
                over += micro if what == "over" else 0
                told = record.attempt.reserved + micro if what == "over" else None
                world.charged(record, told=told)
        all_records = {record.id: record for record in world.flying}
        for purse in world.purses.own:
            true = sum(purse.share(each, world.purses.day) for each in all_records.values())
            assert world.purses.committed_in(purse) == true <= purse.cap + over
