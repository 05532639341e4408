"""The durable record of one output folder.

Everything that was intended, bought and stored: ``Ledger`` is its face for a run, ``LedgerReader``
for whoever looks on. What keeps it is SQLite under ``.asyncpipe/``, with one writer thread and one
lock per folder. All SQL of the package lives here.
"""

from asyncpipe.ledger.database import open_ledger, origin_of, reading
from asyncpipe.ledger.errors import MADE_NO_SENSE, makes_no_sense, rows_of
from asyncpipe.ledger.folder import (
    ELSEWHERE,
    STATE_FOLDER,
    Holder,
    Origin,
    check_account,
    check_local,
    choosing_lock,
    holder,
    in_use,
    ledger_path,
    lock_of,
    make_folders,
)
from asyncpipe.ledger.protocol import Ledger, LedgerReader
from asyncpipe.ledger.rows import (
    AttemptRow,
    Counted,
    MoneyRow,
    Named,
    OpenWork,
    Refusal,
    ResultRow,
    Sums,
    Taken,
)
from asyncpipe.ledger.write import INLINE

__all__ = [
    "ELSEWHERE",
    "INLINE",
    "MADE_NO_SENSE",
    "STATE_FOLDER",
    "AttemptRow",
    "Counted",
    "Holder",
    "Ledger",
    "LedgerReader",
    "MoneyRow",
    "Named",
    "OpenWork",
    "Origin",
    "Refusal",
    "ResultRow",
    "Sums",
    "Taken",
    "check_account",
    "check_local",
    "choosing_lock",
    "holder",
    "in_use",
    "ledger_path",
    "lock_of",
    "make_folders",
    "makes_no_sense",
    "open_ledger",
    "origin_of",
    "reading",
    "rows_of",
]
