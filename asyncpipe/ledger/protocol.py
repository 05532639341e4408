"""What a ledger can do, whatever keeps it: an asynchronous face for runs, one to read beside them.

A second store is one file with two classes of these methods; tests/contract/ledger.py says what
they have to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime
from typing import Any, Protocol, TypeAlias, TypeVar

from asyncpipe.errors import LedgerError
from asyncpipe.jobs import STOOD, Job, JobRecord, JobState, StoredAsset
from asyncpipe.ledger.folder import Origin
from asyncpipe.ledger.lease import Lease
from asyncpipe.ledger.rows import (
    Added,
    AddedOne,
    AttemptRow,
    Drawn,
    Fact,
    Interrupted,
    Located,
    Look,
    Named,
    NotReserved,
    OpenWork,
    Repeated,
    ResultRow,
    RunRow,
    Session,
    Standing,
    Sums,
    Taken,
    WorkerRow,
)

T = TypeVar("T")

Seen: TypeAlias = tuple[T, asyncio.CancelledError | None]
"""An answer that somebody counts: once begun it comes even if its caller is cancelled, and the
cancellation with it, for the caller to raise when it has counted."""


PrunableFile: TypeAlias = tuple[int, str, int, str]
"""A job's id, and of one of its files path, size in bytes and store."""


