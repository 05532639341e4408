"""Where uploaded files are, as the ledger knows: by sha256, so that each is sent once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from asyncpipe.ledger.trouble import rows_of


def find_upload(connection: sqlite3.Connection, sha256: str) -> tuple[str, datetime] | None:
    """The URL of a file and when it was uploaded, or None."""
    query = "SELECT url, uploaded_at FROM uploads WHERE sha256=?"
    row = connection.execute(query, (sha256,)).fetchone()
    with rows_of(f"the upload {sha256[:12]}"):
        return (str(row[0]), datetime.fromisoformat(row[1])) if row else None


def keep_upload(
    connection: sqlite3.Connection, sha256: str, *, url: str, size: int, at: datetime
) -> None:
    """Keep the URL of a file, in place of an older one."""
    connection.execute(
        "INSERT OR REPLACE INTO uploads(sha256, url, size, uploaded_at) VALUES(?,?,?,?)",
        (sha256, url, size, at.isoformat()),
    )


def forget_uploads(connection: sqlite3.Connection, digests: Iterable[str]) -> None:
    """Forget the URLs of files: they lead nowhere any more."""
    connection.executemany("DELETE FROM uploads WHERE sha256=?", ((each,) for each in digests))
