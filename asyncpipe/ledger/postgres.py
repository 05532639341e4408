"""The ledger of many workers: PostgreSQL, by psycopg; one schema of a database for each place."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.types.string import StrDumper
from psycopg_pool import ConnectionPool, PoolTimeout

from asyncpipe._tasks import seen_through, within
from asyncpipe.errors import LedgerError, UsageError
from asyncpipe.jobs import Job, JobRecord, JobState, now
from asyncpipe.ledger import purses, queries, runs, sharing
from asyncpipe.ledger.asset_names import NamesIn
from asyncpipe.ledger.commits import Committing, Query
from asyncpipe.ledger.connection import Connection, Cursor
from asyncpipe.ledger.errors import LedgerBusy
from asyncpipe.ledger.folder import Origin, check_origin
from asyncpipe.ledger.lease import Lease, is_gone, this_process
from asyncpipe.ledger.protocol import LedgerReader, Seen
from asyncpipe.ledger.reader import QueryReader
from asyncpipe.ledger.rows import (
    Added,
    AddedOne,
    Drawn,
    Fact,
    Interrupted,
    Look,
    Named,
    NotReserved,
    Repeated,
    Session,
    Standing,
    WorkerRow,
)
from asyncpipe.ledger.schema import SCHEMA_VERSION, TABLES, VIEWS
from asyncpipe.ledger.sharing import SharedBatch
from asyncpipe.ledger.write import Batch

logger = logging.getLogger("asyncpipe.ledger")

T = TypeVar("T")

P = ParamSpec("P")

AWAY_S = 3600.0
"""How long to wait for a database that is away, with answers in hand that were paid for, …"""

CLOSING_S = 60.0
"""… and at most from when somebody wants to leave: ids that cannot be written are logged then."""

STUCK_S = 5
"""A transaction that says nothing for so many seconds is ended, and tried again by who lives: a
worker that is stopped in it would hold up all others."""

OPENING_S = 30.0
"""The same when a ledger is opened."""

PAUSE_S = 0.5
"""How soon a database that is away is asked again."""

KNOWS_TRANSACTION_TIMEOUT, LONGEST_S = 170000, 60
"""The same for one that was stopped while it told the database what to do."""

CONNECTING_S = 10.0
"""Longest wait for one connection."""


class _StoredText(StrDumper):
    """Texts without what PostgreSQL's cannot hold: NUL, and halves of characters."""

    def dump(self, obj: str) -> bytes:
        """Put U+FFFD in its place."""
        return (
            obj.replace("\x00", "\ufffd")
            .encode("utf-8", "surrogatepass")
            .decode("utf-8", "replace")
            .encode()
        )


class _Whole(Loader):
    """Sums, which PostgreSQL counts as numeric: all of ours are whole."""

    def load(self, data: Any) -> int:
        """Read one."""
        return int(bytes(data))


@lru_cache(1000)
def _translated(query: str) -> str:
    """A query with psycopg's marks for values."""
    return query.replace("%", "%%").replace("?", "%s")


class PostgresConnection:
    """A connection as queries know it."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run a query."""
        return self.raw.execute(_translated(query), values)

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        """Run a query once with each set of values."""
        cursor = self.raw.cursor()
        cursor.executemany(_translated(query), rows)
        return cursor

    def insert(self, query: str, values: Sequence[Any]) -> int:
        """Insert one row; return its id."""
        (row,) = self.execute(f"{query} RETURNING id", values).fetchall()
        return int(row[0])

    def stream(self, query: str, values: Sequence[Any] = ()) -> Cursor:
        """Run a query whose rows come as they are read."""
        cursor = self.raw.cursor(f"asyncpipe_{time.monotonic_ns()}")
        cursor.itersize = 2000
        cursor.execute(_translated(query), values)
        return _Streamed(cursor)


