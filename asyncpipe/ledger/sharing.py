"""A ledger that many workers hold: who has which job, what was learned of others' jobs, one cap.

A worker is a process that holds a lease. It claims the jobs that it works on; what it intends, and
where its jobs stand, is written only while it has them. Facts (a prediction was bought under this
id) are kept whoever has the job by then, for its worker to adopt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import Enum, auto
from itertools import chain, islice
from typing import Any

from asyncpipe.errors import LedgerError, own_copy
from asyncpipe.jobs import ENDED, PAID_OPEN, Job, JobRecord, JobState, Settled
from asyncpipe.ledger import purses, queries
from asyncpipe.ledger.accounts import removed
from asyncpipe.ledger.asset_names import FolderNames, claim_stems
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.queries import NAMED, read_records
from asyncpipe.ledger.rows import (
    AddedOne,
    Fact,
    Interrupted,
    Look,
    Named,
    NotReserved,
    Session,
    Spent,
    Standing,
    WorkerNews,
    WorkerRow,
)
from asyncpipe.ledger.write import Batch, job_row, outdated, text_of

TABLES = """
CREATE TABLE workers(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  machine TEXT NOT NULL, lease_s REAL NOT NULL, lease_until TIMESTAMPTZ NOT NULL,
  ended_at TIMESTAMPTZ,
  cap INTEGER, budgets TEXT NOT NULL DEFAULT '{}', job_file TEXT, digest TEXT, shard INTEGER,
  news TEXT NOT NULL DEFAULT '{}', learned_at TIMESTAMPTZ);
CREATE TABLE facts(
  job_id INTEGER NOT NULL, n INTEGER NOT NULL, prediction_id TEXT NOT NULL, route TEXT NOT NULL,
  told_by INTEGER NOT NULL, told_at TEXT NOT NULL, adopted INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(job_id, n, prediction_id));
CREATE TABLE spent(
  one INTEGER PRIMARY KEY, committed INTEGER NOT NULL, purses INTEGER NOT NULL DEFAULT 0);
INSERT INTO spent VALUES(1, 0);
CREATE TABLE purses(name TEXT PRIMARY KEY, committed INTEGER NOT NULL);
CREATE TABLE turns(what TEXT PRIMARY KEY, worker INTEGER);
INSERT INTO turns VALUES('search', NULL), ('pass', NULL);
ALTER TABLE jobs ADD COLUMN worker BIGINT;
ALTER TABLE jobs ADD COLUMN last_worker BIGINT;
ALTER TABLE jobs ADD COLUMN shard BIGINT;
ALTER TABLE jobs ADD COLUMN committed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX jobs_by_worker ON jobs(worker) WHERE worker IS NOT NULL;
CREATE INDEX jobs_by_shard ON jobs(shard) WHERE shard IS NOT NULL;
CREATE INDEX attempts_reserved ON attempts(job_id) WHERE reserved>0;
"""
"""What a shared ledger has besides: who holds a job now, who held it or wrote it last, its share of
what is spent."""

# No lease could be renewed while the database was away: then all begin anew when it is back.
_LEASE = "greatest(lease_until, pg_postmaster_start_time() + make_interval(secs => lease_s))"
LIVE = f"SELECT id FROM workers WHERE ended_at IS NULL AND {_LEASE} > clock_timestamp()"

_FREE = f"(worker IS NULL OR (worker<>? AND worker NOT IN ({LIVE})))"
"""Nobody has the job, or a worker that lives no more; the value is our own id."""

_UNENDED = sorted(state.value for state in JobState if state not in ENDED)


LOOKING = 2
"""The key of the advisory lock, a place's own, under which workers tell and hear news."""


class Writing(Enum):
    """What becomes of a record that is to be written."""

    WRITE = auto()
    WRITTEN = auto()  # by a commit whose answer was lost
    GONE = auto()  # another worker has the job, or had it


