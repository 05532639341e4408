"""Paid predictions that a provider did not know, or whose time was over: asked for again."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from asyncpipe import JobState
from asyncpipe.errors import KeyRefused, PollFailed, PredictionGone
from asyncpipe.jobs import now
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.testing import FakeProvider, Script
from tests.support.batches import collect, jobs, run_counted

GONE = PredictionGone("404", status=404)
NOBODY_KNOWS = Prediction(id="p1", status=PredictionStatus.FAILED, error="gpu", released=None)
"""Failed, and whether it is charged the provider does not say."""


def aged(folder: Path, days: float) -> None:
    """Let the jobs of a folder have been submitted so long ago."""
    with sqlite3.connect(folder / ".asyncpipe" / "ledger.sqlite3") as ledger:
        at = (now() - timedelta(days=days)).isoformat()
        ledger.execute("UPDATE attempts SET submitted_at=?", (at,))


def knows_nothing(provider: FakeProvider) -> FakeProvider:
    """Another account at the same provider: none of the predictions is there."""
    return FakeProvider(sold=list(provider.sold))


def at_once(provider: FakeProvider) -> FakeProvider:
    """The next loop's clock begins anew."""
    for made in provider._made.values():
        made.ready = 0.0
    return provider


@pytest.mark.parametrize("days", [0.0, 13.9])
def test_what_the_provider_does_not_know_expires_and_is_asked_for_again(
    tmp_path: Path, days: float
) -> None:
    """With another account's key, say; on the right one nothing is bought anew."""
    right = FakeProvider(default=Script(polls=[PollFailed("502")] * 999))
    assert run_counted(tmp_path, right, jobs(3))[0].totals.jobs[JobState.EXPIRED] == 3
    aged(tmp_path, days)
    wrong = knows_nothing(right)
    totals = collect(tmp_path, wrong).totals
    assert (totals.jobs[JobState.EXPIRED], totals.unknown) == (3, 0)
    for made in at_once(right)._made.values():
        made.polls.clear()
    assert collect(tmp_path, right).totals.successful == 3
    assert len(right.sold) == 3
    assert wrong.submits == 0


def test_what_the_provider_does_not_know_after_its_retention_is_unknown(tmp_path: Path) -> None:
    """Two weeks after the submit nobody keeps it any more."""
    provider = FakeProvider(default=Script(polls=[GONE] * 9999))
    assert run_counted(tmp_path, provider, jobs(1))[0].totals.jobs[JobState.EXPIRED] == 1
    aged(tmp_path, 14.1)
    totals = collect(tmp_path, provider).totals
    assert (totals.unknown, totals.reserved_micro) == (1, 40_000)


@pytest.mark.parametrize("again", ["run", "collect"])
def test_an_unknown_job_with_an_id_is_polled_by_every_later_run(tmp_path: Path, again: str) -> None:
    """Once, while the provider says nothing new; to its end as soon as it does."""
    polls: list[Prediction | PollFailed | PredictionGone] = [NOBODY_KNOWS]
    provider = FakeProvider(scripts={"杯子 0": Script(polls=polls)})

    def later_run() -> int:
        if again == "collect":
            return collect(tmp_path, provider).totals.unknown
        return run_counted(tmp_path, provider, jobs(2))[0].totals.unknown

    assert run_counted(tmp_path, provider, jobs(2))[0].totals.unknown == 1
    for answer in (NOBODY_KNOWS, GONE, PollFailed("500", status=500)):
        made = at_once(provider)._made["p1"]
        made.polls.append(answer)
        before = provider.polls
        assert later_run() == 1
        assert (provider.polls - before, made.polls) == (1, [])
    assert later_run() == 0
    assert (provider.sold.count("杯子 0"), len(provider.sold)) == (1, 2)


def test_an_unknown_job_that_turns_out_failed_is_free(tmp_path: Path) -> None:
    """What the provider gives back is not reserved any more, and not bought anew by collect."""
    provider = FakeProvider(default=Script(polls=[NOBODY_KNOWS]))
    assert run_counted(tmp_path, provider, jobs(1))[0].totals.unknown == 1
    at_once(provider)._made["p1"].polls.append(
        Prediction(id="p1", status=PredictionStatus.FAILED, error="gpu", released=True)
    )
    at_once(provider)._made["p1"].polls *= 2
    totals = collect(tmp_path, provider).totals
    assert (totals.unknown, totals.pending, totals.reserved_micro) == (0, 1, 0)
    assert len(provider.sold) == 1


def test_where_unknown_jobs_are_resubmitted_those_with_an_id_are_asked_for_first(
    tmp_path: Path,
) -> None:
    """What the provider has by now is not paid for twice, whatever the user allows."""
    provider = FakeProvider(default=Script(polls=[NOBODY_KNOWS]))
    assert run_counted(tmp_path, provider, jobs(1))[0].totals.unknown == 1
    at_once(provider)
    totals = run_counted(tmp_path, provider, jobs(1), resubmit_unknown=True)[0].totals
    assert (totals.successful, len(provider.sold)) == (1, 1)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("refusals", [1, 2])
def test_one_refused_key_on_a_poll_is_asked_once_more(
    tmp_path: Path, status: int, refusals: int
) -> None:
    """Twice in a row it is true: the run stops, and what is submitted is kept."""
    refused = KeyRefused("the key is refused", status=status)
    provider = FakeProvider(scripts={"杯子 3": Script(polls=[refused] * refusals)})
    manifest, stopped = run_counted(tmp_path, provider, jobs(40), max_workers=4)
    if refusals == 1:
        assert (manifest.totals.successful, stopped) == (40, None)
    else:
        assert isinstance(stopped, KeyRefused)
        assert manifest.totals.pending > 0
