"""What a query asks of a database connection: the part that SQLite and PostgreSQL share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows of a query, or how many rows it wrote."""

    @property
    def rowcount(self) -> int:
        """How many rows were written; over all sets of values, of several."""

    @property
    def description(self) -> Any:
        """The columns; of each the first item is its name."""

    def fetchone(self) -> Any:
        """The next row as a tuple, or None."""

    def fetchall(self) -> list[Any]:
        """The rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection to a database; values stand for the ``?`` of a query."""

    def execute(self, query: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Run a query."""

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        """Run a query once with each set of values."""


def streamed(connection: Connection, query: str, values: Sequence[Any] = ()) -> Cursor:
    """Run a query whose rows are more than memory should hold at once."""
    stream = getattr(connection, "stream", connection.execute)
    cursor: Cursor = stream(query, values)
    return cursor


def insert(connection: Connection, query: str, values: Sequence[Any]) -> int:
    """Insert one row into a table that numbers its rows; return the new row's ``id``."""
    own = getattr(connection, "insert", None)
    if own is not None:
        return int(own(query, values))
    # Not RETURNING: SQLite has it since 3.35, and systems in use have an older one.
    cursor: Any = connection.execute(query, values)
    return int(cursor.lastrowid)
