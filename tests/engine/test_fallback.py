"""A job falls back to its next model where it failed and surely was not charged, and never else."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Manifest, Rate
from asyncpipe.engine.decide import passed_on
from asyncpipe.engine.relay import Relay
from asyncpipe.errors import (
    BalanceExhausted,
    JobFileError,
    KeyRefused,
    Overloaded,
    PollFailed,
    ProviderError,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.jobs import (
    Event,
    Failed,
    Intended,
    JobRecord,
    JobState,
    NotBought,
    PassedOn,
    Released,
    Submitted,
    Unknown,
    fold,
    now,
    read_lane,
    ways_of,
)
from asyncpipe.providers import Prediction, PredictionStatus, known_prices
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, run_counted
from tests.support.pipelines import clock_restarts
from tests.support.tables import tables

SECOND = "second/text-to-image"
THIRD = "spare:third/image"
PRICES = {SECOND: Rate(per_job=Decimal("0.05")), "third/image": Rate(per_job=Decimal("0.07"))}
FAILED = Script(end=PredictionStatus.FAILED, error="no luck")


def job(name: str = "杯", fallback: tuple[str, ...] = (SECOND, THIRD), **more: Any) -> Job:
    return Job(name=name, model=FLUX, prompt="a mug", fallback=fallback, **more)


class ByModel(FakeProvider):
    """Its scripts are by model."""

    async def submit(self, job: Job) -> Prediction:
        script = self.scripts.get(job.model, self.default)
        self.scripts = {**self.scripts, job.name or "": script}
        return await super().submit(job)


def spare(**more: Any) -> FakeProvider:
    return FakeProvider(name="spare", price_book=None, **more)


def run(
    folder: Path, main: FakeProvider, other: FakeProvider, jobs: list[Job], **more: Any
) -> Manifest:
    options = {"prices": PRICES, "fallback_to": [other], "retries": 0, **more}
    return run_counted(folder, main, jobs, **options)[0]


def attempts(folder: Path) -> list[tuple[Any, ...]]:
    with tables(folder) as connection:
        query = "SELECT n, provider, model, settled, charged FROM attempts ORDER BY job_id, n"
        return [tuple(row) for row in connection.execute(query).fetchall()]


def test_each_next_one_is_tried_until_one_makes_it(tmp_path: Path) -> None:
    """Every attempt has a row with its provider and model; the money of one is charged."""
    main = ByModel(scripts={FLUX: FAILED, SECOND: FAILED})
    other = spare()
    (result,) = run(tmp_path, main, other, [job()])
    assert result.state is JobState.SUCCEEDED
    assert result.cost == Decimal("0.07")
    assert (result.model, result.provider, result.bought_as) == (FLUX, "spare", "third/image")
    assert attempts(tmp_path) == [
        (1, main.name, FLUX, "released", 0),
        (2, main.name, SECOND, "released", 0),
        (3, "spare", "third/image", "charged", 70_000),
    ]
    assert [each.model for each in main.submitted] == [FLUX, SECOND]
    assert [each.model for each in other.submitted] == ["third/image"]


def test_when_all_fail_it_has_failed(tmp_path: Path) -> None:
    """For the last one's reason, free of charge."""
    main = FakeProvider(default=FAILED)
    (result,) = run(tmp_path, main, spare(default=Script(submits=[Rejected("no")] * 9)), [job()])
    assert (result.state, result.error) == (JobState.FAILED, "no")
    assert result.cost == 0
    assert len(attempts(tmp_path)) == 3


def test_retries_come_first(tmp_path: Path) -> None:
    """Each lane has its own."""
    main = ByModel(scripts={FLUX: FAILED, SECOND: FAILED})
    run(tmp_path, main, spare(), [job()], retries=1)
    assert [each[2] for each in attempts(tmp_path)] == [FLUX, FLUX, SECOND, SECOND, "third/image"]


