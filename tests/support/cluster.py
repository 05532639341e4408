"""A ledger in PostgreSQL, a broker and a simulator, of some tests' own, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from asyncpipe.simulator.books import BookedPrediction
from tests.support.brokers import WorkerProcess, a_broker, until
from tests.support.command_line import a_simulator, asyncpipe, command, server_books
from tests.support.postgres import shared_url

LEASE_S = 6.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Servers on loopback; what they hold is in ``home``."""

    home: Path
    ledger: str
    broker: str
    api: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            "ASYNCPIPE_LEDGER": self.ledger,
            "ASYNCPIPE_BROKER": self.broker,
            "ATLASCLOUD_API_KEY": "apikey-of-the-cluster",
        }

    def enqueue(self, queue: str, job_file: Path, *options: object) -> str:
        """Send a job file's jobs; returns what was printed."""
        done = asyncpipe(
            *("enqueue", job_file, "--queue", queue, "--base-url", self.api, "--yes", *options),
            cwd=self.home,
            **self.variables,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def worker(self, queue: str, name: str) -> WorkerProcess:
        """Start a worker by our own command."""
        options = ["work", "--queue", queue, "--lease-s", f"{LEASE_S:g}", "--grace", "5"]
        return WorkerProcess(command(*options), self.variables, self.home / f"{name}.log")

    def ask(self, place: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a place's tables; none before the place is there."""
        with psycopg.connect(self.ledger, autocommit=True) as connection:
            found = connection.execute("SELECT to_regclass('asyncpipe.places')").fetchone()
            if found is None or found[0] is None:
                return []
            place_id = connection.execute(
                "SELECT id FROM asyncpipe.places WHERE name=%s", (place,)
            ).fetchone()
            if place_id is None:
                return []
            connection.execute(
                "SELECT set_config('search_path', %s, false)", (f"asyncpipe_{place_id[0]}",)
            )
            return connection.execute(query, values).fetchall()

    def states(self, place: str) -> dict[str, int]:
        """How many jobs of a place are in each state."""
        return dict(self.ask(place, "SELECT state, count(*) FROM jobs GROUP BY state"))

    def carried_by(self, place: str, pids: Sequence[int]) -> list[int]:
        """The jobs that workers with these processes have under way at the provider."""
        names = [f"process {pid} on %" for pid in pids]
        query = (
            "SELECT jobs.id FROM jobs JOIN workers ON workers.id=jobs.worker"
            " WHERE workers.name LIKE ANY(%s) AND jobs.state='submitted'"
        )
        return [row[0] for row in self.ask(place, query, names)]

    def finish(self, place: str, count: int) -> None:
        """Wait until all jobs of a place have succeeded."""
        until(lambda: self.states(place) == {"succeeded": count}, f"the end of {place}", 90)

    def check_books(self, place: str, count: int) -> None:
        """All that is sold of a place is the ledger's, each prompt once; and the files are there.

        Places are told apart by their prompts, see ``write_mugs``.
        """
        sold = [each for each in self.sold() if each.body["prompt"].startswith(f"{place} ")]
        prompts = Counter(each.body["prompt"] for each in sold)
        assert {prompt: n for prompt, n in prompts.items() if n > 1} == {}, "paid twice"
        assert len(prompts) == count
        query = "SELECT prediction_id FROM attempts WHERE prediction_id IS NOT NULL"
        known = {row[0] for row in self.ask(place, query)}
        assert known == {each.id for each in sold}, "paid and lost"
        assert len(list((self.home / place / "images").glob("*.png"))) == count

    def sold(self) -> list[BookedPrediction]:
        """What the simulator has sold to anybody."""
        return server_books(self.home)[0]


@contextmanager
def a_cluster(home: Path, *, speed: float = 4.0) -> Iterator[Cluster]:
    """All of it, gone after the block."""
    with ExitStack() as stack:
        yield Cluster(
            home=home,
            ledger=shared_url(),
            broker=stack.enter_context(a_broker(home / "broker")),
            api=stack.enter_context(a_simulator(home, "--speed", speed)),
        )


def write_mugs(home: Path, place: str, count: int) -> Path:
    """A job file whose prompts nobody else has: the books are of all places."""
    model = "black-forest-labs/flux-2-pro/text-to-image"
    lines = [
        f"  - {{name: mug {n}, model: {model}, prompt: {place} {n}, width: 64, height: 64}}\n"
        for n in range(count)
    ]
    top = f"output_dir: {place}\nmax_workers: 6\npolling: {{initial_s: 0.2, maximum_s: 0.5}}\n"
    path = home / f"{place}.yaml"
    path.write_text(f"{top}jobs:\n{''.join(lines)}", encoding="utf-8")
    return path
