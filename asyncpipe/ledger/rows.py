"""What a ledger takes in and hands out, by name; micro-dollars, and times as ISO texts in UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import NamedTuple, TypedDict

from asyncpipe.jobs import JobRecord, JobState, Noted


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Which rows a run names: those that bear ``run`` or a later one, up to the id ``last``.

    Rows above ``last`` were written since, for others. Rows that bear ``single`` are jobs that
    callers of the same process asked for one by one, and are theirs. Of a ``shard`` only those that
    were sent with it to a queue.
    """

    run: int
    last: int = 2**63 - 1
    single: int = 0
    shard: int | None = None


class Drawn(NamedTuple):
    """A place in the order in which pending jobs are drawn: by priority, the highest first, by id.

    Those after it are drawn next.
    """

    priority: int
    id: int


FIRST = Drawn(2**53, 0)
"""Before all of them."""


def place_in_draws(record: JobRecord) -> Drawn:
    """Where a job stands in that order."""
    return Drawn(record.job.priority, record.id)


class NotReserved(Enum):
    """Why an intent was not written."""

    CAP = auto()  # more would be charged or reserved than may be
    PURSE = auto()  # the same of jobs with a label of its, or of the day's
    ANOTHERS = auto()  # another worker holds the job by now


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """The last run that jobs were taken for: ``seen`` is what its jobs bear as seen_run."""

    seen: int
    jobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A run over jobs that an earlier one took: they go on to bear ``seen``."""

    run: int
    seen: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A process that works in the folder, and how many jobs count as removed since it began.

    ``since``: rows that bear this run or a later one are named by it, or by one it goes along with.
    """

    id: int
    since: int
    removed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What a pass over jobs found: how many rows are new, and names seen before in this pass."""

    new: int
    twice: tuple[str, ...]


class Counted(Enum):
    """Where totals counted a job before it was added."""

    NOWHERE = auto()
    AS_REMOVED = auto()
    ALREADY = auto()
    IN_A_BATCH = auto()  # named by a run of this session: it is not one caller's alone


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedOne:
    """A job that one caller asked for, as it stands, and where totals counted it before.

    ``namesake``: it is new, and another job here has its name, as far as their files' names tell.
    ``elsewhere``: another worker has it. ``conflict``: it is another job than the one that was
    asked for, which the same idempotency key stands for.
    """

    record: JobRecord
    counted: Counted
    namesake: bool = False
    elsewhere: bool = False
    conflict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """A job that somebody asks for; ``alone``: callers asked for it, no batch names it."""

    record: JobRecord
    alone: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenWork:
    """Jobs that have not ended: not submitted by model, and those the provider works on.

    ``waiting`` may include jobs that are gone from the job file. ``under_way`` are a model and the
    time of the submit.
    """

    waiting: dict[str, int]
    under_way: tuple[tuple[str, str | None], ...]


class MoneyRow(TypedDict):
    """What the attempts of one model, state and kind came to; ``earlier`` ones are not the latest.

    ``estimated`` of what is charged is charged by an estimate; ``overruns`` attempts cost
    ``overrun`` more than was reserved; ``lost`` counts those of unknown outcome. ``released`` came
    back of ``returned`` predictions; ``free`` lost answers were found not to be charged, and
    ``refusals`` submits surely bought nothing.
    """

    model: str
    state: str
    earlier: int
    charged: int
    estimated: int
    reserved: int
    overrun: int
    overruns: int
    lost: int
    released: int
    returned: int
    free: int
    refusals: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Everything in a folder's ledger, counted; ``removed`` jobs are pending ones.

    ``in_doubt`` counts failed jobs that an earlier attempt may have been charged for,
    ``failed_charged`` those that were charged. ``causes`` are the errors of jobs that failed or
    were lost, and how many have each; ``noted`` is what the provider says beside outputs.
    """

    states: dict[JobState, int]
    removed: int
    in_doubt: int
    failed_charged: int
    money: Sequence[MoneyRow]
    causes: Sequence[tuple[JobState, str, int]]
    noted: dict[str, Noted]
    assets: int
    bytes: int