@dataclass(frozen=True, slots=True)
class Stand:
    """How a job stands in the ledger, for who is about to write it."""

    version: int
    worker: int | None  # who holds it
    last: int | None  # who held it, or wrote it, last
    live: bool  # whether who holds it lives
    committed: int


def judge(
    record: JobRecord, base: int, stands: Stand, *, me: int, held: bool, again: bool
) -> Writing:
    """Say whether ``record`` may be written; pure.

    ``base`` is the version that its first event was folded into, ``held``: it is of a job that we
    hold, as far as we know; ``again``: a commit of it may have been made already. Raises
    LedgerError where our own writes are out of order.
    """
    if stands.last == me:  # nobody else has written since
        if again and stands.version == record.version:
            return Writing.WRITTEN
        if stands.version >= record.version:
            raise outdated(record, stands.version)
        return Writing.WRITE
    # Versions that were counted beside another worker's say nothing.
    if held or stands.live or stands.version != base:
        return Writing.GONE
    return Writing.WRITE


_STAND = f"""
SELECT id, version, worker, last_worker, coalesce(worker IN ({LIVE}), false), committed
FROM jobs WHERE id = ANY(?) ORDER BY id FOR UPDATE
"""

_JOB = (
    "UPDATE jobs SET state=?, used=?, failures=?, attempt=?, version=?, committed=?,"
    " last_worker=?, worker=CASE ? WHEN 'held' THEN ? WHEN 'free' THEN NULL ELSE worker END"
    " WHERE id=?"
)

_CAPS = f"""
SELECT committed, (SELECT min(cap) FROM workers WHERE id IN ({LIVE})), (
  SELECT string_agg(DISTINCT budgets, chr(10)) FROM workers
  WHERE budgets<>'{{}}' AND id IN ({LIVE}))
FROM spent
"""
"""What is spent, the lowest cap of live workers, and their budgets, one worker's a line."""

# An empty id says that the submit surely bought nothing.
_FACT = """
INSERT INTO facts(job_id, n, prediction_id, route, told_by, told_at) SELECT ?, ?, ?, ?, ?, ?
WHERE NOT EXISTS(SELECT 1 FROM attempts WHERE job_id=? AND n=? AND prediction_id=?)
ON CONFLICT DO NOTHING
"""


