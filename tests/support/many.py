"""Several commands that share one ledger, some of which are killed; the simulator's books judge."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from asyncpipe.ledger.postgres import connect, find_place
from tests.support.chaos import bought
from tests.support.command_line import command, environment, server_books

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def job_file(count: int, *, workers: int = 8, more: str = "") -> str:
    """So many jobs, none like the other; ``workers`` in flight for each command."""
    lines = [f"max_workers: {workers}\npolling: {{initial_s: 0.05, maximum_s: 0.2}}\n{more}jobs:\n"]
    lines += [
        f"  - {{name: 杯 {n}, model: {FLUX}, prompt: mug {n}, width: 64, height: 64}}\n"
        for n in range(count)
    ]
    return "".join(lines)


@dataclass(kw_only=True)
class Crew:
    """Workers of one place: commands that run the same job file, each into a folder of its own."""

    home: Path
    url: str
    ledger: str
    lease_s: float = 6.0
    options: tuple[object, ...] = ()
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def place(self) -> str:
        return str(self.home)

    def start(self, *, ledger: str | None = None) -> subprocess.Popen[str]:
        """One more worker; by another way to the ledger."""
        n = len(self.processes)
        arguments = (
            *("run", "jobs.yaml", "-o", f"out{n}", "--base-url", self.url, "--place", self.place),
            *("--allow-unknown-models", "--yes", "--min-free", 0, "--search-s", 2, "--no-progress"),
            *("--lease-s", self.lease_s, *self.options),
        )
        with (self.home / f"{n}.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command(*arguments),
                cwd=self.home,
                env=environment(
                    ATLASCLOUD_API_KEY="apikey-many", ASYNCPIPE_LEDGER=ledger or self.ledger
                ),
                stdout=log,
                stderr=log,
                encoding="utf-8",
            )
        self.processes.append(process)
        return process

    def log(self, n: int) -> str:
        return (self.home / f"{n}.log").read_text(encoding="utf-8")

    def end(self, *, within_s: float = 100) -> list[int]:
        """Wait for all that were not killed; their exit codes."""
        return [process.wait(within_s) for process in self.processes]

    def bought(self) -> Counter[str]:
        return bought(server_books(self.home)[0])

    @contextmanager
    def tables(self) -> Iterator[psycopg.Connection[Any]]:
        """The ledger's own tables."""
        with connect(self.ledger) as raw:
            schema = find_place(raw, self.place)
            assert schema is not None, "a worker has made it"
            raw.execute("SELECT set_config('search_path', %s, false)", (schema,))
            yield raw

    def count(self, query: str) -> int:
        with self.tables() as raw:
            row = raw.execute(f"SELECT count(*) FROM {query}").fetchone()
            assert row is not None, "a count has a row"
            return int(row[0])

    def wait_for(self, query: str, least: int) -> None:
        """Wait until so many rows are there."""
        with connect(self.ledger) as raw:
            while find_place(raw, self.place) is None:
                assert any(p.poll() is None for p in self.processes), self.log(0)
        with self.tables() as raw:
            while True:
                row = raw.execute(f"SELECT count(*) FROM {query}").fetchone()
                assert row is not None, "a count has a row"
                if row[0] >= least:
                    return
                assert any(p.poll() is None for p in self.processes), self.log(0)


@contextmanager
def crew(home: Path, url: str, ledger: str, **options: Any) -> Iterator[Crew]:
    """A crew, none of which lives on."""
    workers = Crew(home=home, url=url, ledger=ledger, **options)
    try:
        yield workers
    finally:
        for process in workers.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(10)
