"""The durable record of one output folder.

Everything that was intended, bought and stored: ``Ledger`` is its face for a run, ``LedgerReader``
for whoever looks on. What keeps it is SQLite under ``.asyncpipe/``, with one writer thread and one
lock per folder. All SQL of the package lives here.
"""

from asyncpipe.ledger.asset_names import NamesIn
from asyncpipe.ledger.database import open_ledger
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
from asyncpipe.ledger.lease import Lease
from asyncpipe.ledger.place import (
    SharedPlace,
    Where,
    bucket_of,
    choose,
    folder_of,
    has_record,
    mending,
    open_shared,
    origin_of,
    place_names,
    place_settings,
    reading,
    resolved,
    where_of,
)
from asyncpipe.ledger.protocol import Ledger, LedgerReader, SharedLedger
from asyncpipe.ledger.rows import (
    AttemptRow,
    Counted,
    Fact,
    Interrupted,
    Look,
    MoneyRow,
    Named,
    NotReserved,
    OpenWork,
    ResultRow,
    Spent,
    Sums,
    Taken,
    WorkerNews,
    WorkerRow,
)
from asyncpipe.ledger.write import INLINE

__all__ = [
    "ELSEWHERE",
    "INLINE",
    "MADE_NO_SENSE",
    "STATE_FOLDER",
    "AttemptRow",
    "Counted",
    "Fact",
    "Holder",
    "Interrupted",
    "Lease",
    "Ledger",
    "LedgerReader",
    "Look",
    "MoneyRow",
    "Named",
    "NamesIn",
    "NotReserved",
    "OpenWork",
    "Origin",
    "ResultRow",
    "SharedLedger",
    "SharedPlace",
    "Spent",
    "Sums",
    "Taken",
    "Where",
    "WorkerNews",
    "WorkerRow",
    "bucket_of",
    "check_account",
    "check_local",
    "choose",
    "choosing_lock",
    "folder_of",
    "has_record",
    "holder",
    "in_use",
    "ledger_path",
    "lock_of",
    "make_folders",
    "makes_no_sense",
    "mending",
    "open_ledger",
    "open_shared",
    "origin_of",
    "place_names",
    "place_settings",
    "reading",
    "resolved",
    "rows_of",
    "where_of",
]