class SharedBatch(Batch):
    """What one commit writes into a ledger that others write into, too.

    What belongs to another worker by now is not written, but for its facts; ``gone`` hears of such
    jobs in the loop. Intents are weighed one by one against the lowest cap of all live workers.
    """

    def __init__(
        self, me: Callable[[], int], gone: Callable[[Collection[int]], None], store: str
    ) -> None:
        super().__init__(store)
        self._me, self._tell_gone = me, gone
        self._first: dict[int, tuple[int, bool]] = {}
        self._reserving: dict[int, asyncio.Future[NotReserved | None]] = {}
        self._caps: dict[int, int | None] = {}
        self._released: list[int] = []
        self._facts: list[JobRecord] = []
        self._tries = 0
        self.gone: list[int] = []
        self.refused: dict[int, NotReserved] = {}
        self.committed: int | None = None

    def __bool__(self) -> bool:
        return bool(self._records or self._released or self._facts)

    def add(self, record: JobRecord, *, held: bool = False) -> None:
        """Take a record in place of an older one; raises LedgerError for one that is older."""
        super().add(record)
        self._first.setdefault(record.id, (record.version - 1, held))

    def reserve(self, record: JobRecord, cap: int | None) -> asyncio.Future[NotReserved | None]:
        """Take an intent; the future has why it was refused, or None."""
        self.add(record, held=True)
        heard: asyncio.Future[NotReserved | None] = asyncio.get_running_loop().create_future()
        self._reserving[record.id], self._caps[record.id] = heard, cap
        return heard

    def release(self, job_id: int) -> None:
        """Let others have a job, once what stands before is written."""
        self._released.append(job_id)

    def keep_facts(self, record: JobRecord) -> None:
        """Take what was found out of a job that is ours no more."""
        self._facts.append(record)

    def write(self, connection: Connection) -> None:
        """Write what is ours; raises LedgerError where a row is not there."""
        again, self._tries = self._tries > 0, self._tries + 1
        me = self._me()
        self.gone, self.refused = [], {}
        standing = self._lock(connection)
        ours: list[JobRecord] = []
        others: list[JobRecord] = []
        for job_id, record in self._records.items():
            if (stands := standing.get(job_id)) is None:
                raise LedgerError(f"there is no job {job_id} in this ledger")
            base, held = self._first[job_id]
            verdict = judge(record, base, stands, me=me, held=held, again=again)
            if verdict is Writing.WRITE:
                ours.append(record)
            elif verdict is Writing.GONE:
                others.append(record)
        before = {record.id: standing[record.id].committed for record in ours}
        had = purses.before(connection, ours, before)
        if self._reserving:
            ours = self._afford(connection, ours, before, had)
        rows = [(*job_row(r)[:5], r.committed, me, *_holder(r, me), r.id) for r in ours]
        if rows:
            connection.executemany(_JOB, rows)
            self._write_attempts(connection, ours)
            self._write_assets(connection, ours)
        self._keep_facts(connection, [*others, *self._facts], me)
        self.gone = [record.id for record in others]
        if self._released:
            query = "UPDATE jobs SET worker=NULL WHERE id = ANY(?) AND worker=?"
            connection.execute(query, (self._released, me))
        # Last: whoever writes waits for this row, and no longer than for the commit.
        changed = [r for r in ours if r.committed != before[r.id] or len(had[r.id].by_day) > 1]
        added = sum(record.committed - before[record.id] for record in ours)
        if added or changed:
            query = "UPDATE spent SET committed=committed+? RETURNING committed, purses"
            self.committed, kept = connection.execute(query, (added,)).fetchone()
            if kept:
                purses.keep(connection, changed, had)

    def _lock(self, connection: Connection) -> dict[int, Stand]:
        if not self._records:
            return {}
        rows = connection.execute(_STAND, (sorted(self._records),))
        return {
            job_id: Stand(version, worker, last, live, committed)
            for job_id, version, worker, last, live, committed in rows
        }

    def _afford(
        self,
        connection: Connection,
        ours: list[JobRecord],
        before: Mapping[int, int],
        had: Mapping[int, purses.Before],
    ) -> list[JobRecord]:
        """Leave out the intents that would go beyond the cap, or a budget of theirs."""
        total, lowest, told = connection.execute(f"{_CAPS} FOR UPDATE").fetchone()
        weighing = purses.Weighing(connection, purses.lowest((told or "").splitlines()))
        added = {r.id: r.committed - before[r.id] for r in ours}
        for record in ours:
            if record.id not in self._reserving:
                total += added[record.id]
                weighing.count(had[record.id], record)
        kept = []
        for record in ours:
            if record.id in self._reserving:
                caps = [cap for cap in (lowest, self._caps[record.id]) if cap is not None]
                if caps and total + added[record.id] > min(caps):
                    self.refused[record.id] = NotReserved.CAP
                    continue
                if not weighing.fits(had[record.id], record):
                    self.refused[record.id] = NotReserved.PURSE
                    continue
                total += added[record.id]
                weighing.count(had[record.id], record)
            kept.append(record)
        return kept

    def _keep_facts(self, connection: Connection, others: Sequence[JobRecord], me: int) -> None:
        facts = [
            (record.id, each.n, each.prediction_id or "", each.route, me, _when(each.submitted_at))
            for record in others
            for each in (record.attempt, *record.earlier)
            if each.prediction_id or (each.settled is Settled.ABSENT and each.lost_at is None)
        ]
        if facts:
            connection.executemany(_FACT, [(*fact, *fact[:3]) for fact in facts])

    def tell(self) -> None:
        """Say what was refused, and what is no longer ours."""
        gone = set(self.gone)
        for job_id, heard in self._reserving.items():
            if heard.done():
                continue
            refusal = NotReserved.ANOTHERS if job_id in gone else None
            heard.set_result(self.refused.get(job_id, refusal))
        if gone:
            self._tell_gone(self.gone)

    def fail(self, error: LedgerError) -> None:
        """Say that nothing is known of the intents."""
        for heard in self._reserving.values():
            if not heard.done():
                heard.set_exception(own_copy(error))


