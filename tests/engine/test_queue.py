"""Who goes next: paid work, whose time has come, and models in turn; without a loop."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpipe.engine.queue import Queue
from asyncpipe.engine.tickets import Ticket
from asyncpipe.flow.gate import Gate
from asyncpipe.flow.limiter import Answer, AnswerKind, Limiter, Permit
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


def limiter(*, ceiling: int = 64, seed: int = 1) -> Limiter:
    gate = Gate(Pace(), clock=lambda: 0.0)
    return Limiter(gate, Random(seed), lambda _: Window(ceiling), workers=64)


def ticket(**fields: Any) -> Ticket:
    return Ticket(record(**fields))


def test_paid_work_goes_first_and_models_take_turns() -> None:
    """Then jobs whose time has come; a paused model does not block another."""
    known = limiter()
    queue = Queue(known)
    one, two = ticket(id=1, model="a"), ticket(id=2, model="b")
    queue.add([one, ticket(id=3, model="a"), two])
    queue.paid.append(ticket(id=9, state=JobState.SUBMITTED))
    first, second = queue.choose(0.0), queue.choose(0.0)
    assert isinstance(first, Ticket)
    assert (first.id, second) == (9, one)
    permit = known.to_submit("a")
    assert queue.choose(0.0) is two
    queue.add([ticket(id=4, model="b")])
    permit.answered(Answer(AnswerKind.OVERLOADED, 100.0))
    chosen = queue.choose(0.0)
    assert isinstance(chosen, Ticket)
    assert chosen.id == 4
    wait = queue.choose(0.0)
    assert isinstance(wait, float)
    assert 100.0 <= wait <= 110.0


def test_a_job_is_not_chosen_before_its_time() -> None:
    """A retry waits for its moment and then goes first in its model."""
    queue = Queue(limiter())
    queue.add_later(ticket(id=7), 50.0)
    assert queue.choose(0.0) == 50.0
    queue.add([ticket(id=8)])
    chosen = [queue.choose(50.0), queue.choose(50.0)]
    assert [each.id for each in chosen if isinstance(each, Ticket)] == [7, 8]
    assert queue.empty


def pending(number: int, model: str) -> JobRecord:
    job = Job(name=f"{number}", type=JobType.IMAGE, model=model, prompt="p")
    return JobRecord(id=number, key=f"{number:032}", name="a", job=job, state=JobState.PENDING)


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    permits=st.integers(1, 8),
    seed=st.integers(),
)
def test_a_full_window_blocks_nobody_else_and_turns_are_fair(
    sizes: list[int], counts: list[int], permits: int, seed: int
) -> None:
    """Within its window and the permits every model goes on; none is passed over twice."""
    models = {f"m{n}": size for n, size in enumerate(sizes)}
    known = Limiter(
        Gate(Pace(), clock=lambda: 0.0),
        Random(1),
        lambda model: Window(models[model], learned=False),
        workers=permits,
    )
    queue, rng, left = Queue(known), Random(seed), Counter[str]()
    flight: list[tuple[Ticket, Permit]] = []
    for (model, _), count in zip(models.items(), counts, strict=False):
        queue.add(Ticket(pending(100 * int(model[1:]) + n, model)) for n in range(count))
        left[model] = count
    passed: Counter[str] = Counter()
    while left.total() or flight:
        busy = Counter(ticket.job.model for ticket, _ in flight)
        able = {m for m, size in models.items() if left[m] and busy[m] < size}
        chosen = queue.choose(0.0) if known.free else 0.0
        if isinstance(chosen, Ticket):
            model = chosen.job.model
            assert model in able
            permit = known.to_submit(model)
            permit.answered(Answer(AnswerKind.TAKEN))
            flight.append((chosen, permit))
            left[model] -= 1
            passed[model] = 0
            for other in able - {model}:
                passed[other] += 1
                assert passed[other] < len(models)
            continue
        assert not able or len(flight) == permits
        _, permit = flight.pop(rng.randrange(len(flight)))
        permit.release()
