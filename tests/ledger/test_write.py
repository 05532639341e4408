"""One commit writes of every job and attempt how it stands at last, and nothing older."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from asyncpipe import Job
from asyncpipe.errors import LedgerError
from asyncpipe.jobs.events import Event
from asyncpipe.jobs.record import JobRecord, changed, fold
from tests.support.events import (
    MODELS,
    event,
    found_out,
    ledger_in_memory,
    with_jobs,
    with_settling,
    write,
)


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_writes_what_its_records_write_one_after_the_other(seed: int) -> None:
    """Whatever any of four jobs went through within one commit, and wherever commits are cut."""
    random = Random(seed)
    jobs = [Job(name=f"杯子 {n}", model=MODELS[n % 2], prompt="p") for n in range(4)]
    with closing(ledger_in_memory()) as singly, closing(ledger_in_memory()) as together:
        records = with_jobs(singly, jobs)
        singly.backup(together)
        batch: list[JobRecord] = []
        for _ in range(300):
            which = random.randrange(4)
            if kinds := likely(records[which]):
                kind = random.choice(kinds)
                happened: Event
                if kind in ("LostCharged", "LostFree"):
                    happened = found_out(records[which], random, charged=kind == "LostCharged")
                else:
                    happened = event(kind, records[which], random.choice([0, 7]))
                records[which] = fold(records[which], happened)
                batch += [records[which]] if happened.stored else []
        while batch:
            size = random.choice([1, 5, 40])
            for each in batch[:size]:
                write(singly, each)
            write(together, *batch[:size])
            assert [*singly.iterdump()] == [*together.iterdump()]
            del batch[:size]


def likely(record: JobRecord) -> list[str]:
    """Mostly what brings a job on: most batches hold little else."""
    kinds = with_settling(record)
    good = [kind for kind in kinds if kind in ("Intended", "Submitted", "Generated", "Succeeded")]
    return kinds + 4 * good


def test_an_older_record_is_refused_and_changes_nothing() -> None:
    """In the same commit, in a later one, and beside others; of a job that is not there, too."""
    jobs = [Job(name=f"杯子 {n}", model=MODELS[0], prompt="p") for n in range(2)]
    with closing(ledger_in_memory()) as connection:
        one, other = with_jobs(connection, jobs)
        first = fold(one, event("Intended", one, 7))
        second = fold(first, event("Submitted", first, 7))
        with pytest.raises(LedgerError, match=r"job 1 .*another program.*version 2, not 1"):
            write(connection, second, first)
        write(connection, first)
        write(connection, second)
        before = [*connection.iterdump()]
        stranger = changed(first, id=9)
        for records, said in (
            ([first], "version 2, not 1"),
            ([second], "written since"),
            ([fold(other, event("Intended", other, 7)), first], "job 1 "),
            ([stranger], "there is no job 9"),
        ):
            connection.execute("BEGIN")
            with pytest.raises(LedgerError, match=said):
                write(connection, *records)
            connection.execute("ROLLBACK")
            assert [*connection.iterdump()] == before