def _when(at: datetime | None) -> str:
    return text_of(at) if at else ""


def _holder(record: JobRecord, me: int) -> tuple[str, int]:
    """Whose the job is from then on: ended ones are nobody's, pending ones stay whose they are."""
    if record.state is JobState.PENDING:
        return "same", me
    unknown = record.state is JobState.UNKNOWN
    return ("free" if record.state in ENDED and not unknown else "held"), me


# -- workers ------------------------------------------------------------------------------------


def begin_worker(
    connection: Connection,
    *,
    name: str,
    machine: str,
    lease_s: float,
    cap: int | None,
    budgets: Mapping[str, int],
) -> int:
    """Enter a worker; return its id."""
    query = (
        "INSERT INTO workers(name, machine, lease_s, lease_until, cap, budgets)"
        " VALUES(?, ?, ?, clock_timestamp() + make_interval(secs => ?), ?, ?) RETURNING id"
    )
    values = (name, machine, lease_s, lease_s, cap, purses.written(budgets))
    (worker,) = connection.execute(query, values).fetchone()
    return int(worker)


def renew(connection: Connection, worker: int, lease_s: float) -> None:
    """Let a worker's lease begin anew."""
    query = "UPDATE workers SET lease_until=clock_timestamp()+make_interval(secs => ?) WHERE id=?"
    connection.execute(query, (lease_s, worker))


def serve(connection: Connection, worker: int, shard: int | None) -> None:
    """Note which shard a queue has given a worker."""
    connection.execute("UPDATE workers SET shard=? WHERE id=?", (shard, worker))


def end_worker(connection: Connection, worker: int) -> None:
    """Let others have all that a worker has."""
    connection.execute("UPDATE jobs SET worker=NULL WHERE worker=?", (worker,))
    connection.execute("UPDATE workers SET ended_at=clock_timestamp() WHERE id=?", (worker,))


def working_on(connection: Connection, me: int, job_file: str | None, digest: str) -> str | None:
    """Note which jobs a worker was given; the name of a live one with other jobs, or None."""
    query = (
        f"SELECT name FROM workers WHERE id IN ({LIVE}) AND id<>? AND digest IS NOT NULL"
        " AND digest<>? ORDER BY id LIMIT 1"
    )
    row = connection.execute(query, (me, digest)).fetchone()
    if row is not None:
        return str(row[0])
    query = "UPDATE workers SET job_file=?, digest=? WHERE id=?"
    connection.execute(query, (job_file, digest, me))
    return None


def workers(connection: Connection) -> list[WorkerRow]:
    """The workers that live, or died without a word, by id."""
    rows = connection.execute(
        f"SELECT w.id, name, started_at, {_LEASE} - clock_timestamp(), shard,"
        " (SELECT count(*) FROM jobs WHERE worker=w.id)"
        " FROM workers w WHERE ended_at IS NULL ORDER BY w.id"
    )
    return [
        WorkerRow(id=i, name=name, started_at=at, left_s=left.total_seconds(), shard=shard, jobs=n)
        for i, name, at, left, shard, n in rows
        if n or left.total_seconds() > 0
    ]


def shared_session(connection: Connection, begun: Session, me: int) -> Session:
    """Let a session that has just begun be one with those of workers that are at it."""
    others = f"SELECT 1 FROM workers WHERE id IN ({LIVE}) AND id<>? LIMIT 1"
    if connection.execute(others, (me,)).fetchone() is None:
        return begun
    query = "SELECT max(session) FROM runs WHERE id<?"
    (session,) = connection.execute(query, (begun.id,)).fetchone()
    if session is None:
        return begun
    connection.execute("UPDATE runs SET session=? WHERE id=?", (session, begun.id))
    return Session(id=begun.id, since=session, removed=removed(connection))