class _Streamed:
    """The rows of a cursor in the server, which is closed after the last one is read."""

    rowcount = -1

    def __init__(self, cursor: psycopg.ServerCursor[Any]) -> None:
        self._cursor = cursor
        self.description = cursor.description

    def fetchone(self) -> Any:
        """The next row, or None."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return [*self]

    def __iter__(self) -> Iterator[Any]:
        with self._cursor:
            yield from self._cursor


def shown(url: str) -> str:
    """A database's address without what is secret in it."""
    hidden = re.sub(r"(?<=//)([^:/@?]*):[^@/?]*@", r"\1@", url)
    return re.sub(r"([?&](?:password|sslpassword|passfile)=)[^&]*", r"\1…", hidden)


class LedgerAway(LedgerBusy):
    """The database cannot be reached: what was to be written can be written later."""


_PASSING = ("starting up", "shutting down", "too many", "recovery", "remaining connection slots")

_AGAIN = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
    PoolTimeout,
)


@contextmanager
def _mapped(url: str) -> Iterator[None]:
    """Turn what psycopg raises into LedgerError."""
    try:
        yield
    except _AGAIN as exc:
        raise LedgerAway(
            f"the ledger {shown(url)} cannot be reached ({_first_line(exc)}): nothing recorded "
            "before is lost; when it is back, run the same command again"
        ) from exc
    except psycopg.Error as exc:
        raise LedgerError(f"the ledger {shown(url)} failed: {_first_line(exc)}") from exc


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0][:300] or type(exc).__name__


def connect(url: str) -> psycopg.Connection[Any]:
    """Make one connection; raises UsageError where waiting would not help, else LedgerAway."""
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=int(CONNECTING_S))
    except psycopg.ProgrammingError as exc:
        raise UsageError(f"--ledger {shown(url)} is no address: {_first_line(exc)}") from exc
    except psycopg.OperationalError as exc:
        text = str(exc)
        if "FATAL:" in text and not any(word in text for word in _PASSING):
            raise UsageError(
                f"the ledger {shown(url)} lets nobody in: {_first_line(exc)}: correct the user, "
                "the password or the database in --ledger (ASYNCPIPE_LEDGER)"
            ) from exc
        with _mapped(url):
            raise
    adapt(connection)
    return connection


def _configured(connection: psycopg.Connection[Any]) -> None:
    """Make a worker's connection one that holds nobody up, whatever becomes of the worker."""
    adapt(connection)
    connection.execute(
        f"SET idle_in_transaction_session_timeout = '{STUCK_S}s';"
        "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2;"
        "SET tcp_keepalives_count = 3"
    )
    if connection.info.server_version >= KNOWS_TRANSACTION_TIMEOUT:  # amid a row of statements
        connection.execute(f"SET transaction_timeout = '{LONGEST_S}s'")


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Have texts and sums as the ledger needs them."""
    connection.adapters.register_dumper(str, _StoredText)
    connection.adapters.register_loader("numeric", _Whole)


# -- places -------------------------------------------------------------------------------------

_PLACES = """
CREATE SCHEMA IF NOT EXISTS asyncpipe;
CREATE TABLE IF NOT EXISTS asyncpipe.places(
  id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name TEXT NOT NULL UNIQUE,
  version BIGINT NOT NULL, made_at TIMESTAMPTZ NOT NULL DEFAULT now(), settings TEXT)
"""

_MAKING = 0x6173796E63706970
"""The key of the advisory lock under which schemas are made."""

_TAKING_IN = 1
"""That of a place's own under which its jobs are written."""


def _postgres(table: str) -> str:
    """The same table in PostgreSQL's words."""
    identity = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
    words = {
        "id INTEGER PRIMARY KEY": f"id {identity}",
        "INTEGER": "BIGINT",
        " WITHOUT ROWID": "",
        "BLOB": "BYTEA",
        " REAL": " DOUBLE PRECISION",
    }
    for word, other in words.items():
        table = table.replace(word, other)
    return table


def _check_version(name: str, version: int) -> None:
    if version != SCHEMA_VERSION:
        older = version < SCHEMA_VERSION
        remedy = (
            "finish the place with the asyncpipe that wrote it, or choose another one with --place"
            if older
            else "install the asyncpipe that wrote it, or a newer one"
        )
        raise LedgerError(
            f"the place {name} in this ledger is of version {version}, this asyncpipe knows "
            f"{SCHEMA_VERSION}: {remedy}"
        )


