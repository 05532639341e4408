"""Where a folder stands, read beside a run and after it."""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from asyncpipe import Deadlines, Job, JobState, Pipeline
from asyncpipe.engine.resolve import Decision, resolve
from asyncpipe.errors import BalanceExhausted, FolderInUse, RateLimited, Rejected, SubmitUnknown
from asyncpipe.ledger.folder import FolderLock, holder
from asyncpipe.pricing.money import from_micro
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.report.status import (
    RECEIPT,
    Status,
    next_steps,
    read_status,
    status_document,
    status_lines,
)
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.command_line import asyncpipe
from tests.support.pipelines import a_pipeline

FLUX = "black-forest-labs/flux-2-pro/text-to-image"  # 0.04 USD
IMAGEN = "google/imagen4-ultra/text-to-image"  # 0.06 USD
FAILED = PredictionStatus.FAILED


def job(name: str, model: str = FLUX) -> Job:
    return Job(name=name, model=model, prompt="橡木桌上的白瓷杯")


def run(folder: Path, provider: FakeProvider, jobs: list[Job], **options: Any) -> Pipeline:
    async def main() -> Pipeline:
        pipeline = a_pipeline(provider, folder, seed=1, **{"retries": 0, **options})
        async with pipeline:
            await pipeline.batch_generate(jobs, job_file="任务.yaml")
        return pipeline

    return run_virtual(main())


MIXED = {
    "fails": Script(end=FAILED, error="no luck"),
    "refused": Script(end=FAILED, error="policy", moderated=True),
    "kept": Script(end=FAILED, error="no luck", released=False),
    "rejected": Script(submits=[Rejected("bad field", status=422)]),
    "waits": Script(submits=[RateLimited("slow down")]),
    "lost answer": Script(submits=[SubmitUnknown("reset")]),
    "slow": Script(generation_s=10_000),
}


def mixed(folder: Path) -> Status:
    jobs = [job(name) for name in MIXED] + [job("fine"), job("dear", IMAGEN)]
    run(folder, FakeProvider(scripts=MIXED), jobs, deadlines=Deadlines(image=60))
    return read_status(folder)


def test_every_outcome_and_every_cent_is_in_its_place(tmp_path: Path) -> None:
    """Failures that cost nothing, failures that did, lost answers, expired ones; per model too."""
    status = mixed(tmp_path)
    assert status.counts == {
        "succeeded": 3,
        "failed, not charged": 3,
        "failed, charged": 1,
        "unknown": 1,
        "pending": 1,
    }
    assert status.jobs[JobState.EXPIRED] == 1
    money = status.money
    assert from_micro(money.charged) == from_micro(40_000 * 3 + 60_000)
    assert money.reserved == {"unknown": 40_000, "expired": 40_000}
    assert money.released == 2 * 40_000
    assert (status.failures_returned, status.refusals) == (2, 2)
    assert status.models[IMAGEN].charged == 60_000
    assert status.models[FLUX].charged == 3 * 40_000
    text = "\n".join(status_lines(status))
    assert "0.18 USD" in text
    assert "expired jobs" in text


def test_what_lost_answers_still_reserve_is_told_apart(tmp_path: Path) -> None:
    """A job submitted anew after a lost answer: the first one's money is held."""
    provider = FakeProvider(scripts={"lost answer": MIXED["lost answer"]})
    run(tmp_path, provider, [job("lost answer")])

    async def anew() -> None:
        await resolve(tmp_path, (), Decision(resubmit=True))

    run_virtual(anew())
    assert read_status(tmp_path).money.reserved == {"held": 40_000}
    run(tmp_path, provider, [job("lost answer")])
    status = read_status(tmp_path)
    assert status.money.reserved == {"held": 40_000}
    assert status.money.charged == 40_000
    assert status.counts["succeeded"] == 1
    assert status.money.released == status.failures_returned == 0