def begin_turn(connection: Connection, what: str, *, me: int) -> bool:
    """Take the turn at what one worker does at a time; False where another that lives has it."""
    query = (
        "UPDATE turns SET worker=? WHERE what=?"
        f" AND (worker IS NULL OR worker=? OR worker NOT IN ({LIVE}))"
    )
    return connection.execute(query, (me, what, me)).rowcount > 0


def end_turn(connection: Connection, what: str, *, me: int) -> None:
    """Let others have the turn."""
    connection.execute("UPDATE turns SET worker=NULL WHERE what=? AND worker=?", (what, me))


# -- claims -------------------------------------------------------------------------------------


def add_one(
    connection: Connection,
    *,
    key: str,
    job: Job,
    run: int,
    since: int,
    folder: FolderNames,
    me: int,
) -> AddedOne:
    """Write one job unless it is there, and claim it where it has not ended and is nobody's."""
    one = queries.add_one(connection, key=key, job=job, run=run, since=since, folder=folder)
    if one.conflict or one.record.state in ENDED:
        return one
    ours = claim(connection, [one.record.id], me=me)
    return replace(one, record=ours[0] if ours else one.record, elsewhere=not ours)


def take(
    connection: Connection, states: Collection[JobState], *, but: Collection[int], me: int
) -> list[JobRecord]:
    """Claim every job in one of ``states`` that nobody else has; ours are among them."""
    words = [state.value for state in states]
    # Locked rows are being written by whoever has them.
    chosen = (
        f"SELECT id FROM jobs WHERE state = ANY(?) AND NOT id = ANY(?) AND (worker=? OR {_FREE})"
        " FOR UPDATE SKIP LOCKED"
    )
    connection.execute(
        f"UPDATE jobs SET worker=?, last_worker=? WHERE id IN ({chosen})",
        (me, me, words, [*but], me, me),
    )
    ours = "WHERE state = ANY(?) AND NOT id = ANY(?) AND worker=? ORDER BY id"
    return read_records(connection, ours, (words, [*but], me))


def interrupted(
    connection: Connection, *, but: Collection[int], me: int, gone: Callable[[str], bool]
) -> list[Interrupted]:
    """Claim jobs that are being submitted by nobody any more; ``gone``: a process surely is."""
    rows = connection.execute(
        "SELECT jobs.id, w.machine, w.lease_until, ended_at FROM jobs"
        " LEFT JOIN workers w ON w.id=jobs.worker"
        f" WHERE state='submitting' AND NOT jobs.id = ANY(?) AND {_FREE}"
        " ORDER BY jobs.id FOR UPDATE OF jobs SKIP LOCKED",
        ([*but], me),
    ).fetchall()
    until = {
        job_id: None if ended_at or machine is None or gone(machine) else lease_until
        for job_id, machine, lease_until, ended_at in rows
    }
    return [
        Interrupted(record=record, lease_ended_at=until[record.id])
        for record in claim(connection, list(until), me=me)
    ]


def orphans(
    connection: Connection, *, but: Collection[int], limit: int, me: int
) -> list[JobRecord]:
    """Claim so many pending jobs of workers that live no more; their stems are fixed already.

    With a limit of 0 they are nobody's from now on. So are those that have ended.
    """
    free = [JobState.PENDING.value] * (limit == 0) + [state.value for state in ENDED]
    query = (
        "UPDATE jobs SET worker=NULL WHERE id IN (SELECT id FROM jobs WHERE worker<>? AND worker"
        f" NOT IN ({LIVE}) AND state = ANY(?) FOR UPDATE SKIP LOCKED)"
    )
    connection.execute(query, (me, free))
    query = (
        f"SELECT id FROM jobs WHERE state='pending' AND stem IS NOT NULL AND NOT id = ANY(?)"
        f" AND worker<>? AND worker NOT IN ({LIVE}) ORDER BY id LIMIT ? FOR UPDATE SKIP LOCKED"
    )
    ids = [row[0] for row in connection.execute(query, ([*but], me, limit))]
    return claim(connection, ids, me=me)