def find_place(raw: psycopg.Connection[Any], name: str) -> str | None:
    """The schema of a place, or None where the database has none; raises LedgerError by version."""
    (there,) = raw.execute("SELECT to_regclass('asyncpipe.places')").fetchone() or (None,)
    if there is None:
        return None
    query = "SELECT id, version FROM asyncpipe.places WHERE name=%s"
    row = raw.execute(query, (name,)).fetchone()
    if row is None:
        return None
    _check_version(name, row[1])
    return f"asyncpipe_{row[0]}"


def make_place(raw: psycopg.Connection[Any], name: str) -> str:
    """The schema of a place, made where there is none."""
    if (schema := find_place(raw, name)) is not None:
        return schema
    with raw.transaction():
        raw.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
        raw.execute(_PLACES)
        if (schema := find_place(raw, name)) is not None:
            return schema
        query = "INSERT INTO asyncpipe.places(name, version) VALUES(%s, %s) RETURNING id"
        row = raw.execute(query, (name, SCHEMA_VERSION)).fetchone()
        assert row is not None, "it was inserted"
        schema = f"asyncpipe_{row[0]}"
        raw.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        raw.execute("SELECT set_config('search_path', %s, true)", (schema,))
        for statement in (*TABLES.split(";"), *sharing.TABLES.split(";")):
            if statement.strip():
                raw.execute(_postgres(statement))
        for view in VIEWS:
            raw.execute(view)
    return schema


# -- the ledger of a worker ---------------------------------------------------------------------


def in_turn(
    query: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[Connection, P], T]:
    """The same, by one worker at a time: what it reads of runs and rows stays so meanwhile."""

    def ask(connection: Connection, /, *args: P.args, **named: P.kwargs) -> T:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema()), ?)", (1,))
        return query(connection, *args, **named)

    return ask


