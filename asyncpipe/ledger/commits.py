"""A ledger's face over one writer thread: natural group commit, and the queries behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from asyncpipe._tasks import seen_through as seen_to_end
from asyncpipe.errors import LedgerError, own_copy
from asyncpipe.jobs import Job, JobRecord, now
from asyncpipe.ledger import accounts, purses, queries, retention, runs
from asyncpipe.ledger.asset_names import FolderNames, NamesIn, claim_parts
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.folder import note_account
from asyncpipe.ledger.protocol import Seen
from asyncpipe.ledger.rows import AddedOne, Drawn, Named
from asyncpipe.ledger.write import Batch

T = TypeVar("T")

P = ParamSpec("P")

Query = Callable[[Connection], T]


def asked(
    query: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[Committing, P], Coroutine[Any, Any, T]]:
    """A method that runs ``query`` in a transaction, after all that was appended."""

    async def ask(ledger: Committing, /, *args: P.args, **named: P.kwargs) -> T:
        return await ledger._ask(lambda connection: query(connection, *args, **named))

    return ask


def seen_through(
    query: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[Committing, P], Coroutine[Any, Any, Seen[T]]]:
    """The same; once begun, its answer comes even if cancelled, the cancellation with it."""

    async def ask(ledger: Committing, /, *args: P.args, **named: P.kwargs) -> Seen[T]:
        return await ledger._see_through(lambda connection: query(connection, *args, **named))

    return ask


logger = logging.getLogger("asyncpipe.ledger")

SAID_EVERY_S = 60.0
"""What is waited for is said at once, and then so often."""

GATHERED_TICKS = 3
"""After how many ticks of the loop what was appended goes to the writer thread."""


class Committing:
    """A ledger over one writer thread.

    The appends of a few loop ticks travel to the thread as one list; while that commits, the next
    list grows. Methods are those of ``Ledger``; a store says how a transaction is made
    (``_transact``, on the thread), and hears in the loop of every commit (``_after_commit``).
    """

    def __init__(self, folder: Path, taken: NamesIn | None = None) -> None:
        self._names = FolderNames(folder, taken)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="asyncpipe-ledger")
        self._batch = self._new_batch()
        self._waiters: list[asyncio.Future[None]] = []
        self._committing: list[asyncio.Future[None]] | None = None
        self._scheduled = False
        self._failure: LedgerError | None = None
        self.trouble: tuple[LedgerError, datetime] | None = None
        self._said = 0.0
        self._closing = False

    # -- what a store adds ----------------------------------------------------------------------

    def _new_batch(self) -> Batch:
        return Batch()

    def _transact(self, query: Query[T]) -> T:
        """Run a query in a transaction, as often as it takes; raises LedgerError."""
        raise NotImplementedError

    def _waits(self, error: LedgerError) -> None:
        """Note, on the thread, what is waited for, and say it about once a minute."""
        clock = time.monotonic()
        if self.trouble is None or clock - self._said >= SAID_EVERY_S:
            self._said = clock
            logger.warning("waiting: %s", error, extra={"action": "ledger.waiting"})
        since = now() if self.trouble is None else self.trouble[1]
        self.trouble = (error, since)

    def _after_commit(self) -> None:
        """Hear that a transaction has ended, well or not."""

    def _close(self) -> None:
        """Let go of the store, on the thread."""
        raise NotImplementedError

    def _check(self) -> None:
        """Raise what a commit failed of, if one has."""
        if self._failure is not None:
            raise own_copy(self._failure)

    # -- what is written ------------------------------------------------------------------------

    def append(self, record: JobRecord, *, held: bool = False) -> None:
        """Take ``record`` to be written; raises LedgerError."""
        self._check()
        self._batch.add(record, held=held)
        self._schedule()

    async def durable(self) -> None:
        """Wait until everything appended so far is on disk; raises LedgerError if it is not."""
        self._check()
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
    find = asked(queries.find)
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
    record_by_idempotency_key = asked(queries.record_by_idempotency_key)
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
    spent_on = asked(purses.spent_on)
    result = asked(accounts.result)
    results_page = asked(accounts.results_page)
    open_work = asked(accounts.open_work)
    prunable = asked(retention.prunable)
    unpruned = asked(retention.unpruned)
    stored = asked(retention.stored)
    prune = asked(retention.prune)

    async def add_job(self, key: str, job: Job, *, run: int, since: int) -> Seen[AddedOne]:
        """Write one job, its files in this folder."""
        return await self._see_through(
            partial(queries.add_one, key=key, job=job, run=run, since=since, folder=self._names)
        )

    async def draw(
        self,
        named: Named,
        after: Mapping[str, Drawn],
        *,
        limit: int,
        held: Collection[int] = (),
        fair: bool = False,
    ) -> dict[str, list[JobRecord]]:
        """Draw pages of pending jobs, their files in this folder."""
        page = partial(queries.draw, named=named, after=after, limit=limit)
        return await self._ask(partial(page, folder=self._names))

    async def claim_parts(self, record: JobRecord, count: int, word: str = "") -> list[str]:
        """Claim names for a job's files in this folder."""
        return await self._ask(
            partial(claim_parts, record=record, count=count, folder=self._names, word=word)
        )

    async def _ask(self, query: Query[T]) -> T:
        await self.durable()
        answer = await self._run(partial(self._transact, query))
        self._after_commit()
        return answer

    async def _see_through(self, query: Query[T]) -> Seen[T]:
        await self.durable()
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._thread, partial(self._transact, query))
        cut = await seen_to_end(answer)
        self._after_commit()
        return answer.result(), cut

    async def aclose(self) -> None:
        """Write what was appended and close; raises LedgerError if that fails."""
        self._closing = True
        try:
            await self.durable()
        finally:
            # On the thread, behind whatever a cancelled call left there: an open, a query.
            await self._run(self._close)
            self._thread.shutdown(wait=False)

    # -- group commit ---------------------------------------------------------------------------

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
        batch, self._batch = self._batch, self._new_batch()
        self._committing, self._waiters = self._waiters, []
        work = partial(self._transact, batch.write)
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(partial(self._committed, batch))

    def _committed(self, batch: Batch, future: asyncio.Future[None]) -> None:
        waiters, self._committing = self._committing or [], None
        failure = _failure(future.exception())
        if failure is not None:
            self._failure = failure
            waiters = waiters + self._waiters
            batch.fail(failure)
            self._batch.fail(failure)
            self._waiters, self._batch = [], self._new_batch()
        else:
            batch.tell()
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(own_copy(failure))
        self._after_commit()
        if self._batch:
            self._schedule()

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _failure(exc: BaseException | None) -> LedgerError | None:
    """Keep waiters from hanging whatever a commit raised, a bug of ours included."""
    if exc is None or isinstance(exc, LedgerError):
        return exc
    error = LedgerError(f"the ledger could not write an event: {exc!r}")
    error.__cause__ = exc
    return error
