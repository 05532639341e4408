"""Long histories of a folder, the same on every machine: any legal events, at given times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from asyncpipe import Job, JobState
from asyncpipe.engine.resolve import GIVEN_UP_FREE
from asyncpipe.jobs.events import (
    AskedAgain,
    AssetStored,
    Damaged,
    Event,
    Expired,
    Failed,
    FetchFailed,
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
    Unknown,
    Withdrawn,
)
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.ledger.folder import Origin
from tests.support.tables import ledger_of

S = JobState
ORIGIN = Origin(provider="atlas", origin="https://api.example", simulated=False)
MODELS = ["m/one/text-to-image", "m/two/text-to-image", "m/three/text-to-video"]
BEGAN = datetime(2025, 3, 9, 21, 0, tzinfo=UTC)
STEP = timedelta(seconds=61)  # so that a history of some hundred events goes over midnight


class History:
    """A few jobs and what happens to them."""

    def __init__(self, seed: int, jobs: int) -> None:
        self.random = Random(seed)
        self.jobs = [
            Job(
                name=f"杯子 {n}",
                model=MODELS[n % 3],
                prompt=f"=第 {n} 个",
                params={"width": n} if n % 4 else {},
                labels={"sku": f"k{n}"} if n % 5 == 0 else {},
            )
            for n in range(jobs)
        ]
        self.at = BEGAN
        self.polls = 0
        """How often a job was polled before what happened last."""

    def next(self, record: JobRecord) -> Event | None:
        """What happens to a job next, if anything can."""
        kinds = [*_POSSIBLE.get(record.state, ())]
        if record.state is S.FAILED and not record.attempt.paid:
            kinds.append("RetryAsked")
        if record.lost:
            kinds += ["LostCharged", "LostFree"]
        if not record.attempt.assets:
            kinds = [kind for kind in kinds if kind != "Damaged"]
        if not kinds:
            return None
        self.at += STEP
        amount = self.random.choice([0, 1, *[self.random.randrange(10**7)] * 4])
        kind = self.random.choice(kinds)
        self.polls = amount % 5 if kind in _POLLED else 0
        if kind in ("LostCharged", "LostFree"):
            return self._settled(record, charged=kind == "LostCharged")
        return self._made(kind, record, amount)

    def _settled(self, record: JobRecord, *, charged: bool) -> Event:
        lost = [each.n for each in record.earlier if each.settled is None]
        attempt = lost[self.random.randrange(len(lost))]
        return LostSettled(job_id=record.id, at=self.at, attempt=attempt, charged=charged)

    def _made(self, kind: str, record: JobRecord, amount: int) -> Event:
        base: Any = {"job_id": record.id, "at": self.at}
        wrong: Any = {**base, "error": f"错误 {amount % 7}, https://h/{amount}"}
        late: Any = {"prediction_id": f"late{amount}"} if amount % 3 == 0 else {}
        booked, reserved = record.attempt.booked, record.attempt.reserved
        told = {0: None, 1: booked // 2, 2: 0}.get(amount % 4, reserved + amount)
        place = amount % max(len(record.attempt.outputs), 1)
        made: dict[str, Callable[[], Event]] = {
            "Intended": lambda: Intended(
                **base,
                attempt=record.next_attempt,
                reserved=amount + amount // 4 * (amount % 2),
                price_source=f"book {amount % 2}",
                assumed="5 s" if amount % 3 == 0 else None,
                booked=amount,
                estimated=amount % 2 == 1,
            ),
            "Submitted": lambda: Submitted(
                **base, prediction_id=f"p{amount}", route="r", request_id="q1"
            ),
            "Generated": lambda: Generated(
                **base,
                outputs=("https://h/1", "data:x")[: 1 + amount % 2],
                generation_s=amount / 10**6,
                told=told,
                request_id="q2" if amount % 2 else None,
            ),
            "Failed": lambda: Failed(**wrong, moderated=amount % 2 == 1, error_code=4, **late),
            "Charged": lambda: Failed(**wrong, charged=True, told=told, request_id="q3"),
            "GivenUp": lambda: Failed(**base, error="given up", charged=True),
            "GivenUpFree": lambda: Failed(**base, error=GIVEN_UP_FREE, found_free=True),
            "NotBought": lambda: NotBought(**wrong, request_id="q4"),
            "Released": lambda: Released(**wrong, error_code=3, **late),
            "Unknown": lambda: Unknown(**wrong, request_id="q5" if amount % 2 else None),
            "Expired": lambda: Expired(**wrong),
            "PolledAgain": lambda: PolledAgain(**base),
            "Resubmitted": lambda: Resubmitted(**base, failures=amount % 2),
            "AssetStored": lambda: AssetStored(
                **base,
                index=place,
                path=f"images/{record.id}_{place}.png",
                size=amount,
                sha256=f"{amount:x}",
            ),
            "FetchFailed": lambda: FetchFailed(**wrong),
            "Succeeded": lambda: Succeeded(**base),
            "Damaged": lambda: Damaged(**wrong, indexes=(record.attempt.assets[0].position,)),
            "Lost": lambda: Lost(**wrong),
            "RetryAsked": lambda: RetryAsked(**base),
            "AskedAgain": lambda: AskedAgain(**base),
            "Withdrawn": lambda: Withdrawn(**base),
        }
        return made[kind]()


_POLLED = ("Generated", "Failed", "Charged", "Released", "Unknown", "Expired")

_POSSIBLE = {
    S.PENDING: ["Intended"] * 9 + ["Withdrawn"],
    S.SUBMITTING: ["Submitted"] * 6
    + ["Generated", "Failed", "Charged", "NotBought", "Released", "Unknown", "Unknown"],
    S.SUBMITTED: ["Generated"] * 5 + ["Failed", "Charged", "Released", "Expired", "Unknown"],
    S.EXPIRED: ["PolledAgain"],
    S.UNKNOWN: ["Resubmitted", "Resubmitted", "GivenUp", "GivenUpFree"],
    S.GENERATED: ["AssetStored"] * 4 + ["FetchFailed"] + ["Succeeded"] * 2 + ["Lost"],
    S.CANCELLED: ["AskedAgain"],
    S.SUCCEEDED: ["Damaged"],
}


def write_history(folder: Path, seed: int, *, jobs: int = 12) -> None:
    """Make a folder whose ledger has gone through a history; some are longer than others."""
    steps = 40 + 20 * (seed % 8)
    history = History(seed, jobs)

    async def main() -> None:
        ledger = await ledger_of(folder, ORIGIN)
        run = await ledger.start_run(BEGAN, session=1, job_file="任务.yaml")
        rows = [(job.key("atlas"), job) for job in history.jobs]
        await ledger.add_jobs(rows, run=run, position=0)
        records = await ledger.records(range(1, jobs + 1))
        for _ in range(steps):
            n = history.random.randrange(jobs)
            if (event := history.next(records[n])) is not None:
                for _ in range(history.polls):  # and the answers to polls before it
                    records[n] = fold(records[n], Polled(job_id=n + 1, at=history.at))
                records[n] = fold(records[n], event)
                ledger.append(records[n])
            if history.random.random() < 0.2:
                await ledger.durable()
        await ledger.aclose()

    asyncio.run(main())
