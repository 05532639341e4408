"""What sqlite3 and the file system raise, in words: what happened, and the remedy."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncpipe.errors import LedgerError

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


class LedgerFull(LedgerError):
    """The disk has no room for the ledger."""


class LedgerBusy(LedgerError):
    """Somebody else holds the ledger: what was to be written can be written later."""


class LedgerFails(LedgerError):
    """The disk failed, which may pass."""


_KEPT = "Nothing recorded before is lost"

_REMEDIES = {
    sqlite3.SQLITE_FULL: (LedgerFull, f"the disk is full. {_KEPT}: make room, then"),
    sqlite3.SQLITE_READONLY: (LedgerError, "it cannot be written: make its folder writable, then"),
    sqlite3.SQLITE_CANTOPEN: (LedgerError, "it cannot be opened: make its folder writable, then"),
    sqlite3.SQLITE_BUSY: (LedgerBusy, "another program holds it open: close that, then"),
    sqlite3.SQLITE_IOERR: (LedgerFails, f"the disk fails. {_KEPT}: when the cause is gone,"),
}

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def ledger_error(path: Path, exc: sqlite3.Error | OSError | UnicodeDecodeError) -> LedgerError:
    """Say what is wrong with the ledger at ``path`` and what to do."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    # sqlite3 repeats damaged text in its errors, which may not be text any more.
    if code in _DAMAGED or isinstance(exc, UnicodeDecodeError):
        return LedgerError(
            f"the ledger {path} is damaged ({exc}). It knows what was paid for, so do not delete "
            "it: put a copy of it back; another folder (--output-dir) would buy everything again"
        )
    if isinstance(exc, OSError) and exc.errno in _FULL:
        code = sqlite3.SQLITE_FULL
    other = (LedgerError, f"{_KEPT}: when the cause is gone,")
    kind, remedy = _REMEDIES.get(code, other)
    return kind(f"the ledger {path} failed ({exc}): {remedy} run the same command again")


MADE_NO_SENSE = (ValueError, TypeError, KeyError, IndexError, ArithmeticError)
"""What reading a row raises that no ledger wrote."""


def makes_no_sense(what: str, exc: Exception) -> LedgerError:
    """Say that ``what`` is damaged.

    Pages of a database have no checksums: damage may be seen first in a value.
    """
    return LedgerError(
        f"the ledger is damaged: {what} makes no sense ({exc!r:.200}). It knows what was paid "
        "for, so do not delete it: put a copy of it back"
    )


@contextmanager
def rows_of(what: str) -> Iterator[None]:
    """Turn what a row raises that no ledger wrote into LedgerError."""
    try:
        yield
    except MADE_NO_SENSE as exc:
        raise makes_no_sense(what, exc) from exc


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turn what sqlite3 and the file system raise into LedgerError, in one place."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as exc:
        raise ledger_error(path, exc) from exc