class AssetRow(TypedDict):
    """One file of a job; ``path`` is relative to the output folder, or its ``store``."""

    path: str
    size: int
    sha256: str
    store: str


class ResultRow(TypedDict):
    """A job and what its attempts came to; ``n`` is the last one's number, None before the first.

    ``cost``, ``reserved``, ``overrun``, ``polls``, ``attempts`` (their number), ``charged`` and
    ``estimated`` (how many were, or are) are over all of them, ``lost`` counts those left behind
    whose outcome is unknown; the rest is the last one's, which was bought from ``provider`` as the
    model ``bought_as``. ``outcome`` is how the job ended.
    """

    id: int
    name: str
    key: str
    type: str
    model: str
    spec: bytes
    state: str
    outcome: str
    n: int | None
    cost: int
    reserved: int
    overrun: int
    polls: int
    attempts: int
    charged: int
    estimated: int
    lost: int
    told: int | None
    price_source: str
    assumed: str | None
    provider: str | None
    bought_as: str | None
    generation_s: float | None
    prediction_id: str | None
    request_id: str | None
    outputs: str | None
    notes: str | None
    settled: str | None
    error: str | None
    error_code: int | None
    submitted_at: str | None
    ended_at: str | None
    assets: Sequence[AssetRow]


class AttemptRow(TypedDict):
    """One attempt of a job; ``earlier``: the job went on after it; ``estimated``: its amount is."""

    id: int
    name: str
    key: str
    type: str
    model: str
    state: str
    n: int
    earlier: int
    settled: str | None
    charged: int
    reserved: int
    booked: int
    overrun: int
    estimated: int
    told: int | None
    price_source: str
    assumed: str | None
    provider: str
    bought_as: str
    prediction_id: str | None
    request_id: str | None
    intended_at: str
    submitted_at: str | None
    ended_at: str | None
    error: str | None
    notes: str | None


class RunRow(TypedDict):
    """A run over a job file, or a session's own."""

    id: int
    started_at: str
    job_file: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What all workers of a ledger are charged and reserve, in micro-dollars.

    Of what is ``reserved`` the provider may give back ``releasable``; ``unanswered`` is reserved
    for submits under way. ``cap`` is the lowest of those that live workers were told; of each of
    their budgets ``purses`` has the lowest cap, what is committed, and what of that may come back.
    """

    charged: int
    reserved: int
    releasable: int
    unanswered: int
    cap: int | None
    purses: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """What a worker found out of attempt ``n`` of a job that it had no more.

    It bought this prediction; an empty id says that it surely bought none.
    """

    job_id: int
    n: int
    prediction_id: str
    route: str
    at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRow:
    """A worker; its lease ends in ``left_s`` seconds, or ended so long ago."""

    id: int
    name: str
    started_at: datetime
    left_s: float
    shard: int | None
    jobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerNews:
    """What a live worker told the others ``age_s`` seconds ago: its news, as it wrote them."""

    worker: int
    news: str
    age_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What became of the work that others share.

    ``gone`` were held and are no longer ours; of those that are awaited, ``ended`` have ended and
    ``free`` are nobody's. ``orphans``: there is work of workers that live no more. Of each run
    ``elsewhere`` counts the jobs that other live workers have, and ``waiting`` names the models of
    pending ones that nobody has. ``told`` are the news of all live workers, by their id.
    """

    gone: Sequence[int]
    ended: Sequence[JobRecord]
    free: Sequence[int]
    elsewhere: Sequence[int]
    waiting: Sequence[Sequence[str]]
    facts: Sequence[Fact]
    money: Spent
    orphans: bool
    told: Sequence[WorkerNews]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupted:
    """A job whose submit has no recorded answer, and whose worker has ended.

    ``lease_ended_at`` is when others could have it, where nobody can tell that the process is gone:
    until then, at the latest, it may have begun to send. None: it is gone, and its connections.
    """

    record: JobRecord
    lease_ended_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How many jobs there are by state, and how many of those that have not ended others have."""

    states: dict[JobState, int]
    elsewhere: int
