"""Shards that only wait, for tests of the queues: ``python -m tests.support.stand_in celery …``.

A place is a folder. A delivery holds the lock of its shard, writes ``begun SHARD PID`` to the
folder's ``log``, waits for the file ``go`` or for the word to leave, and writes how it ended.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from asyncpipe.engine import ShardWork
from asyncpipe.errors import AsyncpipeError, BalanceTooLow, LedgerError
from asyncpipe.jobs import JobState
from asyncpipe.queues import core


def standing(*, elsewhere: int = 0, **more: AsyncpipeError) -> ShardWork:
    jobs = {JobState.SUCCEEDED: 3} if not elsewhere and not more else {JobState.PENDING: 3}
    return ShardWork(jobs=jobs, elsewhere=elsewhere, stopped=more.get("stopped"))


async def in_pipeline(
    place: str, shard: int, worker: core.WorkerSettings, departure: core.Departure
) -> ShardWork | None:
    with held(Path(place, f"lock.{shard}")) as alone:
        if not alone:
            note(place, "taken", shard)
            return standing(elsewhere=3)
        note(place, "begun", shard)
        while not departure.told and not Path(place, "go").exists():  # noqa: ASYNC110 (a test's)
            await anyio.sleep(0.02)
        if (unreachable := Path(place, f"unreachable.{shard}")).exists():
            unreachable.unlink()
            raise LedgerError("the ledger cannot be reached")
        if Path(place, f"stops.{shard}").exists():
            return standing(stopped=BalanceTooLow("the account has less than 5 USD"))
        note(place, "left" if departure.told else "ended", shard)
        return None if departure.told else standing()


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether a lock was had, which goes with the process; given back after the block."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def note(place: str, word: str, shard: int) -> None:
    with Path(place, "log").open("a", encoding="utf-8") as file:
        file.write(f"{word} {shard} {os.getpid()}\n")


def enqueue_file(queue: str, jobfile: str, options: Sequence[str] = ()) -> dict[str, Any]:
    note(str(Path(jobfile).parent), "sent", len(options))
    return {"shards": [1]}


def run_job(job: Mapping[str, Any], place: str | None, *, once: str | None) -> core.ShardEnd:
    return core.ShardEnd(totals={"name": job["name"], "once": once})


def noted(place: Path, word: str) -> list[tuple[int, int]]:
    """The shards and processes that wrote ``word``, in order."""
    if not (log := place / "log").exists():
        return []
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [(int(shard), int(pid)) for said, shard, pid in lines if said == word]


if __name__ == "__main__":
    core.in_pipeline = in_pipeline
    core.enqueue_file = enqueue_file
    core.run_job = run_job
    del sys.argv[0]
    if sys.argv[0] == "celery":
        from celery.__main__ import main
    else:
        from rq.cli.cli import main
    sys.exit(main())
