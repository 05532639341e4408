"""Progress lines of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from asyncpipe import Job
from asyncpipe.jobs import AssetStored, Attempt, JobRecord, JobState, StoredAsset, Succeeded, now
from asyncpipe.report import Progress
from asyncpipe.report.totals import Totals

PATH = "images/杯.png"


def succeeded(n: int) -> JobRecord:
    stored = (StoredAsset(n, 0, PATH, 9, "0"),)
    job = Job(name="杯", model="m/text-to-image", prompt="p")
    attempt = Attempt(n=1, stored=stored)
    return JobRecord(
        id=n, key=f"{n}", name="杯", job=job, state=JobState.SUCCEEDED, attempt=attempt
    )


def told(progress: Progress, count: int) -> None:
    progress._totals = Totals(jobs=Counter({JobState.SUCCEEDED: count}))
    for n in range(count):
        record = succeeded(n)
        progress(AssetStored(job_id=n, at=now(), index=0, path=PATH, size=9, sha256="0"), record)
        progress(Succeeded(job_id=n, at=now()), record)


def test_nothing_is_kept_of_jobs_that_have_ended() -> None:
    """The paths of a million jobs would be 165 MB; the line of one has its path all the same."""
    lines: list[str] = []
    progress = Progress(lines.append)
    told(progress, 500)
    kept: list[Any] = [each for each in vars(progress).values() if isinstance(each, dict | set)]
    assert (lines, [len(each) for each in kept if each]) == ([], [])
    told(progress, 1)
    assert PATH in lines[0]
