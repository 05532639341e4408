"""The ledger: SQLite, one writer thread, natural group commit."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from asyncpipe._fs import open_unlinked
from asyncpipe._tasks import within
from asyncpipe.errors import DiskError, LedgerError
from asyncpipe.jobs import JobRecord, JobState
from asyncpipe.ledger.commits import Committing, Query
from asyncpipe.ledger.errors import LedgerBusy, LedgerFails, LedgerFull, ledger_error, mapped
from asyncpipe.ledger.folder import (
    Origin,
    check_links,
    check_origin,
    check_unused,
    ledger_path,
)
from asyncpipe.ledger.protocol import Ledger, LedgerReader
from asyncpipe.ledger.reader import QueryReader
from asyncpipe.ledger.rows import Interrupted, NotReserved, WorkerRow
from asyncpipe.ledger.schema import SETTINGS, check_version, prepare
from asyncpipe.ledger.write import reserve

T = TypeVar("T")

P = ParamSpec("P")

HELD_S = 3600.0
"""How long to wait for a ledger that somebody else holds: a backup, a database browser."""

OPENING_S = 30.0
"""The same when it is opened: nothing that was paid for is in hand yet, and somebody may watch."""

FULL_S = 120.0
"""How long to wait for room on a disk that is full, with no ballast left …"""

FULL_PAUSE_S = 1.0
"""… and how often it is tried meanwhile."""

PAUSES_S = (0.1, 1.0, 5.0, 15.0)
"""How long to wait after each failure of the disk; the last one is told."""

CHECKPOINT_S = 3.0
"""How long what is committed may stand in the log alone."""


class SqliteLedger(Committing):
    """A ledger in a file of the output folder.

    On a full disk the ballast is released first, and ``on_full`` called in the loop, from then on
    after every commit: what is under way can still be recorded, and nothing new should begin.
    """

    store = ""

    def __init__(self, folder: Path, on_full: Callable[[DiskError], None] | None = None) -> None:
        super().__init__(folder)
        self._path = ledger_path(folder)
        self._ballast = Ballast(self._path.with_name("ballast"))
        self._on_full = on_full
        self._connection: sqlite3.Connection | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, origin: Origin | None) -> None:
        """Open or make the ledger; ``origin`` None is for work that asks no provider.

        Raises LedgerError when it is damaged or of another version, UsageError when it belongs to
        another ``origin``.
        """
        await self._run(partial(self._open_patiently, origin))

    def _open_patiently(self, origin: Origin | None) -> None:
        """Wait a while for whoever else holds the ledger."""
        until = time.monotonic() + OPENING_S
        while True:
            try:
                return self._open(origin)
            except LedgerBusy:  # SQLite has waited for its own timeout by then
                if time.monotonic() > until:
                    raise

    def _open(self, origin: Origin | None) -> None:
        if not self._path.exists() or self._path.stat().st_size == 0:
            check_unused(self._path)
        with mapped(self._path):
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                for setting in SETTINGS:
                    connection.execute(setting).close()
                connection.execute("BEGIN IMMEDIATE")
                prepare(connection)
                if origin is not None:
                    check_origin(connection, origin, self._path.parent.parent)
                connection.execute("COMMIT")
            except BaseException:
                connection.close()  # rolls back
                raise
            self._connection = connection
            self._checkpoint("TRUNCATE")
        self._ballast.hold()

    def _checkpoint(self, mode: str = "PASSIVE") -> None:
        """Bring what is committed into the ledger's own file: the log beside it may be left behind.

        Never raises: the next one does it too.
        """
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute(f"PRAGMA wal_checkpoint({mode})").close()

    def _checkpoint_soon(self) -> None:
        if self._timer is None and not self._closing:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(CHECKPOINT_S, self._checkpoint_now)

    def _checkpoint_now(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(self._thread, self._checkpoint)

    async def reserve(self, record: JobRecord, *, cap: int | None = None) -> NotReserved | None:
        """Write an intent; without a ``cap`` it is never refused: nobody else spends here."""
        if cap is not None:
            return await self._ask(partial(reserve, record=record, cap=cap))
        self.append(record)
        await self.durable()
        return None

    async def take(
        self, states: Collection[JobState], *, but: Collection[int] = ()
    ) -> list[JobRecord]:
        """Every job in one of ``states``: nobody else works here."""
        found = await self.records_in(states)
        return [record for record in found if record.id not in but]

    async def claim(self, ids: Collection[int]) -> list[JobRecord]:
        """The jobs with these ids: nobody else works here."""
        return await self.records(ids)

    async def interrupted(self, *, but: Collection[int] = ()) -> list[Interrupted]:
        """Jobs that a process was submitting which is gone, or we would not hold its folder."""
        found = await self.take([JobState.SUBMITTING], but=but)
        return [Interrupted(record=record, lease_ended_at=None) for record in found]

    def release(self, job_id: int) -> None:
        """Nobody else could have it."""

    @asynccontextmanager
    async def searching(self) -> AsyncIterator[None]:
        """Nobody else looks for anything."""
        yield

    @asynccontextmanager
    async def taking_in(self) -> AsyncIterator[None]:
        """Nobody else writes jobs."""
        yield

    async def changes(self) -> int:
        """Count rows that this connection has written."""
        return await self._ask(lambda _: self._connection.total_changes if self._connection else 0)

    async def shrink(self) -> None:
        """Write the file anew, without what is not kept any more; on a full disk it stays."""

        def write_anew() -> None:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.execute("VACUUM").close()
            self._checkpoint("TRUNCATE")

        await self._run(write_anew)

    async def aclose(self) -> None:
        """Write what was appended and close; raises LedgerError if that fails."""
        if self._timer is not None:
            self._timer.cancel()
        await super().aclose()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _after_commit(self) -> None:
        self._tell_full()
        self._checkpoint_soon()

    def _tell_full(self) -> None:
        if self._ballast.spent and self._on_full is not None:
            folder = self._path.parent.parent
            self._on_full(DiskError(f"the disk of {folder} is full: make room, then run again"))

    def _transact(self, query: Query[T]) -> T:
        answer = self._try_patiently(query)
        self.trouble = None
        self._ballast.hold_again()
        return answer

    def _try_patiently(self, query: Query[T]) -> T:
        """Wait for whoever else holds the ledger, and for room: paid answers wait for it."""
        failures, since = 0, time.monotonic()
        while True:
            try:
                return self._try(query)
            except LedgerBusy as exc:  # SQLite has waited for its own timeout by then
                if time.monotonic() > since + HELD_S:
                    raise
                self._waits(exc)
            except LedgerFull as exc:
                if self._ballast.release():
                    continue
                if self._closing or time.monotonic() > since + FULL_S:
                    raise
                self._waits(exc)
                time.sleep(FULL_PAUSE_S)
            except LedgerFails:
                failures += 1
                if failures >= len(PAUSES_S):
                    raise
                time.sleep(PAUSES_S[failures - 1])

    def _try(self, query: Query[T]) -> T:
        assert self._connection is not None, "the ledger is not open"
        with mapped(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                answer = query(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return answer


@asynccontextmanager
async def open_ledger(
    folder: Path,
    origin: Origin | None,
    on_full: Callable[[DiskError], None] | None = None,
) -> AsyncIterator[Ledger]:
    """Open or make the ledger of an output folder that the caller holds the lock of.

    ``origin`` None is for work that asks no provider; ``on_full`` hears when the disk runs full.
    Raises LedgerError when it is damaged or of another version, UsageError when it belongs to
    another ``origin``.
    """
    ledger = SqliteLedger(folder, on_full)
    try:
        await ledger.open(origin)
        yield ledger
    finally:
        await within(ledger.aclose)


class SqliteReader(QueryReader):
    """One moment of a ledger in a file."""

    def workers(self) -> Sequence[WorkerRow]:
        """Nobody shares it: one run holds the folder."""
        return ()


@contextmanager
def reading(folder: Path) -> Iterator[LedgerReader]:
    """Open a folder's ledger read-only, beside a run that may be writing it: one moment of it.

    Raises LedgerError when there is none or it cannot be read.
    """
    check_links(folder)
    path = ledger_path(folder)
    if not path.exists():
        raise LedgerError(f"{folder} has no ledger: no run has used it as its output folder")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            check_version(connection)
            connection.execute("BEGIN")
            yield SqliteReader(connection, partial(mapped, path))
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        raise ledger_error(path, exc) from exc


LOOK_EVERY_S = 10.0
"""How often is looked whether a full disk has room again."""

BALLAST_BYTES = 4 * 1024 * 1024
"""Room for the answers of some hundred submits that are out when the disk runs full."""


class Ballast:
    """A file of no use but its size; released when the ledger finds the disk full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looks_at = 0.0
        self.spent = False

    def hold(self) -> None:
        """Make the file where there is room for it; without, there is nothing to release."""
        try:
            if self._path.exists() and self._path.lstat().st_size == BALLAST_BYTES:
                return
            with open(self._path, "wb", opener=open_unlinked) as file:
                file.write(os.urandom(BALLAST_BYTES))  # zeros take no room on some file systems
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._path.unlink(missing_ok=True)

    def hold_again(self) -> None:
        """Make the file anew once there is room for it and more, looked at now and then."""
        if not self.spent or time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + LOOK_EVERY_S
        with suppress(OSError):
            if shutil.disk_usage(self._path.parent).free > 4 * BALLAST_BYTES:
                self.hold()
                self.spent = not self._path.exists()

    def release(self) -> bool:
        """Delete the file; False if there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        self.spent, self._looks_at = True, time.monotonic() + LOOK_EVERY_S
        return True
