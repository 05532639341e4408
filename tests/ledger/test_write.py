"""A batch of events is written as its events one after the other would be."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from asyncpipe import Job
from asyncpipe.jobs.events import Event
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.ledger.write import statements, write
from tests.support.events import MODELS, event, ledger_in_memory, with_jobs, with_settling


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_writes_what_its_events_write_one_after_the_other(seed: int) -> None:
    """Whatever any of four jobs went through within one commit, and wherever commits are cut."""
    random = Random(seed)
    jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(4)]
    with closing(ledger_in_memory()) as singly, closing(ledger_in_memory()) as together:
        records = with_jobs(singly, jobs)
        singly.backup(together)
        batch: list[Event] = []
        for _ in range(300):
            which = random.randrange(4)
            if kinds := likely(records[which]):
                happened = event(random.choice(kinds), records[which], random.choice([0, 7]))
                records[which] = fold(records[which], happened)
                batch += [happened] if happened.stored else []
        while batch:
            size = random.choice([1, 5, 40])
            for each in batch[:size]:
                for sql, values in statements(each):
                    singly.execute(sql, values)
            write(batch[:size], together)
            assert [*singly.iterdump()] == [*together.iterdump()]
            del batch[:size]


def likely(record: JobRecord) -> list[str]:
    """Mostly what brings a job on: most batches hold little else."""
    kinds = [
        kind for kind in with_settling(record) if not kind.startswith("Lost") or kind == "Lost"
    ]
    good = [kind for kind in kinds if kind in ("Intended", "Submitted", "Generated", "Succeeded")]
    return kinds + 4 * good
