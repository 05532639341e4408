"""Lost submits are found again in the provider's list, and go on as if nothing had been."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job
from asyncpipe.engine.search import next_age_s, patience_s
from asyncpipe.errors import PollFailed, ProviderError, SubmitUnknown
from asyncpipe.jobs import Event, JobRecord, now
from asyncpipe.providers import Listed, Prediction
from asyncpipe.report import read_status, summary
from asyncpipe.report.status import next_steps
from asyncpipe.testing.provider import FakeProvider, Script, _Made
from tests.support.batches import FLUX as MODEL
from tests.support.batches import collect, run_counted

LOST = Script(lost=1)
NOT_SENT = Script(submits=[SubmitUnknown("reset")])
"""Its answer is lost, and nothing was bought."""


def jobs(count: int) -> list[Job]:
    return [Job(name=f"杯子 {n}", model=MODEL, prompt=f"杯子 {n}") for n in range(count)]


def lister(**more: Any) -> FakeProvider:
    return FakeProvider(shows_history=True, **more)


def states(folder: Path, provider: FakeProvider, count: int = 3, **more: Any) -> Any:
    return run_counted(folder, provider, jobs(count), **more)[0].totals


def test_a_lost_submit_is_adopted_and_delivered(tmp_path: Path) -> None:
    """Its prediction comes home like any other, bought once."""
    provider = lister(scripts={"杯子 1": LOST})
    seen: list[str] = []

    def hook(event: Event, record: JobRecord) -> None:
        if record.name == "杯子 1":
            seen.append(type(event).__name__)

    totals = states(tmp_path, provider, on_event=hook)
    assert (totals.successful, totals.reserved_micro, len(provider.sold)) == (3, 0, 3)
    assert [each for each in seen if each != "Polled"] == [
        *("Intended", "Unknown", "Found", "Generated", "AssetStored", "Succeeded")
    ]


@pytest.mark.parametrize("lag_s", [1.0, 60.0, 110.0])
def test_it_is_asked_for_again_with_growing_gaps(tmp_path: Path, lag_s: float) -> None:
    """For two minutes, whatever else is done; the run waits for it."""
    provider = lister(scripts={"杯子 0": LOST}, history_lag_s=lag_s)
    assert states(tmp_path, provider).successful == 3
    assert provider.histories <= 8


def test_ages_grow_up_to_the_search_time_and_on() -> None:
    """The last reading in time is at its end."""
    ages: list[float] = []
    age = 0.0
    while len(ages) < 10:
        age = next_age_s(age, 120.0)
        ages.append(age)
    assert ages[:7] == [2, 4, 8, 16, 32, 64, 120]
    assert ages[7:] == [240, 480, 780]


@pytest.mark.parametrize("again", ["run", "collect"])
def test_what_was_listed_too_late_is_found_by_a_later_run(tmp_path: Path, again: str) -> None:
    """Once in every later run; nothing is bought anew."""
    provider = lister(scripts={"杯子 0": LOST}, history_lag_s=10_000.0)
    assert states(tmp_path, provider).unknown == 1
    provider.history_lag_s, provider._shown_at = 0.0, {}
    for made in provider._made.values():
        made.ready = 0.0
    before = provider.histories
    later = states(tmp_path, provider) if again == "run" else collect(tmp_path, provider).totals
    assert (later.successful, later.unknown, len(provider.sold)) == (3, 0, 3)
    assert provider.histories - before <= 2


def test_equal_jobs_take_their_predictions_each_its_own(tmp_path: Path) -> None:
    """count: 5, all answers lost."""
    same = [Job(name=f"杯 {n}", model=MODEL, prompt="杯子") for n in range(5)]
    provider = lister(default=LOST)
    manifest, _ = run_counted(tmp_path, provider, same)
    assert manifest.totals.successful == 5
    assert len({result.prediction_id for result in manifest}) == 5


def without_list(provider: FakeProvider) -> None:
    provider.shows_history = False


def with_another(provider: FakeProvider) -> None:
    """Another program bought the same with the same key."""
    body = {**jobs(1)[0].body}
    provider.listed.append(Listed(id="foreign", created=now(), model=MODEL, body=body))


@dataclass(kw_only=True)
class Failing(FakeProvider):
    """Its list breaks off, each time after a page."""

    errors: list[Exception] = field(default_factory=list)

    async def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        async for page in super().history(since, until):
            yield page
            if self.errors:
                raise self.errors[0]


@pytest.mark.parametrize("wrong", [without_list, with_another])
@pytest.mark.parametrize("ambiguous", ["find", "find-resubmit"])
def test_what_cannot_be_told_stays_unknown(
    tmp_path: Path, wrong: Callable[[FakeProvider], None], ambiguous: str
) -> None:
    """And reserved; never bought again by itself."""
    provider = lister(scripts={"杯子 0": LOST})
    wrong(provider)
    totals = states(tmp_path, provider, ambiguous=ambiguous)
    assert (totals.successful, totals.unknown, totals.reserved_micro) == (2, 1, 40_000)
    assert len(provider.sold) == 3


def test_an_ambiguous_one_is_said_with_the_ids(tmp_path: Path) -> None:
    """So that the user can choose."""
    provider = lister(scripts={"杯子 0": LOST})
    with_another(provider)
    manifest, _ = run_counted(tmp_path, provider, jobs(1))
    (error,) = [result.error for result in manifest if result.outcome == "unknown"]
    assert error is not None
    assert "p1" in error
    assert "foreign" in error


@pytest.mark.parametrize("error", [PollFailed("502"), ProviderError("a hole"), ValueError("bug")])
def test_a_list_that_breaks_off_proves_nothing(tmp_path: Path, error: Exception) -> None:
    """It is read again; when it is whole the job is found."""
    provider = Failing(shows_history=True, scripts={"杯子 0": LOST}, errors=[error])
    totals = states(tmp_path, provider, ambiguous="find-resubmit")
    assert (totals.unknown, len(provider.sold)) == (1, 3)
    provider.errors.clear()
    for made in provider._made.values():
        made.ready = 0.0
    assert states(tmp_path, provider).successful == 3
    assert len(provider.sold) == 3


@pytest.mark.parametrize("ambiguous", ["hold", "resubmit"])
def test_nobody_looks_who_does_not_want_to(tmp_path: Path, ambiguous: str) -> None:
    """``hold`` leaves it, ``resubmit`` may pay twice."""
    provider = lister(scripts={"杯子 0": LOST})
    totals = states(tmp_path, provider, ambiguous=ambiguous)
    assert provider.histories == 0
    assert (totals.unknown, len(provider.sold)) == ((1, 3) if ambiguous == "hold" else (0, 4))


# -- absent -------------------------------------------------------------------------------------


def slow() -> dict[str, Any]:
    """Two at once, so slow that others are submitted after the search time of the first."""
    return {"max_workers": 2, "search_s": 20.0}


def test_what_was_not_bought_is_said_to_be_not_there(tmp_path: Path) -> None:
    """With ``find`` it stays unknown."""
    provider = lister(scripts={"杯子 0": NOT_SENT})
    manifest, _ = run_counted(tmp_path, provider, jobs(9), **slow())
    (error,) = [result.error for result in manifest if result.outcome == "unknown"]
    assert error == "reset; looked for: not found at the provider"
    assert manifest.totals.successful == 8
    assert len(provider.sold) == 8
    expected = (
        "1 unknown, and not found at the provider: its list of predictions shows later ones of "
        "yours and not this one. asyncpipe resolve FOLDER NAME --lost-free takes one for not "
        "bought, --find looks once more; with --ambiguous find-resubmit a run submits them again, "
        "once."
    )
    told = summary(manifest.totals, elapsed_s=1.0, manifest="FOLDER/manifest.json", simulated=True)
    assert " ".join(" ".join(told).split()).endswith(expected)
    (step,) = next_steps(read_status(tmp_path))
    assert step == expected.replace("FOLDER", str(tmp_path))


def test_what_nobody_can_tell_is_told_apart(tmp_path: Path) -> None:
    """The last one has no witness: none was made later."""
    provider = lister(scripts={"杯子 0": NOT_SENT, "杯子 8": NOT_SENT})
    totals = states(tmp_path, provider, 9, **slow())
    assert (totals.unknown, totals.not_found) == (2, 1)
    told = next_steps(read_status(tmp_path))
    assert [each.partition(":")[0] for each in told] == [
        "1 unknown, and not found at the provider", "1 unknown"
    ]  # fmt: skip


def test_what_surely_was_not_bought_is_submitted_again(tmp_path: Path) -> None:
    """As a second attempt; the first is kept, with what proved it."""
    provider = lister(scripts={"杯子 0": NOT_SENT})
    manifest, _ = run_counted(tmp_path, provider, jobs(9), ambiguous="find-resubmit", **slow())
    assert (manifest.totals.successful, len(provider.sold)) == (9, 9)
    (result,) = [each for each in manifest if each.name == "杯子 0"]
    assert result.attempts == 2
    assert manifest.totals.reserved_micro == 0


def test_it_is_submitted_again_once_at_most(tmp_path: Path) -> None:
    """A second lost answer stays unknown, however absent."""
    twice = Script(submits=[SubmitUnknown("reset"), SubmitUnknown("reset")])
    provider = lister(scripts={"杯子 0": twice})
    totals = states(tmp_path, provider, 30, ambiguous="find-resubmit", **slow())
    assert (totals.unknown, totals.successful) == (1, 29)
    assert provider.submits == 31


@dataclass(kw_only=True)
class Late(FakeProvider):
    """It lists the first prediction long after those made later."""

    async def submit(self, job: Job) -> Prediction:
        try:
            return await super().submit(job)
        finally:
            self._shown_at["p1"] = 200.0


def test_one_that_turns_up_after_all_is_booked_and_ends_this(tmp_path: Path) -> None:
    """It was paid for twice: that is said, charged, and does not happen here again."""
    provider = Late(shows_history=True, scripts={"杯子 0": LOST, "杯子 50": NOT_SENT})
    remarks: list[str] = []
    manifest, _ = run_counted(
        tmp_path,
        provider,
        jobs(70),
        ambiguous="find-resubmit",
        on_remark=remarks.append,
        **slow(),
    )
    totals = manifest.totals
    assert (totals.successful, totals.unknown) == (69, 1)
    assert (totals.charged_micro, len(provider.sold)) == (70 * 40_000, 70)
    assert any("p1 turned up" in each and "paid for twice" in each for each in remarks)


@dataclass(kw_only=True)
class Uneven(FakeProvider):
    """It lists every second prediction five seconds after those made later."""

    async def submit(self, job: Job) -> Prediction:
        try:
            return await super().submit(job)
        finally:
            if len(self.sold) % 2 == 0:
                self._shown_at[f"p{len(self.sold)}"] += 5.0


@pytest.mark.parametrize("search_s", [2.0, 3.0])
def test_a_list_that_was_seen_to_lag_is_looked_at_for_longer(
    tmp_path: Path, search_s: float
) -> None:
    """Whatever the search time: predictions of ours that it lacks tell how late it may be."""
    lost = {f"杯子 {n}": LOST for n in range(3, 60, 6)}
    provider = Uneven(shows_history=True, scripts=lost)
    many = {"max_workers": 8, "search_s": search_s}
    totals = states(tmp_path, provider, 60, ambiguous="find-resubmit", **many)
    assert (totals.successful, len(provider.sold)) == (60, 60)


def test_nobody_waits_for_ever_for_a_list_that_lags() -> None:
    """Twice the lag, within bounds that the search time sets."""
    waits = [patience_s(search_s, lag_s) for search_s, lag_s in ((2, 0), (2, 3), (2, 900))]
    assert waits == [2, 6, 10]
    assert [patience_s(120.0, lag_s) for lag_s in (30.0, 90.0, 9000.0)] == [120, 180, 240]


@pytest.mark.parametrize("where", ["the same folder", "another folder", "another account"])
def test_nothing_of_the_account_is_submitted_again_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Not by later runs, in whatever folder; other accounts have lists of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real: Any = {"shows_history": True, "simulated": False, "origin": "https://api.example"}
    options: Any = {"ambiguous": "find-resubmit", **slow()}
    late = Late(**real, scripts={"杯子 0": LOST})
    assert states(tmp_path / "first", late, 70, **options).successful == 70
    assert len(late.sold) == 71
    account = "b" if where == "another account" else ""
    provider = FakeProvider(**real, account=account, scripts={"杯子 80": NOT_SENT})
    folder = tmp_path / ("first" if where == "the same folder" else "second")
    more = [*jobs(70)] * (folder.name == "first") + jobs(120)[70:]
    totals = run_counted(folder, provider, more, **options)[0].totals
    assert totals.unknown == (0 if where == "another account" else 1)


# -- another program with the same key ----------------------------------------------------------

EQUAL, OTHER_PROMPT, OTHER_MODEL = "equal", "other prompt", "other model"


def bought_by_others(provider: FakeProvider, like: Job, kind: str, age_s: float) -> None:
    """Another program with the same key has one, made so long before now; it can be polled."""
    model = "google/imagen4-ultra/text-to-image" if kind == OTHER_MODEL else like.model
    body = dict(like.body) | {"model": model}
    if kind == OTHER_PROMPT:
        body["prompt"] = "ein Becher"
    created = now() - timedelta(seconds=age_s)
    provider.listed.append(Listed(id="foreign", created=created, model=model, body=body))
    provider._made["foreign"] = _Made(Script(), 0.0, [])


@pytest.mark.parametrize("witness", [True, False])
@pytest.mark.parametrize("age_s", [900.0, 60.0, -1.0])
@pytest.mark.parametrize("kind", [EQUAL, OTHER_PROMPT, OTHER_MODEL])
@pytest.mark.parametrize("lost", [LOST, NOT_SENT], ids=["bought", "not sent"])
def test_beside_another_program_nothing_is_paid_twice(
    tmp_path: Path, lost: Script, kind: str, age_s: float, witness: bool
) -> None:
    """Its predictions are no witnesses; one that may be ours is neither sold again nor both."""
    provider = lister(scripts={"杯子 0": lost})
    asked = jobs(9 if witness else 1)
    bought_by_others(provider, asked[0], kind, age_s)
    manifest, _ = run_counted(tmp_path, provider, asked, ambiguous="find-resubmit", **slow())
    assert max(Counter(provider.sold).values(), default=0) <= 1
    assert set(provider.sold) | {"杯子 0"} == {str(each.name) for each in asked}
    totals, recent = manifest.totals, age_s < 120
    if lost is LOST:
        unknown = kind == EQUAL and recent
    elif kind == EQUAL and recent:
        unknown = False  # taken for ours: paid for by the same account, once
        assert "杯子 0" not in provider.sold
    else:
        unknown = not witness or (kind == OTHER_PROMPT and recent)
    assert (totals.unknown, totals.successful) == (int(unknown), len(asked) - unknown)


@pytest.mark.parametrize("lost", [LOST, NOT_SENT], ids=["bought, and listed late", "not sent"])
def test_a_foreign_prediction_is_no_witness(tmp_path: Path, lost: Script) -> None:
    """Whatever is made later by another program proves nothing of what we submitted."""
    provider = lister(scripts={"杯子 0": lost}, history_lag_s=10_000.0)
    for n in range(5):
        bought_by_others(provider, jobs(1)[0], (OTHER_PROMPT, OTHER_MODEL)[n % 2], -1.0 - n)
    totals = states(tmp_path, provider, 1, ambiguous="find-resubmit", **slow())
    assert (totals.unknown, totals.not_found, provider.submits) == (1, 0, 1)
