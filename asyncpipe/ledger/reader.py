"""One moment of a ledger, whatever keeps it: the queries of whoever looks on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Concatenate, ParamSpec, TypeVar

from asyncpipe.ledger import accounts, queries, runs
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.folder import read_origin

T = TypeVar("T")

P = ParamSpec("P")


def read(
    query: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[QueryReader, P], T]:
    """A method that runs ``query`` at the reader's moment."""

    def ask(reader: QueryReader, /, *args: P.args, **named: P.kwargs) -> T:
        with reader.mapped():
            return query(reader.connection, *args, **named)

    return ask


class QueryReader:
    """Methods are those of ``LedgerReader``; ``mapped`` turns a database's errors into ours."""

    def __init__(
        self, connection: Connection, mapped: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.connection, self.mapped = connection, mapped

    origin = read(read_origin)
    sums = read(accounts.sums)
    results = read(accounts.results)
    label_names = read(accounts.label_names)
    attempts = read(accounts.attempts)
    open_work = read(accounts.open_work)
    times = read(accounts.times)
    last_run = read(accounts.last_run)
    job_file = read(accounts.job_file)
    taken = read(runs.taken)
    left_alone = read(queries.left_alone)
    providers = read(queries.providers)