class Ledger(Protocol):
    """The durable record of one output folder, while a run holds it.

    ``store`` is where files go that are stored now; "" is the folder itself, wherever it is.

    ``append`` is synchronous: what it took will be written, whatever is cancelled meanwhile. A
    commit that fails fails every waiter and every later call: LedgerError, which every method may
    raise. Every method that is awaited sees all that was appended before it.
    """

    store: str

    trouble: tuple[LedgerError, datetime] | None
    """What it waits for at the moment, to write or be asked, and since when; None while well."""

    def append(self, record: JobRecord, *, held: bool = False) -> None:
        """Take a job as it stands, to be written over what the ledger has of it and its attempt.

        Of several in one commit the last is written. One that is older than what the ledger has, by
        its version, is refused: LedgerError, from here or from whoever waits for the commit. Where
        others write as well nothing of a job that is ``held`` is written once another worker has
        it, and nothing of one that was only read, once somebody wrote it since.
        """

    async def reserve(self, record: JobRecord, *, cap: int | None = None) -> NotReserved | None:
        """Write an intent durably, or say why not: then nothing is written.

        It is refused when with it more than ``cap`` micro-dollars would be charged or reserved in
        all, by whoever shares the ledger, and when another worker has the job. Cancelled, it may be
        written: append what became of it.
        """

    async def durable(self) -> None:
        """Wait until everything appended so far is on disk; raises LedgerError if it is not."""

    # -- runs ---------------------------------------------------------------------------------

    async def note_account(self, account: str, *, accept: bool) -> str | None:
        """Note which account of the provider's this folder buys with, by the provider's own id.

        Returns the one noted before, and notes nothing, where that is another: unless ``accept``,
        or nothing was bought yet.
        """

    async def begin_session(self, at: datetime) -> Seen[Session]:
        """Note that a process begins to work here; what it does not name counts as removed."""

    async def start_run(self, at: datetime, *, session: int, job_file: str | None) -> int:
        """Note a run whose jobs are about to be written, and return its id.

        ``session`` is the first run that counts as this process's.
        """

    async def take_up(self, at: datetime, *, session: int, but: Collection[int] = ()) -> int | None:
        """Let a new run name the pending jobs that callers asked for one by one.

        Those of ``session`` and those whose ids are in ``but`` are left alone. Returns the run;
        None where there is no such job.
        """

    async def end_pass(self, run: int, *, digest: str | None, jobs: int) -> int:
        """Note that all ``jobs`` of ``run`` are written; without a digest it is never repeated.

        Returns how many of them wait to be bought under the name of a finished job it lacks.
        """

    async def repeat_run(
        self, at: datetime, *, since: int, job_file: str | None, digest: str
    ) -> Repeated | None:
        """Note a run over the jobs of the folder's last one, if those were of the same ``digest``.

        Rows are not touched: they go on to bear the earlier run, which counts as this process's
        from then on, as whatever bears ``since`` or a later run does.
        """

    async def end_run(self, run: int, at: datetime) -> None:
        """Note that a run, or a session, is over."""

    async def last_row(self) -> int:
        """The id of the newest job; 0 if there is none."""

    async def removed(self) -> Seen[int]:
        """Count jobs that were never submitted and that the last session named no more."""

    # -- jobs come in -------------------------------------------------------------------------

    async def add_jobs(
        self, rows: Sequence[tuple[str, Job]], *, run: int, position: int
    ) -> Seen[Added]:
        """Write (key, job) rows as pending, or mark those that are there as seen by ``run``.

        ``position`` is the place of the first row in the job file.
        """

    async def add_job(self, key: str, job: Job, *, run: int, since: int) -> Seen[AddedOne]:
        """Write one job unless it is there, and fix what its files are called.

        Its idempotency key stands for it from then on; where that stands for another job already,
        it is that one which is returned, as a conflict, and nothing is written.
        ``run`` is the session's own; rows that bear ``since`` or a later one are named by it.
        """

    async def to_buy(self, run: int, *, retry_failed: bool, resubmit: bool) -> list[int]:
        """Those jobs of ``run`` that it buys besides the pending ones, by id.

        That is the one rule for what a run buys: withdrawn ones; with ``retry_failed`` failed ones
        that were not charged, nor may have been, nor were refused by moderation; with
        ``resubmit`` unknown ones.
        """

    async def left_alone(
        self, keys: Iterable[str], *, retry_failed: bool, resubmit: bool
    ) -> set[str]:
        """Those of ``keys`` whose jobs are here, and a run that names them does not buy."""

    # -- jobs come out ------------------------------------------------------------------------

    async def records(self, ids: Iterable[int]) -> list[JobRecord]:
        """The jobs with these ids, in that order."""

    async def record_by_idempotency_key(self, key: str) -> JobRecord | None:
        """The job that an idempotency key stands for, or None."""

    async def find(self, by: str, value: str | int) -> Located | None:
        """The newest job by its ``id``, ``key``, ``name``, ``prediction_id``, ``idempotency_key``.

        Only looked at; None where there is none.
        """

    async def records_in(self, states: Collection[JobState]) -> list[JobRecord]:
        """Every job in one of ``states``, by id."""

    async def take(
        self, states: Collection[JobState], *, but: Collection[int] = ()
    ) -> list[JobRecord]:
        """Every job in one of ``states`` that no other worker holds, by id: from now on we do.

        Without those whose ids are in ``but``.
        """

    async def claim(self, ids: Collection[int]) -> list[JobRecord]:
        """Those of ``ids`` that no other worker holds, by id: from now on we do."""

    def release(self, job_id: int) -> None:
        """Let other workers have a job, once what was appended of it is written."""

    async def interrupted(self, *, but: Collection[int] = ()) -> list[Interrupted]:
        """Jobs that are being submitted by nobody any more, by id: their workers have ended.

        From now on we hold them. Without those whose ids are in ``but``.
        """

    def searching(self) -> AbstractAsyncContextManager[None]:
        """Look for lost submits alone: two workers would adopt the same prediction twice."""

    def taking_in(self) -> AbstractAsyncContextManager[None]:
        """Write the jobs of a run while no other worker does; waits for its turn."""

    async def unresolved(self) -> list[JobRecord]:
        """Jobs that are unknown, or have an earlier attempt of unknown outcome, by id."""

    async def sought(self) -> list[JobRecord]:
        """Jobs with a submit whose prediction may be at the provider under an unknown id, by id.

        Its answer was lost, or it was taken for absent; of neither a prediction is known.
        """

    async def owners_of(self, prediction_ids: Collection[str]) -> dict[str, int]:
        """The jobs whose predictions these are, by the prediction's id; others are left out."""

    async def predictions(self, since: datetime) -> list[tuple[str, datetime]]:
        """The ids of predictions whose submit was intended since then, and when."""

    async def absence_failed(self) -> bool:
        """Whether a submit that was taken for absent has turned up after all."""

    async def named_of(self, ids: Iterable[int], named: Named) -> set[int]:
        """Those of ``ids`` that a run names."""

    async def pending_models(self, named: Named) -> list[str]:
        """The models that have pending jobs of a run, in job-file order of their first."""

    async def draw(
        self,
        named: Named,
        after: Mapping[str, Drawn],
        *,
        limit: int,
        held: Collection[int] = (),
        fair: bool = False,
    ) -> dict[str, list[JobRecord]]:
        """The next pending jobs that a run names, at most ``limit`` of each model.

        Those of the highest priority first, then by id. ``after`` has the models, each with the
        place of what was drawn last (FIRST: nothing was); where other workers may give
        jobs back it is not heeded, but ``held``, the ids of pending jobs at hand. With ``fair`` no
        more than half of a worker's share of what is left. What the jobs'
        files are called is fixed with it: no two jobs share a name, nor takes one that of a file
        which is not ours.
        """

    async def pending(
        self, named: Named, model: str, *, after: Drawn, limit: int
    ) -> list[JobRecord]:
        """Pending jobs of ``model`` that a run names, from a place on, in the order of draws.

        They are only looked at.
        """

    async def claim_parts(self, record: JobRecord, count: int, word: str = "") -> list[str]:
        """Fix the names of a job with several files: ``name_1``, ``name_2`` and so on."""

    async def assets(
        self,
        *,
        run: int | None,
        after: int,
        limit: int,
        states: Collection[JobState] = STOOD,
    ) -> list[StoredAsset]:
        """The assets of the next ``limit`` jobs in ``states`` above id ``after``, by job.

        Of those that bear ``run``, or of all; also those that are missing.
        """

    # -- what is forgotten ----------------------------------------------------------------------

    async def prunable(
        self, *, before: datetime, after: int, limit: int
    ) -> list[tuple[int, JobState, int]]:
        """The next jobs above id ``after`` that ended before: id, state, micro-dollars charged.

        Only those that succeeded or failed, whose money is settled, and that were not pruned.
        """

    async def unpruned(self, *, before: datetime) -> Mapping[JobState, int]:
        """How many jobs last heard of before a moment are kept whole, by state."""

    async def stored(self, ids: Collection[int]) -> list[PrunableFile]:
        """The files of jobs."""

    async def prune(self, ids: Collection[int], *, at: datetime, files: bool) -> None:
        """Forget what jobs were, and with ``files`` which files they have; not their money.

        They are bought again by nobody who names them, nor by whoever retries failed ones.
        """

    async def shrink(self) -> None:
        """Give back the space of what is not kept any more, where that takes something."""

    # -- uploads ------------------------------------------------------------------------------

    async def find_upload(self, sha256: str) -> tuple[str, datetime] | None:
        """The URL of a file and when it was uploaded, or None."""

    async def keep_upload(self, sha256: str, *, url: str, size: int, at: datetime) -> None:
        """Keep the URL of a file, in place of an older one."""

    async def forget_uploads(self, digests: Iterable[str]) -> None:
        """Forget the URLs of files: they lead nowhere any more."""

    # -- what it came to ----------------------------------------------------------------------

    async def sums(self) -> Sums:
        """Count everything."""

    async def spent_on(self, budgets: Collection[str], day: date) -> dict[str, int]:
        """Micro-dollars charged or reserved against budgets, by their names.

        Against a day's what was intended on ``day``, in UTC.
        """

    async def result(self, job_id: int) -> ResultRow | None:
        """One job and what its attempts came to; None if there is no such job."""

    async def results_page(
        self,
        *,
        before: int,
        limit: int,
        outcome: str | None = None,
        label: tuple[str, str] | None = None,
    ) -> list[ResultRow]:
        """The next ``limit`` listed jobs below id ``before``, newest first.

        With an ``outcome``, or a ``label``, only those that have it.
        """

    async def open_work(self) -> OpenWork:
        """Count what has not ended."""

    async def changes(self) -> int:
        """A number that grows with whatever is written."""


