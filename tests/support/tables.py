"""What is in a folder's ledger, by SQL: for tests that look beneath its face."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from asyncpipe.errors import LedgerError
from asyncpipe.ledger.database import SqliteLedger
from asyncpipe.ledger.folder import STATE_FOLDER, Origin, ledger_path

ORIGIN = Origin(provider="atlas", origin="simulator", simulated=True)


@contextmanager
def tables(folder: Path) -> Iterator[sqlite3.Connection]:
    """Read a ledger beside whoever writes it; LedgerError where there is none yet."""
    try:
        uri = f"{ledger_path(folder).resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.Error as exc:
        raise LedgerError(str(exc)) from exc


async def ledger_of(folder: Path, origin: Origin | None = ORIGIN) -> SqliteLedger:
    """A ledger of a folder, to be closed by whoever asks for it."""
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    ledger = SqliteLedger(folder)
    await ledger.open(origin)
    return ledger
