"""A ledger that fails when a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from asyncpipe.engine import Pipeline
from asyncpipe.errors import LedgerError

DISK_BROKEN = "the ledger cannot be written: disk I/O error"


@contextmanager
def failing_ledger(pipeline: Pipeline, why: str = DISK_BROKEN) -> Iterator[None]:
    """Let every read and write of an open pipeline's ledger fail while the block runs.

    With a LedgerError that says ``why``. A pipeline whose write failed stops for good, as with a
    disk that is broken; open another on the folder to go on.
    """
    ledger: Any = pipeline._parts().ledger

    def refuse(query: object) -> NoReturn:
        raise LedgerError(why)

    ledger._transact = refuse
    try:
        yield
    finally:
        del ledger._transact
