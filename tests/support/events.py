"""Legal events in any order, and a ledger in memory to write them to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from asyncpipe import Job, JobState
from asyncpipe.jobs.events import (
    Absent,
    AskedAgain,
    AssetStored,
    Damaged,
    Event,
    Expired,
    Failed,
    FetchFailed,
    Found,
    Generated,
    Intended,
    Lost,
    LostSettled,
    NotBought,
    Polled,
    PolledAgain,
    Released,
    Resubmitted,
    RetryAsked,
    Submitted,
    Succeeded,
    TurnedUp,
    Unknown,
    Withdrawn,
    now,
)
from asyncpipe.jobs.notes import Notes
from asyncpipe.jobs.record import JobRecord, changed
from asyncpipe.ledger import queries, runs
from asyncpipe.ledger.schema import prepare
from asyncpipe.ledger.write import INLINE, Batch

MODELS = ["m/text-to-image", "m/text-to-video"]
few = partial(settings, deadline=None, derandomize=True)


def ledger_in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    prepare(connection)
    return connection


def with_jobs(connection: sqlite3.Connection, jobs: list[Job]) -> list[JobRecord]:
    run = runs.begin_session(connection, now()).id
    rows = [(job.key("atlas"), job) for job in jobs]
    queries.add_jobs(connection, rows, run=run, position=0)
    found = [queries.record_by_key(connection, key) for key, _ in rows]
    return [record for record in found if record is not None]


S = JobState
AMOUNTS = st.integers(0, 10**9)


def possible(record: JobRecord) -> list[str]:
    """The events that the engine may emit for a job as it stands."""
    return {
        S.PENDING: ["Intended", "Withdrawn"],
        S.SUBMITTING: ["Submitted", "Generated", "Failed", "NotBought", "Released", "Unknown"],
        S.SUBMITTED: ["Generated", "Failed", "Charged", "Released", "Expired", "Unknown", "Polled"],
        S.EXPIRED: ["PolledAgain"],
        S.UNKNOWN: ["Resubmitted", "Resubmitted", "Charged", "FoundFree", "Found", "Absent"],
        S.GENERATED: ["AssetStored", "AssetStored", "FetchFailed", "Succeeded", "Lost"],
        S.FAILED: [] if record.attempt.paid else ["RetryAsked"],
        S.CANCELLED: ["AskedAgain"],
        S.SUCCEEDED: ["Damaged"] if record.attempt.assets else ["Generated"],
    }.get(record.state, [])


def with_settling(record: JobRecord) -> list[str]:
    """The same, and what the user may say of lost answers at any time."""
    settling = ["LostCharged", "LostFree"] if record.lost else []
    turning_up = ["TurnedUp"] if any(each.sought for each in record.earlier) else []
    return [*possible(record), *settling, *turning_up]


def found_out(record: JobRecord, random: Random, *, charged: bool) -> LostSettled:
    """What the user says of one of a job's lost answers."""
    lost = random.choice([each.n for each in record.earlier if each.settled is None])
    return LostSettled(job_id=record.id, at=now(), attempt=lost, charged=charged)


def turned_up(record: JobRecord, amount: int) -> TurnedUp:
    """The prediction of an attempt that the job has gone on from."""
    attempt = next(each.n for each in record.earlier if each.sought)
    charged, found = amount % 3 > 0, f"late{amount}"
    return TurnedUp(
        job_id=record.id, at=now(), attempt=attempt, prediction_id=found, charged=charged
    )


NOTES: tuple[Notes, ...] = ({}, {"nsfw": [True]}, {"given": 2, "asked": 4, "error": "错"})


def event(kind: str, record: JobRecord, amount: int) -> Event:
    """One event of a kind, fitting ``record``."""
    base: Any = {"job_id": record.id, "at": now()}
    wrong: Any = {**base, "error": f"错误 {amount}"}
    made: dict[str, Callable[[], Event]] = {
        "Intended": lambda: Intended(
            **base,
            attempt=record.next_attempt,
            reserved=amount + amount // 4 * (amount % 2),
            price_source="t",
            booked=amount,
            estimated=amount % 2 == 1,
            assumed="5 s" if amount % 3 == 0 else None,
            body=f"{amount:x}",
            uploads=("https://h/in.png",) if amount % 5 == 0 else (),
            trace=f"00-{amount:032x}-{amount:016x}-01" if amount % 2 else None,
        ),
        "Submitted": lambda: Submitted(**base, prediction_id=f"p{amount}", route="article"),
        "Generated": lambda: Generated(
            **base,
            outputs=("https://h/1", "data:x"),
            generation_s=1.0,
            told=told(record, amount),
            notes=NOTES[amount % len(NOTES)],
        ),
        "Failed": lambda: Failed(**wrong, moderated=amount % 2 == 1, error_code=amount % 7),
        "FoundFree": lambda: Failed(**wrong, found_free=True),
        "Charged": lambda: Failed(**wrong, charged=True, told=told(record, amount)),
        "NotBought": lambda: NotBought(**wrong, request_id="r"),
        "Released": lambda: Released(**wrong, error_code=3, prediction_id="late"),
        "Unknown": lambda: Unknown(**wrong, prediction_id="seen" if amount % 5 else None),
        "Expired": lambda: Expired(**wrong),
        "Polled": lambda: Polled(**base, said="processing"),
        "PolledAgain": lambda: PolledAgain(**base),
        "Resubmitted": lambda: Resubmitted(**base),
        "AssetStored": lambda: AssetStored(
            **base, index=amount % 2, path="images/a.png", size=amount, sha256="0"
        ),
        "Damaged": lambda: Damaged(**wrong, indexes=(amount % 2,)),
        "FetchFailed": lambda: FetchFailed(**wrong),
        "Succeeded": lambda: Succeeded(**base),
        "Lost": lambda: Lost(**wrong),
        "RetryAsked": lambda: RetryAsked(**base),
        "AskedAgain": lambda: AskedAgain(**base),
        "Found": lambda: Found(**base, prediction_id=f"f{amount}", created=now()),
        "Absent": lambda: Absent(**wrong),
        "TurnedUp": lambda: turned_up(record, amount),
        "Withdrawn": lambda: Withdrawn(**base),
    }
    return made[kind]()


def told(record: JobRecord, amount: int) -> int | None:
    """What the provider says it cost: nothing said, less than reserved, nothing, or more."""
    if record.state is S.UNKNOWN:
        return None
    booked, reserved = record.attempt.booked, record.attempt.reserved
    return {0: None, 1: booked // 2, 2: 0}.get(amount % 4, reserved + amount)


def check_same(record: JobRecord, stored: JobRecord) -> None:
    """The ledger has of a job what the fold has, to the last field; of inline media the prefix."""
    inline = tuple(INLINE if url.startswith(INLINE) else url for url in record.attempt.outputs)
    assert stored == changed(record, attempt=changed(record.attempt, outputs=inline))


def write(connection: sqlite3.Connection, *records: JobRecord) -> None:
    """Write records as one commit does."""
    batch = Batch()
    for record in records:
        batch.add(record)
    batch.write(connection)