def standing(connection: Connection, *, shard: int | None, me: int) -> Standing:
    """How the jobs of a shard stand, or all of them."""
    rows = connection.execute(
        f"SELECT state, count(*) FROM jobs WHERE {_OF_SHARD} GROUP BY 1", (shard, shard)
    )
    states = {JobState(state): count for state, count in rows}
    query = (
        f"SELECT count(*) FROM jobs WHERE worker<>? AND worker IN ({LIVE}) AND {_OF_SHARD}"
        " AND state = ANY(?)"
    )
    (elsewhere,) = connection.execute(query, (me, shard, shard, _UNENDED)).fetchone()
    return Standing(states=states, elsewhere=int(elsewhere))


def claim(connection: Connection, ids: Collection[int], *, me: int) -> list[JobRecord]:
    """Claim those of ``ids`` that nobody else has; return those that are ours."""
    query = f"UPDATE jobs SET worker=?, last_worker=? WHERE id = ANY(?) AND (worker=? OR {_FREE})"
    connection.execute(query, (me, me, [*ids], me, me))
    return read_records(connection, "WHERE id = ANY(?) AND worker=? ORDER BY id", ([*ids], me))


_OF_SHARD = "(?::bigint IS NULL OR shard=?)"


def _which(named: Named) -> tuple[Any, ...]:
    return named.run, named.single, named.last, named.shard, named.shard


def pending_models(connection: Connection, named: Named) -> list[str]:
    """The models that have pending jobs of a run, in job-file order of their first."""
    rows = connection.execute(
        f"SELECT model FROM jobs WHERE state='pending' AND {NAMED} AND {_OF_SHARD}"
        " GROUP BY model ORDER BY min(position)",
        _which(named),
    )
    return [row[0] for row in rows]


def named_of(connection: Connection, ids: Collection[int], named: Named) -> set[int]:
    """Those of ``ids`` that a run names."""
    query = f"SELECT id FROM jobs WHERE id = ANY(?) AND {NAMED} AND {_OF_SHARD}"
    return {row[0] for row in connection.execute(query, ([*ids], *_which(named)))}


# In this order PostgreSQL goes by the index of states: told "model=" it sees that the order is that
# of ids alone, and goes by those, past every job that has ended.
_NEXT = "state='pending' AND model BETWEEN {0} AND {0}"
_IN_ORDER = "ORDER BY model, priority DESC, id"


