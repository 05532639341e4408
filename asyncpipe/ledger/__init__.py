"""The durable record of one output folder.

Everything that was intended, bought and stored, in SQLite under ``.asyncpipe/``; one writer
thread, one lock per folder. All SQL of the package lives here.
"""

from asyncpipe.ledger import queries, runs
from asyncpipe.ledger.asset_names import claim_parts, claim_stems
from asyncpipe.ledger.database import Ledger, origin_of, reading
from asyncpipe.ledger.errors import MADE_NO_SENSE, makes_no_sense, rows_of
from asyncpipe.ledger.folder import (
    STATE_FOLDER,
    FolderLock,
    Holder,
    Origin,
    check_local,
    holder,
    ledger_path,
    make_folders,
)
from asyncpipe.ledger.queries import (
    LostAnswer,
    draw,
    find_upload,
    forget_uploads,
    job_from_spec,
    keep_upload,
    pending_models,
)
from asyncpipe.ledger.runs import Named, Taken, taken
from asyncpipe.ledger.write import INLINE

__all__ = [
    "INLINE",
    "MADE_NO_SENSE",
    "STATE_FOLDER",
    "FolderLock",
    "Holder",
    "Ledger",
    "LostAnswer",
    "Named",
    "Origin",
    "Taken",
    "check_local",
    "claim_parts",
    "claim_stems",
    "draw",
    "find_upload",
    "forget_uploads",
    "holder",
    "job_from_spec",
    "keep_upload",
    "ledger_path",
    "make_folders",
    "makes_no_sense",
    "origin_of",
    "pending_models",
    "queries",
    "reading",
    "rows_of",
    "runs",
    "taken",
]