class PostgresLedger(Committing):
    """A place's ledger while a worker holds a lease in it.

    ``on_gone`` is called in the loop with the ids of jobs that are no longer ours.
    """

    def __init__(
        self,
        url: str,
        place: str,
        folder: Path,
        *,
        lease_s: float,
        cap: int | None,
        budgets: Mapping[str, int],
        store: str,
        taken: NamesIn | None,
        on_gone: Callable[[Collection[int]], None],
    ) -> None:
        self._on_gone = on_gone
        self.store = store
        self.worker = 0
        super().__init__(folder, taken)
        self._url, self._place = url, place
        self._cap, self._budgets = cap, budgets
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None
        self.lease = Lease(lease_s, self._renew)

    def _new_batch(self) -> Batch:
        return SharedBatch(lambda: self.worker, self._on_gone, self.store)

    async def open(self, origin: Origin | None) -> None:
        """Enter the place as a worker.

        Raises LedgerError when the database cannot be reached, or has another version; UsageError
        when the address is wrong, or the place belongs to another ``origin``.
        """
        await self._run(partial(self._open, origin))

    def _open(self, origin: Origin | None) -> None:
        schema = patiently(partial(self._make), OPENING_S)
        self._pool = ConnectionPool(
            self._url,
            min_size=1,
            max_size=4,
            kwargs={
                "autocommit": True,
                "options": f"-c search_path={schema}",
                "connect_timeout": int(CONNECTING_S),
            },
            configure=_configured,
            timeout=CONNECTING_S,
            open=True,
        )

        def enter(connection: Connection) -> int:
            if origin is not None:
                check_origin(connection, origin, self._place)
            return sharing.begin_worker(
                connection,
                name=f"process {os.getpid()} on {socket.gethostname()}",
                machine=this_process(),
                lease_s=self.lease.lease_s,
                cap=self._cap,
                budgets=self._budgets,
            )

        at = self.lease.clock()
        self.worker = self._transact(in_turn(enter))
        self.lease.begin(at)

    def _make(self) -> str:
        with _mapped(self._url), connect(self._url) as raw:
            return make_place(raw, self._place)

    def _close(self) -> None:
        self.lease.close()
        if self._pool is not None:
            try:
                if self.worker and self._failure is None:
                    self._try(partial(sharing.end_worker, worker=self.worker))
            except LedgerBusy:
                pass  # the lease ends by itself
            finally:
                self._pool.close(timeout=CONNECTING_S)
                self._pool = None

    def _renew(self) -> None:
        self._try(partial(sharing.renew, worker=self.worker, lease_s=self.lease.lease_s))

    async def reserve(self, record: JobRecord, *, cap: int | None = None) -> NotReserved | None:
        """Write an intent, unless a cap or another worker is against it."""
        self._check()
        assert isinstance(self._batch, SharedBatch), "all our batches are"
        heard = self._batch.reserve(record, cap)
        self._schedule()
        cut = await seen_through(heard)
        refusal = heard.result()
        if cut is not None:
            if refusal is None:  # it is written: whoever asked has to say what became of it
                raise cut
            task = asyncio.current_task()
            assert task is not None, "who awaits is a task"
            task.cancel()  # told once more where it may end
        return refusal

    def release(self, job_id: int) -> None:
        """Let other workers have a job, once what was appended of it is written."""
        if self._failure is None and not self._closing:
            assert isinstance(self._batch, SharedBatch), "all our batches are"
            self._batch.release(job_id)
            self._schedule()

    def keep_facts(self, record: JobRecord) -> None:
        """Take what was found out of a job that is ours no more."""
        self._check()
        assert isinstance(self._batch, SharedBatch), "all our batches are"
        self._batch.keep_facts(record)
        self._schedule()

    async def begin_session(self, at: datetime) -> Seen[Session]:
        """Note that a process begins to work here; it shares the session of those that do."""
        return await self._see_through(partial(_begin_session, at=at, me=self.worker))

    async def start_run(self, at: datetime, *, session: int, job_file: str | None) -> int:
        """Note a run whose jobs are about to be written."""
        start = partial(runs.start_run, at=at, session=session, job_file=job_file)
        return await self._ask(in_turn(start))

    async def repeat_run(
        self, at: datetime, *, since: int, job_file: str | None, digest: str
    ) -> Repeated | None:
        """Note a run over the jobs of the last one."""
        repeat = partial(runs.repeat_run, at=at, since=since, job_file=job_file, digest=digest)
        return await self._ask(in_turn(repeat))

    async def end_pass(self, run: int, *, digest: str | None, jobs: int) -> int:
        """Note that all jobs of a run are written."""
        return await self._ask(in_turn(partial(_end_pass, run=run, digest=digest, jobs=jobs)))

    async def take_up(self, at: datetime, *, session: int, but: Collection[int] = ()) -> int | None:
        """Let a new run name what callers asked for."""
        return await self._ask(in_turn(partial(runs.take_up, at=at, session=session, but=but)))

    async def add_jobs(
        self, rows: Sequence[tuple[str, Job]], *, run: int, position: int
    ) -> Seen[Added]:
        """Write jobs as pending; nobody has them yet."""
        add = partial(queries.add_jobs, rows=rows, run=run, position=position)
        return await self._see_through(in_turn(add))

    async def add_job(self, key: str, job: Job, *, run: int, since: int) -> Seen[AddedOne]:
        """Write one job and claim it, unless another worker has it."""
        add = partial(
            sharing.add_one,
            key=key,
            job=job,
            run=run,
            since=since,
            folder=self._names,
            me=self.worker,
        )
        return await self._see_through(in_turn(add))

    async def pending_models(self, named: Named) -> list[str]:
        """The models that have pending jobs of a run."""
        return await self._ask(partial(sharing.pending_models, named=named))

    async def named_of(self, ids: Iterable[int], named: Named) -> set[int]:
        """Those of ``ids`` that a run names."""
        return await self._ask(partial(sharing.named_of, ids=list(ids), named=named))

    async def draw(
        self,
        named: Named,
        after: Mapping[str, Drawn],
        *,
        limit: int,
        held: Collection[int] = (),
        fair: bool = False,
    ) -> dict[str, list[JobRecord]]:
        """Claim pages of pending jobs."""
        return await self._ask(
            partial(
                sharing.draw,
                named=named,
                models=list(after),
                limit=limit,
                held=held,
                fair=fair,
                folder=self._names,
                me=self.worker,
            )
        )

    async def take(
        self, states: Collection[JobState], *, but: Collection[int] = ()
    ) -> list[JobRecord]:
        """Claim every job in one of ``states`` that nobody else has."""
        return await self._ask(partial(sharing.take, states=states, but=but, me=self.worker))

    async def claim(self, ids: Collection[int]) -> list[JobRecord]:
        """Claim those of ``ids`` that nobody else has; return those that are ours."""
        return await self._ask(partial(sharing.claim, ids=ids, me=self.worker))

    async def interrupted(self, *, but: Collection[int] = ()) -> list[Interrupted]:
        """Claim jobs that are being submitted by nobody any more."""
        return await self._ask(partial(sharing.interrupted, but=but, me=self.worker, gone=is_gone))

    async def orphans(self, *, but: Collection[int], limit: int) -> list[JobRecord]:
        """Claim pending jobs of workers that live no more."""
        return await self._ask(partial(sharing.orphans, but=but, limit=limit, me=self.worker))

    async def standing(self, shard: int | None) -> Standing:
        """How the jobs of a shard stand, or all of them."""
        return await self._ask(partial(sharing.standing, shard=shard, me=self.worker))

    async def look(
        self,
        *,
        held: Collection[int],
        left: Collection[int],
        awaited: Collection[int],
        runs: Sequence[Named],
        news: str,
    ) -> Look:
        """What became of the work that others share."""
        look = partial(sharing.look, held=held, left=left, awaited=awaited, runs=runs)
        return await self._ask(partial(look, me=self.worker, news=news, today=now().date()))

    async def adopted(self, fact: Fact) -> None:
        """Note that a fact is in its job's record."""
        await self._ask(partial(sharing.adopted, fact=fact))

    async def working_on(self, job_file: str | None, digest: str) -> str | None:
        """Note which jobs we were given; who is at work on others here, or None."""
        work = partial(sharing.working_on, me=self.worker, job_file=job_file, digest=digest)
        return await self._ask(in_turn(work))

    async def serve(self, shard: int | None) -> None:
        """Note which shard a queue has given us."""
        await self._ask(partial(sharing.serve, worker=self.worker, shard=shard))

    async def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep what the workers of a queue have to know."""
        text = orjson.dumps(settings).decode()
        await self._ask(partial(sharing.keep_settings, place=self._place, settings=text))

    async def set_shards(self, named: Named, size: int) -> list[int]:
        """Part the jobs of a run into shards; return those with work to do."""
        return await self._ask(in_turn(partial(sharing.set_shards, named=named, size=size)))

    async def shrink(self) -> None:
        """Nothing: the database reuses the space by itself."""

    async def changes(self) -> int:
        """Count our commits, and what is written in the database: others write, too."""
        query = "SELECT pg_current_xact_id()::text::bigint"
        return await self._ask(lambda connection: int(connection.execute(query).fetchone()[0]))

    def searching(self) -> AbstractAsyncContextManager[None]:
        """Look for lost submits alone: what is found by two workers would be adopted twice."""
        return self._alone("search")

    def taking_in(self) -> AbstractAsyncContextManager[None]:
        """Write the jobs of a run alone: rows bear the run that named them last."""
        return self._alone("pass")

    @asynccontextmanager
    async def _alone(self, what: str) -> AsyncIterator[None]:
        # No lock of the database: who is stopped, or gone without a word, would hold it on.
        while True:
            if await self._ask(partial(sharing.begin_turn, what=what, me=self.worker)):
                break
            await asyncio.sleep(PAUSE_S)
        try:
            yield
        finally:
            await within(partial(self._end_turn, what))

    async def _end_turn(self, what: str) -> None:
        with suppress(LedgerError):  # then the end of the lease ends it
            await self._ask(partial(sharing.end_turn, what=what, me=self.worker))

    # -- transactions ---------------------------------------------------------------------------

    def _transact(self, query: Query[T]) -> T:
        since = time.monotonic()
        while True:
            try:
                answer = self._try(query)
                self.trouble = None
                return answer
            except LedgerBusy as exc:
                most_s = CLOSING_S if self._closing else AWAY_S
                if time.monotonic() - since > most_s:
                    raise
                self._waits(exc)
                time.sleep(PAUSE_S)

    def _try(self, query: Query[T]) -> T:
        assert self._pool is not None, "the ledger is not open"
        with _mapped(self._url), self._pool.connection() as raw:
            raw.execute("BEGIN")
            try:
                answer = query(PostgresConnection(raw))
                raw.execute("COMMIT")
            except BaseException:
                if not raw.closed:
                    raw.execute("ROLLBACK")
                raise
            return answer


def patiently(attempt: Callable[[], T], most_s: float) -> T:
    """Try as long as the database is away, at most so many seconds."""
    until = time.monotonic() + most_s
    while True:
        try:
            return attempt()
        except LedgerBusy:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)


def _begin_session(connection: Connection, at: datetime, me: int) -> Session:
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema()), ?)", (_TAKING_IN,))
    begun = runs.begin_session(connection, at)
    return sharing.shared_session(connection, begun, me)


def _end_pass(connection: Connection, run: int, *, digest: str | None, jobs: int) -> int:
    changed = runs.end_pass(connection, run, digest=digest, jobs=jobs)
    purses.forget_labels(connection)  # last: nobody can spend meanwhile
    return changed


# -- reading ------------------------------------------------------------------------------------


class PostgresReader(QueryReader):
    """One moment of a place."""

    def workers(self) -> list[WorkerRow]:
        """The workers that hold a lease, or jobs."""
        with self.mapped():
            return sharing.workers(self.connection)


@contextmanager
def read_place(url: str, place: str) -> Iterator[LedgerReader]:
    """Open a place read-only: one moment of it; raises LedgerError when there is none."""
    with patiently(partial(connect, url), OPENING_S) as raw, _mapped(url):
        schema = find_place(raw, place)
        if schema is None:
            raise LedgerError(
                f"{shown(url)} has no place {place}: no run has used it as its output place"
            )
        raw.execute("SELECT set_config('search_path', %s, false)", (schema,))
        raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield PostgresReader(PostgresConnection(raw), partial(_mapped, url))
        raw.execute("ROLLBACK")


def place_names(url: str) -> list[str]:
    """The names of all places in a database."""
    with patiently(partial(connect, url), OPENING_S) as raw, _mapped(url):
        (there,) = raw.execute("SELECT to_regclass('asyncpipe.places')").fetchone() or (None,)
        if there is None:
            return []
        rows = raw.execute("SELECT name FROM asyncpipe.places ORDER BY id").fetchall()
        return [str(name) for (name,) in rows]


def place_settings(url: str, place: str) -> dict[str, Any] | None:
    """What was kept for the workers of a place, or None where there is none."""
    with patiently(partial(connect, url), OPENING_S) as raw, _mapped(url):
        if find_place(raw, place) is None:
            return None
        query = "SELECT settings FROM asyncpipe.places WHERE name=%s"
        (settings,) = raw.execute(query, (place,)).fetchone() or (None,)
        return dict(orjson.loads(settings or "{}"))


@asynccontextmanager
async def open_place(
    url: str,
    place: str,
    folder: Path,
    origin: Origin | None,
    *,
    lease_s: float = 30.0,
    cap: int | None = None,
    budgets: Mapping[str, int] | None = None,
    store: str = "",
    taken: NamesIn | None = None,
    on_gone: Callable[[Collection[int]], None] = lambda ids: None,
) -> AsyncIterator[PostgresLedger]:
    """Enter a place as a worker; leave it, and all claims, at the end.

    Raises LedgerError when the database cannot be reached, or has another version; UsageError when
    the address is wrong, or the place belongs to another ``origin``.
    """
    ledger = PostgresLedger(
        url,
        place,
        folder,
        lease_s=lease_s,
        cap=cap,
        budgets=budgets or {},
        store=store,
        taken=taken,
        on_gone=on_gone,
    )
    try:
        await ledger.open(origin)
        yield ledger
    finally:
        await within(ledger.aclose)