def draw(
    connection: Connection,
    named: Named,
    models: Collection[str],
    *,
    limit: int,
    held: Collection[int],
    fair: bool = False,
    folder: FolderNames,
    me: int,
) -> dict[str, list[JobRecord]]:
    """Claim the next pending jobs of a run, at most ``limit`` of each model; fix their stems.

    None that are ``held``; but those that are ours without being so: a commit of them may have been
    made whose answer was lost. With ``fair`` at most half of its share of what is left: others come
    later, or are slower.
    """
    free = (
        f"FROM jobs WHERE {_NEXT.format('?')} AND {NAMED} AND {_OF_SHARD}"
        f" AND NOT id = ANY(?) AND (worker=? OR {_FREE})"
    )
    chosen = f"SELECT id {free} {_IN_ORDER} LIMIT ? FOR UPDATE SKIP LOCKED"
    query = f"UPDATE jobs SET worker=?, last_worker=? WHERE id IN ({chosen}) RETURNING id"
    parts = _parts(connection) if fair else 1
    pages: dict[str, list[JobRecord]] = {}
    for model in models:
        which = (model, model, *_which(named), [*held], me, me)
        page = limit
        if fair:
            count = f"SELECT count(*) FROM (SELECT 1 {free} LIMIT ?) few"
            (left,) = connection.execute(count, (*which, parts * limit)).fetchone()
            page = max(1, left // parts)
        ids = [row[0] for row in connection.execute(query, (me, me, *which, page))]
        in_order = "WHERE id = ANY(?) ORDER BY priority DESC, id"
        pages[model] = read_records(connection, in_order, (ids,))
    records = iter(claim_stems(connection, list(chain.from_iterable(pages.values())), folder))
    return {model: list(islice(records, len(page))) for model, page in pages.items()}


def _parts(connection: Connection) -> int:
    """Of how many parts of what is left one worker draws one: more may come, so two at least."""
    (workers,) = connection.execute(f"SELECT count(*) FROM ({LIVE}) living").fetchone()
    return 2 * max(int(workers), 2)


def keep_settings(connection: Connection, place: str, settings: str) -> None:
    """Keep what workers of a queue have to know of a place's jobs, as JSON."""
    query = "UPDATE asyncpipe.places SET settings=? WHERE name=?"
    connection.execute(query, (settings, place))


def set_shards(connection: Connection, named: Named, size: int) -> list[int]:
    """Give pending jobs of a run that have no shard one, of ``size`` jobs each.

    Returns the shards that have jobs of the run which have not ended.
    """
    (last,) = connection.execute("SELECT coalesce(max(shard), 0) FROM jobs").fetchone()
    query = f"""
UPDATE jobs SET shard=? + (r.place - 1) / ? + 1
FROM (SELECT id, row_number() OVER (ORDER BY position, id) AS place FROM jobs
  WHERE state='pending' AND shard IS NULL AND {NAMED}) r
WHERE jobs.id=r.id
"""
    connection.execute(query, (last, size, named.run, named.single, named.last))
    rows = connection.execute(
        f"SELECT DISTINCT shard FROM jobs WHERE shard IS NOT NULL AND state = ANY(?) AND {NAMED}"
        " ORDER BY shard",
        (_UNENDED, named.run, named.single, named.last),
    )
    return [row[0] for row in rows]


# -- a look at what others do -------------------------------------------------------------------


def look(
    connection: Connection,
    *,
    me: int,
    held: Collection[int],
    left: Collection[int],
    awaited: Collection[int],
    runs: Sequence[Named],
    news: str,
    today: date,
) -> Look:
    """Say what became of others' work, and tell ours: asked now and then by every worker.

    By one at a time: whoever tells what it claims hears what the others have told before.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema()), ?)", (LOOKING,))
    connection.execute(
        "UPDATE workers SET news=?, learned_at=clock_timestamp() WHERE id=?", (news, me)
    )
    mine = {row[0] for row in connection.execute("SELECT id FROM jobs WHERE worker=?", (me,))}
    free = f"SELECT id FROM jobs WHERE id = ANY(?) AND {_FREE}"
    ended = read_records(
        connection, "WHERE id = ANY(?) AND state = ANY(?)", ([*awaited], [s.value for s in ENDED])
    )
    return Look(
        gone=[each for each in held if each not in mine],
        ended=[record for record in ended if record.id not in mine],
        free=[row[0] for row in connection.execute(free, ([*awaited], me))],
        elsewhere=[_elsewhere(connection, named, me) for named in runs],
        waiting=[_waiting(connection, named, left, me) for named in runs],
        facts=facts(connection, me),
        money=money(connection, today),
        orphans=_has_orphans(connection, left, me),
        told=_told(connection),
    )


def _told(connection: Connection) -> list[WorkerNews]:
    rows = connection.execute(
        "SELECT id, news, coalesce(clock_timestamp() - learned_at, interval '0')"
        f" FROM workers WHERE id IN ({LIVE}) ORDER BY id"
    )
    return [WorkerNews(worker=i, news=news, age_s=age.total_seconds()) for i, news, age in rows]


def _has_orphans(connection: Connection, left: Collection[int], me: int) -> bool:
    """Whether there is paid work that nobody has, or anything that a worker had who died."""
    paid = sorted(state.value for state in (JobState.SUBMITTING, *PAID_OPEN))
    query = (
        f"SELECT EXISTS(SELECT 1 FROM jobs WHERE state = ANY(?) AND NOT id = ANY(?) AND {_FREE})"
        f" OR EXISTS(SELECT 1 FROM jobs WHERE worker<>? AND worker NOT IN ({LIVE}))"
    )
    return bool(connection.execute(query, (paid, [*left], me, me)).fetchone()[0])


def _elsewhere(connection: Connection, named: Named, me: int) -> int:
    """How many jobs of a run other live workers have."""
    query = (
        f"SELECT count(*) FROM jobs WHERE worker<>? AND worker IN ({LIVE}) AND {NAMED}"
        f" AND {_OF_SHARD}"
    )
    return int(connection.execute(query, (me, *_which(named))).fetchone()[0])


# Of every model one row is read, whatever number is pending: all workers ask this all the time.
_WAITING = f"""
WITH RECURSIVE models(name) AS (
  SELECT min(model) FROM jobs WHERE state='pending'
  UNION ALL SELECT (SELECT min(model) FROM jobs WHERE state='pending' AND model>models.name)
  FROM models WHERE models.name IS NOT NULL)
SELECT models.name FROM models CROSS JOIN LATERAL (
  SELECT position FROM jobs WHERE {_NEXT.format("models.name")} AND {_FREE} AND {NAMED}
  AND {_OF_SHARD} AND NOT id = ANY(?) {_IN_ORDER} LIMIT 1) first ORDER BY position
"""


def _waiting(connection: Connection, named: Named, left: Collection[int], me: int) -> list[str]:
    """The models of pending jobs of a run that nobody has; without those that we let go of."""
    rows = connection.execute(_WAITING, (me, *_which(named), [*left]))
    return [row[0] for row in rows]


def facts(connection: Connection, me: int) -> list[Fact]:
    """What was found out of jobs by workers that had them no more, and nobody adopted yet.

    Of our own jobs, and of those that nobody has.
    """
    rows = connection.execute(
        "SELECT f.job_id, f.n, f.prediction_id, f.route, f.told_at FROM facts f"
        f" JOIN jobs ON jobs.id=f.job_id WHERE adopted=0 AND (worker=? OR {_FREE})"
        " ORDER BY f.job_id, f.n",
        (me, me),
    )
    return [
        Fact(job_id=i, n=n, prediction_id=p, route=r, at=datetime.fromisoformat(at) if at else None)
        for i, n, p, r, at in rows
    ]


def adopted(connection: Connection, fact: Fact) -> None:
    """Note that a fact is in its job's record."""
    query = "UPDATE facts SET adopted=1 WHERE job_id=? AND n=? AND prediction_id=?"
    connection.execute(query, (fact.job_id, fact.n, fact.prediction_id))


def money(connection: Connection, day: date) -> Spent:
    """What is charged or reserved by all workers, and the lowest caps of those that live.

    ``day`` is what a day's budget is asked of.
    """
    of_state = (
        "(SELECT coalesce(sum(reserved), 0) FROM attempts a JOIN jobs j ON j.id=a.job_id"
        " AND j.attempt=a.n WHERE reserved>0 AND state IN ({}))"
    )
    under_way = of_state.format("'submitting', 'submitted'")
    submitting = of_state.format("'submitting'")
    committed, cap, told = connection.execute(_CAPS).fetchone()
    reserved, releasable, unanswered = connection.execute(
        "SELECT (SELECT coalesce(sum(reserved), 0) FROM attempts WHERE reserved>0),"
        f" {under_way}, {submitting}"
    ).fetchone()
    return Spent(
        charged=committed - reserved,
        reserved=reserved,
        releasable=releasable,
        unanswered=unanswered,
        cap=cap,
        purses=purses.standing(connection, purses.lowest((told or "").splitlines()), day),
    )