def test_moderation_there_is_none_here(tmp_path: Path) -> None:
    moderated = Script(end=PredictionStatus.FAILED, error="nsfw", moderated=True)
    (result,) = run(tmp_path, FakeProvider(default=moderated), spare(), [job(fallback=(THIRD,))])
    assert result.state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    "script",
    [
        Script(lost=1),
        Script(submits=[SubmitUnknown("reset")]),
        Script(end=PredictionStatus.FAILED, error="422", released=None),
        Script(end=PredictionStatus.FAILED, error="cut", released=False),
        Script(end=PredictionStatus.FAILED, error="cut", charged=Decimal("0.01")),
        Script(outputs=()),
    ],
    ids=["lost", "unanswered", "nobody knows", "kept", "charged", "empty"],
)
def test_what_may_be_charged_is_never_bought_elsewhere(tmp_path: Path, script: Script) -> None:
    main, other = FakeProvider(default=script), spare()
    (result,) = run(tmp_path, main, other, [job()])
    assert result.state is not JobState.SUCCEEDED
    assert (main.submits, other.submits) == (1, 0)


@pytest.mark.parametrize("error", [KeyRefused("401"), BalanceExhausted("402")])
def test_where_nothing_is_taken_any_more_all_go_on(tmp_path: Path, error: ProviderError) -> None:
    """It is asked a few times, not once for each of them; the run is not stopped."""
    main, other = FakeProvider(default=Script(submits=[error] * 99)), spare()
    batch = [job(f"杯 {n}", (THIRD,)) for n in range(20)]
    manifest, stopped = run_counted(
        tmp_path, main, batch, prices=PRICES, fallback_to=[other], max_workers=2
    )
    assert (manifest.totals.successful, stopped) == (20, None)
    assert len(other.sold) == 20
    assert main.submits <= 6


def test_a_model_that_refuses_all_is_left(tmp_path: Path) -> None:
    main, other = FakeProvider(default=Script(submits=[Rejected("no such model")] * 9)), spare()
    batch = [job(f"杯 {n}", (THIRD,)) for n in range(40)]
    manifest = run(tmp_path, main, other, batch, max_workers=2)
    assert manifest.totals.successful == 40
    assert main.submits < 25


def test_patience_with_refusals_ends_there_and_not_everywhere(tmp_path: Path) -> None:
    main = FakeProvider(default=Script(submits=[Overloaded("503")] * 999))
    manifest = run(tmp_path, main, spare(), [job(fallback=(THIRD,))], patience_s=60.0)
    assert manifest.totals.successful == 1


def test_the_last_ones_key_stops_only_its_jobs(tmp_path: Path) -> None:
    main = ByModel(scripts={FLUX: FAILED})
    other = spare(default=Script(submits=[KeyRefused("401")] * 99))
    batch = [job("a", (THIRD,)), Job(name="b", model=SECOND, prompt="b")]
    manifest, stopped = run_counted(
        tmp_path, main, batch, prices=PRICES, fallback_to=[other], retries=0
    )
    assert {result.name: result.state for result in manifest} == {
        "a": JobState.PENDING,
        "b": JobState.SUCCEEDED,
    }
    assert isinstance(stopped, KeyRefused)


def test_a_later_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """A prediction of another provider is polled there; main has never heard of it."""
    main, other = FakeProvider(default=FAILED), spare(default=Script(generation_s=9999.0))
    batch = [job(fallback=(THIRD,))]
    run(tmp_path, main, other, batch)
    clock_restarts(other)
    (result,) = run(tmp_path, main, other, batch)
    assert result.state is JobState.SUCCEEDED
    assert (main.submits, other.submits) == (1, 1)


def test_the_budget_holds(tmp_path: Path) -> None:
    """What would not fit is not bought."""
    main, other = FakeProvider(default=FAILED), spare()
    manifest = run(tmp_path, main, other, [job(fallback=(THIRD,))], max_cost=Decimal("0.06"))
    assert (manifest.totals.pending, other.submits) == (1, 0)


def test_a_stranger_is_named_before_anything_is_spent(tmp_path: Path) -> None:
    main = FakeProvider()
    with pytest.raises(JobFileError, match=r"no provider 'nobody' here, only \w+, spare"):
        run(tmp_path, main, spare(), [job(fallback=("nobody:x",))])
    assert main.submits == 0


def test_every_lane_has_a_price(tmp_path: Path) -> None:
    main = FakeProvider(price_book=known_prices(simulated=True))
    with pytest.raises(UsageError, match="spare:unpriced"):
        run(tmp_path, main, spare(), [job(fallback=("spare:unpriced",))])
    assert main.submits == 0


