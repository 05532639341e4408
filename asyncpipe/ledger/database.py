"""The ledger: SQLite, one writer thread, natural group commit."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio

from asyncpipe._fs import open_unlinked
from asyncpipe._tasks import within
from asyncpipe.errors import DiskError, LedgerError
from asyncpipe.jobs import Job, JobRecord
from asyncpipe.ledger import accounts, queries, runs
from asyncpipe.ledger.asset_names import FolderNames, claim_parts
from asyncpipe.ledger.errors import LedgerBusy, LedgerFails, LedgerFull, ledger_error, mapped
from asyncpipe.ledger.folder import (
    Origin,
    check_links,
    check_origin,
    check_unused,
    ledger_path,
    note_account,
    read_origin,
)
from asyncpipe.ledger.protocol import Ledger, LedgerReader, Seen
from asyncpipe.ledger.rows import AddedOne, Named
from asyncpipe.ledger.schema import SETTINGS, check_version, prepare
from asyncpipe.ledger.write import Batch, reserve

T = TypeVar("T")

P = ParamSpec("P")

Query = Callable[[sqlite3.Connection], T]


def asked(
    query: Callable[Concatenate[sqlite3.Connection, P], T],
) -> Callable[Concatenate[SqliteLedger, P], Coroutine[Any, Any, T]]:
    """A method that runs ``query`` in a transaction, after all that was appended."""

    async def ask(ledger: SqliteLedger, /, *args: P.args, **named: P.kwargs) -> T:
        return await ledger._ask(lambda connection: query(connection, *args, **named))

    return ask


def seen_through(
    query: Callable[Concatenate[sqlite3.Connection, P], T],
) -> Callable[Concatenate[SqliteLedger, P], Coroutine[Any, Any, Seen[T]]]:
    """The same; once begun, its answer comes even if cancelled, the cancellation with it."""

    async def ask(ledger: SqliteLedger, /, *args: P.args, **named: P.kwargs) -> Seen[T]:
        return await ledger._see_through(lambda connection: query(connection, *args, **named))

    return ask


GATHERED_TICKS = 3
"""After how many ticks of the loop what was appended goes to the writer thread."""


HELD_S = 3600.0
"""How long to wait for a ledger that somebody else holds: a backup, a database browser."""

OPENING_S = 30.0
"""The same when it is opened: nothing that was paid for is in hand yet, and somebody may watch."""

PAUSES_S = (0.1, 1.0, 5.0, 15.0)
"""How long to wait after each failure of the disk; the last one is told."""

CHECKPOINT_S = 3.0
"""How long what is committed may stand in the log alone."""


class SqliteLedger:
    """A ledger in a file of the output folder: one writer thread, natural group commit.

    The appends of a few loop ticks travel to the thread as one list; while that commits, the next
    list grows. On a full disk the ballast is released first, and ``on_full`` called in the loop,
    from then on after every commit: what is under way can still be recorded, and nothing new should
    begin. Methods are those of ``Ledger``.
    """

    def __init__(self, folder: Path, on_full: Callable[[DiskError], None] | None = None) -> None:
        self._names, self._path = FolderNames(folder), ledger_path(folder)
        self._ballast = Ballast(self._path.with_name("ballast"))
        self._on_full = on_full
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="asyncpipe-ledger")
        self._connection: sqlite3.Connection | None = None
        self._batch = Batch()
        self._waiters: list[asyncio.Future[None]] = []
        self._committing: list[asyncio.Future[None]] | None = None
        self._scheduled = False
        self._failure: LedgerError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

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

    def append(self, record: JobRecord) -> None:
        """Take ``record`` to be written; raises LedgerError."""
        if self._failure is not None:
            raise self._failure
        self._batch.add(record)
        self._schedule()

    async def reserve(self, record: JobRecord, *, cap: int | None = None) -> bool:
        """Write an intent; without a ``cap`` it is never refused: nobody else spends here."""
        if cap is not None:
            return await self._ask(partial(reserve, record=record, cap=cap))
        self.append(record)
        await self.durable()
        return True

    async def durable(self) -> None:
        """Wait until everything appended so far is on disk; raises LedgerError if it is not."""
        if self._failure is not None:
            raise self._failure
        if not self._batch and self._committing is None:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._batch:
            self._waiters.append(waiter)
        elif self._committing is not None:
            self._committing.append(waiter)
        await waiter

    note_account = asked(note_account)
    begin_session = seen_through(runs.begin_session)
    start_run = asked(runs.start_run)
    take_up = asked(runs.take_up)
    end_pass = asked(runs.end_pass)
    repeat_run = asked(runs.repeat_run)
    end_run = asked(runs.end_run)
    last_row = asked(runs.last_row)
    removed = seen_through(accounts.removed)
    add_jobs = seen_through(queries.add_jobs)
    to_buy = asked(queries.to_buy)
    left_alone = asked(queries.left_alone)
    records = asked(queries.records)
    records_in = asked(queries.records_in)
    unresolved = asked(queries.unresolved)
    sought = asked(queries.sought)
    owners_of = asked(queries.owners_of)
    predictions = asked(queries.predictions)
    absence_failed = asked(queries.absence_failed)
    named_of = asked(queries.named_of)
    pending_models = asked(queries.pending_models)
    pending = asked(queries.pending)
    assets = asked(queries.assets)
    find_upload = asked(queries.find_upload)
    keep_upload = asked(queries.keep_upload)
    forget_uploads = asked(queries.forget_uploads)
    sums = asked(accounts.sums)
    result = asked(accounts.result)
    open_work = asked(accounts.open_work)

    async def add_job(self, key: str, job: Job, *, run: int, since: int) -> Seen[AddedOne]:
        """Write one job, its files in this folder."""
        return await self._see_through(
            partial(queries.add_one, key=key, job=job, run=run, since=since, folder=self._names)
        )

    async def draw(
        self, named: Named, after: Mapping[str, int], *, limit: int
    ) -> dict[str, list[JobRecord]]:
        """Draw pages of pending jobs, their files in this folder."""
        page = partial(queries.draw, named=named, after=after, limit=limit)
        return await self._ask(partial(page, folder=self._names))

    async def claim_parts(self, record: JobRecord, count: int, word: str = "") -> list[str]:
        """Claim names for a job's files in this folder."""
        return await self._ask(
            partial(claim_parts, record=record, count=count, folder=self._names, word=word)
        )

    async def changes(self) -> int:
        """Count rows that this connection has written."""
        return await self._ask(lambda connection: connection.total_changes)

    async def _ask(self, query: Query[T]) -> T:
        await self.durable()
        answer = await self._run(partial(self._transact, query))
        self._tell_full()
        return answer

    async def _see_through(self, query: Query[T]) -> Seen[T]:
        await self.durable()
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._thread, partial(self._transact, query))
        cut = None
        with anyio.CancelScope(shield=True):
            while not answer.done():
                try:
                    await asyncio.wait([answer])
                except asyncio.CancelledError as exc:  # a native one: no shield holds it off
                    cut = exc
        self._tell_full()
        return answer.result(), cut

    async def aclose(self) -> None:
        """Write what was appended and close; raises LedgerError if that fails."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self.durable()
        finally:
            # On the thread, behind whatever a cancelled call left there: an open, a query.
            await self._run(self._close)
            self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _schedule(self) -> None:
        if not self._scheduled and self._committing is None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._gather, GATHERED_TICKS)

    def _gather(self, ticks: int) -> None:
        """Hand over some ticks later: under load each brings more events, else they take no time.

        (Commits are a third fewer than at the end of the first.)
        """
        if ticks > 1:
            asyncio.get_running_loop().call_soon(self._gather, ticks - 1)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._scheduled = False
        batch, self._batch = self._batch, Batch()
        self._committing, self._waiters = self._waiters, []
        work = partial(self._transact, batch.write)
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(self._committed)

    def _committed(self, future: asyncio.Future[None]) -> None:
        waiters, self._committing = self._committing or [], None
        failure = _failure(future.exception())
        if failure is not None:
            self._failure = failure
            waiters = waiters + self._waiters
            self._waiters, self._batch = [], Batch()
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)
        self._tell_full()
        self._checkpoint_soon()
        if self._batch:
            self._schedule()

    def _tell_full(self) -> None:
        if self._ballast.spent and self._on_full is not None:
            folder = self._path.parent.parent
            self._on_full(DiskError(f"the disk of {folder} is full: make room, then run again"))

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _transact(self, query: Query[T]) -> T:
        try:
            return self._try_patiently(query)
        except LedgerFull:
            if not self._ballast.release():
                raise
            return self._try(query)

    def _try_patiently(self, query: Query[T]) -> T:
        """Wait for whoever else holds the ledger: answers that were paid for wait for it."""
        failures, until = 0, time.monotonic() + HELD_S
        while True:
            try:
                return self._try(query)
            except LedgerBusy:  # SQLite has waited for its own timeout by then
                if time.monotonic() > until:
                    raise
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


def _failure(exc: BaseException | None) -> LedgerError | None:
    """Keep waiters from hanging whatever a commit raised, a bug of ours included."""
    if exc is None or isinstance(exc, LedgerError):
        return exc
    error = LedgerError(f"the ledger could not write an event: {exc!r}")
    error.__cause__ = exc
    return error


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


def read(
    query: Callable[Concatenate[sqlite3.Connection, P], T],
) -> Callable[Concatenate[SqliteReader, P], T]:
    """A method that runs ``query`` at the reader's moment."""

    def ask(reader: SqliteReader, /, *args: P.args, **named: P.kwargs) -> T:
        with mapped(reader._path):
            return query(reader._connection, *args, **named)

    return ask


class SqliteReader:
    """One moment of a ledger in a file; methods are those of ``LedgerReader``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection

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


def origin_of(folder: Path) -> Origin:
    """Which provider a folder's predictions were bought from; raises LedgerError without ledger."""
    with reading(folder) as ledger:
        return ledger.origin() or Origin(provider="none", origin="none", simulated=False)


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
            yield SqliteReader(path, connection)
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        raise ledger_error(path, exc) from exc


BALLAST_BYTES = 4 * 1024 * 1024
"""Room for the answers of some hundred submits that are out when the disk runs full."""


class Ballast:
    """A file of no use but its size; released when the ledger finds the disk full."""

    def __init__(self, path: Path) -> None:
        self._path = path
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

    def release(self) -> bool:
        """Delete the file; False if there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        self.spent = True
        return True