class SharedLedger(Ledger, Protocol):
    """The durable record of an output place, while a worker holds a lease in it."""

    worker: int
    lease: Lease

    async def look(
        self,
        *,
        held: Collection[int],
        left: Collection[int],
        awaited: Collection[int],
        runs: Sequence[Named],
        news: str,
    ) -> Look:
        """What became of the work that others share.

        ``held`` are the jobs in memory, ``left`` those that we let go of before their end,
        ``awaited`` those that others carry for callers of ours. ``news`` are told to the others.
        """

    async def orphans(self, *, but: Collection[int], limit: int) -> list[JobRecord]:
        """Pending jobs that workers had who live no more, by id: from now on we do."""

    def keep_facts(self, record: JobRecord) -> None:
        """Take what was found out of a job that is ours no more, for the worker that has it."""

    async def adopted(self, fact: Fact) -> None:
        """Note that a fact is in its job's record."""

    async def working_on(self, job_file: str | None, digest: str) -> str | None:
        """Note which jobs we were given; returns who is at work on others here, or None."""

    async def serve(self, shard: int | None) -> None:
        """Note which shard a queue has given us, for people to see."""

    async def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep what the workers of a queue have to know of a place's jobs, as JSON."""

    async def set_shards(self, named: Named, size: int) -> list[int]:
        """Part the pending jobs of a run into shards of ``size``; return those with work to do."""

    async def standing(self, shard: int | None) -> Standing:
        """How the jobs of a shard stand, or all of them."""


class LedgerReader(Protocol):
    """One moment of a folder's ledger, beside a run or without one; rows are streamed.

    Every method may raise LedgerError, and so may the next row.
    """

    def origin(self) -> Origin | None:
        """Which provider the folder belongs to; None while it has met none."""

    def sums(self) -> Sums:
        """Count everything."""

    def results(self, *, started: bool) -> Iterator[ResultRow]:
        """Every listed job, or those ever ``started``: the last run's first, in its order.

        Not listed are withdrawn jobs, and those that were never submitted and that the last session
        named no more.
        """

    def label_names(self, most: int) -> list[str]:
        """The labels that any listed job has, by their first job; at most so many."""

    def attempts(self) -> Iterator[AttemptRow]:
        """Every attempt of every job, in job-file order; one that surely bought nothing, too."""

    def open_work(self) -> OpenWork:
        """Count what has not ended."""

    def times(self, model: str, latest: int) -> list[float]:
        """How many seconds the ``latest`` predictions of ``model`` took in this folder."""

    def last_run(self) -> RunRow | None:
        """The folder's last run, or None."""

    def job_file(self) -> str | None:
        """The job file of the last run that had one."""

    def workers(self) -> Sequence[WorkerRow]:
        """The workers that hold a lease, or jobs, where several share the ledger."""

    def taken(self, digest: str) -> Taken | None:
        """Whether the folder's last pass over jobs ended, and was over those of ``digest``."""

    def left_alone(self, keys: Iterable[str], *, retry_failed: bool, resubmit: bool) -> set[str]:
        """Those of ``keys`` whose jobs are here, and a run that names them does not buy."""

    def providers(self) -> list[str]:
        """The names of those that anything was bought from, or was to be."""