def test_a_fallback_is_no_part_of_a_jobs_identity() -> None:
    assert job().key("p") == job(fallback=()).key("p")


def test_what_is_no_fallback_is_said() -> None:
    odd: Any = "flux"
    with pytest.raises(UsageError, match="fallback: 'flux' must be a list of models"):
        job(fallback=odd)
    given: Any = [SECOND]
    assert job(fallback=given).fallback == (SECOND,)


# -- pure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "provider", "model"),
    [
        ("fal-ai/flux", "", "fal-ai/flux"),
        ("fal:fal-ai/flux", "fal", "fal-ai/flux"),
        ("owner/name:0a1b", "", "owner/name:0a1b"),
        ("replicate:owner/name:0a1b", "replicate", "owner/name:0a1b"),
        ("https://x/y", "", "https://x/y"),
    ],
)
def test_a_lane_is_read(text: str, provider: str, model: str) -> None:
    assert read_lane(text) == (provider, model)


def submitting(one: Job) -> JobRecord:
    record = JobRecord(id=1, key="k", name="n", job=one)
    intent = Intended(job_id=1, at=now(), attempt=1, reserved=5, booked=5, price_source="t")
    return fold(record, intent)


EVENTS: list[tuple[Event, bool]] = [
    (Failed(job_id=1, at=now(), error="no"), True),
    (Failed(job_id=1, at=now(), error="no", charged=True), False),
    (Failed(job_id=1, at=now(), error="no", found_free=True), False),
    (NotBought(job_id=1, at=now(), error="401", stops=True), True),
    (NotBought(job_id=1, at=now(), error="429"), False),
    (Unknown(job_id=1, at=now(), error="reset"), False),
    (Released(job_id=1, at=now(), error="no"), False),
    (Submitted(job_id=1, at=now(), prediction_id="p"), False),
]


@pytest.mark.parametrize(("event", "goes_on"), EVENTS, ids=lambda e: type(e).__name__)
def test_what_lets_a_job_fall_back(event: Event, goes_on: bool) -> None:
    """Only while it has somewhere to go."""
    assert isinstance(passed_on(submitting(job()), event), PassedOn) is goes_on
    assert passed_on(submitting(job(fallback=())), event) is event


def test_it_goes_one_step_at_a_time() -> None:
    record, seen = submitting(job()), []
    for n in (1, 2, 3):
        seen.append((record.made_as.model, record.has_next))
        event = passed_on(record, Failed(job_id=1, at=now(), error="no"))
        if n == 3:
            assert isinstance(event, Failed)
            break
        record = fold(record, event)
        assert (record.state, record.failures) == (JobState.PENDING, 0)
        record = fold(
            record,
            Intended(job_id=1, at=now(), attempt=n + 1, reserved=5, booked=5, price_source="t"),
        )
    assert seen == [(FLUX, True), (SECOND, True), (THIRD, False)]
    assert ways_of(record.job) == (FLUX, SECOND, THIRD)


def test_a_relay_tells_routes_apart() -> None:
    """And refuses two of one name."""
    relay = Relay(FakeProvider(name="main"), [spare()])

    async def main() -> tuple[Prediction, Prediction]:
        bought = await relay.submit(Job(model=THIRD, prompt="x", type=job().kind))
        assert bought.route == "@spare@"
        polled = await relay.poll(bought.id, route=bought.route)
        with pytest.raises(PollFailed, match="bought from gone"):
            await relay.poll("p1", route="@gone@")
        return bought, polled

    bought, polled = run_virtual(main())
    assert (polled.id, polled.route) == (bought.id, bought.route)
    with pytest.raises(UsageError, match="two providers are named 'main'"):
        Relay(FakeProvider(name="main"), [FakeProvider(name="main")])


def test_two_providers_may_use_the_same_ids(tmp_path: Path) -> None:
    """Each prediction is its own job's all the same."""
    main, other = FakeProvider(default=FAILED), spare()
    other.sold.append("somebody's")  # its first one is p2, as the second of the other
    batch = [job(f"杯 {n}", (THIRD,)) for n in range(3)]
    assert run(tmp_path, main, other, batch).totals.successful == 3