def test_beside_a_run_it_says_who_works_there_and_since_when(tmp_path: Path) -> None:
    """Read-only, from the middle of a run; afterwards nobody holds the folder."""
    seen: list[Status] = []

    def look(event: object, _: object) -> None:
        if type(event).__name__ == "Submitted":
            seen.append(read_status(tmp_path))

    before = datetime.now(UTC)
    run(tmp_path, FakeProvider(), [job("a"), job("b")], on_event=look)
    assert len(seen) == 2
    held = seen[0].holder
    assert held is not None
    assert held.who.startswith("process ")
    assert before - timedelta(seconds=3) <= held.since <= datetime.now(UTC)
    assert seen[-1].money.reserved["in_flight"] > 0
    assert next_steps(seen[0]) == ["A run is under way: let it end, or look again."]
    after = read_status(tmp_path)
    assert after.holder is None
    assert (tmp_path / ".asyncpipe" / "lock").read_text().startswith("process ")
    assert next_steps(after) == ["Nothing is left to do."]


def test_looking_turns_no_run_away(tmp_path: Path) -> None:
    """A lock tried for an instant is not a run; a lock that is held is."""
    path = tmp_path / "lock"
    path.touch()
    if sys.platform != "win32":
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            timer = threading.Timer(0.01, lambda: fcntl.flock(file, fcntl.LOCK_UN))
            timer.start()
            with FolderLock(path):
                pass
            timer.join()
    with FolderLock(path):
        assert holder(path) is not None
        started = time.monotonic()
        with pytest.raises(FolderInUse), FolderLock(path):
            pass
        assert time.monotonic() - started < 5
    assert holder(path) is None
    assert holder(tmp_path / "none") is None


def test_never_submitted_and_removed_jobs_are_told_apart(tmp_path: Path) -> None:
    """A run that stops leaves jobs; those gone from the file later are removed."""
    scripts = {"b": Script(submits=[BalanceExhausted("no money")] * 2)}
    run(tmp_path, FakeProvider(scripts=scripts), [job("a"), job("b"), job("c")], max_workers=1)
    status = read_status(tmp_path)
    assert status.counts["pending"] == status.jobs[JobState.PENDING] == 2
    assert any("2 not submitted yet: run 任务.yaml" in step for step in next_steps(status))
    run(tmp_path, FakeProvider(), [job("a")])
    status = read_status(tmp_path)
    assert (status.counts["pending"], status.removed) == (0, 2)


def test_next_steps_name_the_command_for_each_thing_left(tmp_path: Path) -> None:
    """Unknown, bought and not here, failed and free."""
    steps = "\n".join(next_steps(mixed(tmp_path)))
    for words in ("1 unknown", "asyncpipe resolve", "asyncpipe collect", "3 failed and not"):
        assert words in steps


def test_the_document_adds_up(tmp_path: Path) -> None:
    """Programs get every figure, and the same ones."""
    status = mixed(tmp_path)
    document = json.loads(orjson.dumps(status_document(status)))
    jobs, money = document["jobs"], document["money"]
    assert jobs["total"] == 9
    names = ("succeeded", "failed_not_charged", "failed_charged", "unknown", "pending")
    assert sum(jobs[name] for name in names) == 9
    assert sum(jobs["pending_by_state"].values()) == jobs["pending"]
    assert money["reserved"] == pytest.approx(sum(money["reserved_for"].values())) == 0.08
    assert money["charged"] == 0.18
    assert document["money_by_model"][IMAGEN]["charged"] == 0.06


def test_the_command_says_that_it_is_no_receipt(tmp_path: Path) -> None:
    """Exit 0 whatever is left to do; without a ledger exit 3, as collect does."""
    mixed(tmp_path / "out")
    done = asyncpipe("status", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not a receipt" in " ".join(done.stdout.split())
    shown = asyncpipe("status", "out", "--json", cwd=tmp_path)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["note"] == RECEIPT
    none = asyncpipe("status", "nowhere", cwd=tmp_path)
    assert (none.returncode, "has no ledger" in none.stderr) == (3, True)
    assert not (tmp_path / "nowhere").exists()
