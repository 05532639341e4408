"""Who goes next: paid work, whose time has come, and models in turn; without a loop."""

from __future__ import annotations

from random import Random
from typing import Any

from asyncpipe.engine.queue import Queue
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Answer, Traffic, Verdict
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.window import Window
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.jobs.record import JobRecord
from asyncpipe.jobs.states import JobState


def record(**fields: Any) -> JobRecord:
    model = fields.pop("model", "m/text-to-image")
    job = Job(name="a", type=JobType.IMAGE, model=model, prompt="p")
    base: Any = {"id": 1, "key": "k" * 32, "name": "a", "job": job, "state": JobState.SUBMITTING}
    return JobRecord(**(base | fields))


def traffic(*, ceiling: int = 64, seed: int = 1) -> Traffic:
    return Traffic(Gate(Pace(), clock=lambda: 0.0), Random(seed), lambda _: Window(ceiling))


def test_paid_work_goes_first_and_models_take_turns() -> None:
    """Then jobs whose time has come; a paused model does not block another."""
    queue = Queue(traffic())
    one, two = record(id=1, model="a"), record(id=2, model="b")
    queue.add([one, record(id=3, model="a"), two])
    queue.paid.append(record(id=9, state=JobState.SUBMITTED))
    assert [
        chosen.id
        for chosen in (queue.choose(0.0), queue.choose(0.0))
        if not isinstance(chosen, float)
    ] == [9, 1]
    assert queue.choose(0.0) == two
    queue.add([record(id=4, model="b")])
    queue.traffic.answered(1, "a", Answer(Verdict.OVERLOADED, 100.0), 0.0)
    chosen = queue.choose(0.0)
    assert isinstance(chosen, JobRecord)
    assert chosen.id == 4
    wait = queue.choose(0.0)
    assert isinstance(wait, float)
    assert 100.0 <= wait <= 110.0


def test_a_job_is_not_chosen_before_its_time() -> None:
    """A retry waits for its moment and then goes first in its model."""
    queue = Queue(traffic())
    queue.add_later(record(id=7), 50.0)
    assert queue.choose(0.0) == 50.0
    queue.add([record(id=8)])
    assert [c.id for c in (queue.choose(50.0), queue.choose(50.0)) if isinstance(c, JobRecord)] == [
        7,
        8,
    ]
    assert queue.empty
