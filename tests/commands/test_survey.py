"""One survey of a job file: kinds of jobs, what is wanted, and a memory with a bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe.commands import survey as module
from asyncpipe.commands.survey import Survey, Wanted
from asyncpipe.errors import JobFileError
from asyncpipe.jobfile import JobRow, open_jobs
from asyncpipe.jobs import Job
from asyncpipe.pricing import Prices
from asyncpipe.providers.atlas.prices import built_in

VEO = "google/veo3.1/text-to-video"
NEW = "some/new/text-to-image"


def surveyed(tmp_path: Path, jobs: list[Job], wanted: Wanted, *, only_wanted: bool) -> Survey:
    path = tmp_path / "jobs.yaml"
    path.write_text(f"- {{model: {VEO}, prompt: p}}\n")
    prices = Prices(books=(built_in(),))
    found = Survey(open_jobs(path), prices, wanted=wanted, only_wanted=only_wanted)
    for line, job in enumerate(jobs, start=1):
        found.add(JobRow(job=job, line=line))
    return found


def test_what_is_not_to_be_bought_needs_no_price(tmp_path: Path) -> None:
    """The first job without a price that is still to be bought is named, by its line."""
    jobs = [Job(model=NEW, prompt=name) for name in ("a", "b", "c")]
    assert surveyed(tmp_path, jobs, lambda job: False, only_wanted=False).priced() == []
    found = surveyed(tmp_path, jobs, lambda job: job.prompt != "a", only_wanted=False)
    assert [kind.count for kind in found.unpriced] == [2]
    found.check()  # the provider may be asked
    with pytest.raises(JobFileError, match=r"jobs\.yaml:2: model 'some/new/.* has no known price"):
        found.priced()


def test_only_what_is_wanted_is_counted_for_the_question(tmp_path: Path) -> None:
    jobs = [Job(model=VEO, prompt=f"{n}", params={"duration": 8}) for n in range(5)]
    found = surveyed(tmp_path, jobs, lambda job: job.prompt > "1", only_wanted=True)
    assert [(kind.count, kind.row.line) for kind in found.kinds] == [(3, 3)]
    assert found.jobs == 5


def test_kinds_are_bounded_and_never_cheaper_than_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million jobs that all differ hold the memory of a few; what they cost is not told less."""
    monkeypatch.setattr(module, "MOST_KINDS", 10)
    jobs = [Job(model=VEO, prompt="p", params={"duration": n / 8}) for n in range(8, 500)]
    found = surveyed(tmp_path, jobs, lambda job: True, only_wanted=False)
    assert len(found.kinds) == 21
    assert sum(kind.count for kind in found.kinds) == len(jobs)
    prices = Prices(books=(built_in(),))
    total = sum(price.micro * kind.count for kind, price in found.priced())
    assert total >= sum(prices.of(job).micro for job in jobs)
