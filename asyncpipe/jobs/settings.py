"""What a run is told besides its jobs: limits, deadlines, polling, prices."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from asyncpipe.errors import UsageError

if TYPE_CHECKING:
    from asyncpipe.jobs.job import JobType
    from asyncpipe.jobs.places import OutputPlace

TINY = 5e-324
"""The smallest float above zero: as a minimum it means "greater than 0"."""

LARGEST = sys.float_info.max
"""A larger whole number cannot be a float."""


def check_number(name: str, value: Any, minimum: float) -> None:
    """Raise UsageError for what is no number of at least ``minimum``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST or value < minimum:
        what = "greater than 0" if minimum == TINY else f"at least {minimum:g}"
        raise UsageError(f"{name}: {value!r} must be a number, {what}")


G = TypeVar("G")


def group_of(kind: type[G], word: str, said: G | Mapping[str, Any] | None) -> G:
    """Take what a library caller gave for a group of settings: the group, its keys, or nothing.

    Raises UsageError, with the group's ``word``, for anything else.
    """
    told: object = said
    if isinstance(told, kind):
        return told
    if told is not None and not isinstance(told, Mapping):
        raise UsageError(f"{word}: {told!r:.80} must be {kind.__name__}, or a mapping of its keys")
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for name in told or ():
        if name not in known:
            raise UsageError(f"{word}: unknown key {name!r}: {', '.join(known)} are known")
    return kind(**(told or {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """What is done about what goes wrong, and about what earlier runs have left.

    ``retries`` is how often a failure that the provider does not charge for is submitted again,
    where the job says nothing; ``patience_s`` ends what waits when no submit was accepted for so
    many seconds (None: never). ``ambiguous`` says, as in a job file, what becomes of a submit whose
    answer was lost: it is looked for in the provider's list for at least ``search_s`` seconds; with
    ``resubmit`` it is sent again, at most ``retries`` times, and may be paid twice. Without
    ``fetch_missing`` files that are gone are left alone; without ``take_up`` so are jobs that were
    accepted before and not submitted. Raises UsageError naming the field that is wrong.
    """

    retries: int = 2
    ambiguous: Ambiguous = "find"
    search_s: float = 120.0
    patience_s: float | None = 600.0
    fetch_missing: bool = True
    take_up: bool = True

    def __post_init__(self) -> None:
        check_whole("retries", self.retries, 0)
        checked_ambiguous(self.ambiguous)
        check_number("search_s", self.search_s, 0.0)
        if self.patience_s is not None:
            check_number("patience_s", self.patience_s, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Where files may come from and lie, and how they are linked to.

    Nothing is submitted while less than ``min_free_bytes`` are free on the disk. Jobs that name
    files of this machine are refused unless those lie below ``local_files``, a folder or an
    ``s3://`` prefix. ``public_url`` and ``presign`` link to assets as in a job file.
    ``same_account`` takes a key of another account than the one that the place was bought with.
    Raises UsageError naming the field that is wrong.
    """

    min_free_bytes: int = 1024**3
    local_files: str | OutputPlace | None = None
    public_url: str | None = None
    presign: str | None = None
    same_account: bool = False

    def __post_init__(self) -> None:
        check_whole("min_free_bytes", self.min_free_bytes, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerAt:
    """A ledger that many may share: its ``url`` (``postgresql://…``), and who we are in it.

    ``place`` is the name of the output place there, by default the folder as it is given;
    ``lease_s`` is for how many seconds a worker's jobs are left alone that is not heard of. Raises
    UsageError naming the field that is wrong.
    """

    url: str | None = field(default=None, repr=False)
    place: str | None = None
    lease_s: float = 30.0

    def __post_init__(self) -> None:
        check_number("lease_s", self.lease_s, TINY)


POLICIES: Mapping[str, frozenset[str]] = {
    "learned": frozenset({"maximum_s"}),
    "backoff": frozenset({"initial_s", "factor", "maximum_s"}),
    "fixed": frozenset({"initial_s"}),
}
"""How polls can be placed, and the values that each policy goes by."""

PollingPolicy: TypeAlias = Literal["", "learned", "backoff", "fixed"]
"""Their names; "" is what the other values mean."""

_POLLING_DEFAULTS = {"initial_s": 5.0, "factor": 1.5, "maximum_s": 30.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Polling:
    """When to poll; times in seconds of the provider.

    ``learned`` (the default) polls when a model's predictions have been found to end, with gaps up
    to ``maximum_s``; ``backoff`` first after ``initial_s``, then ``factor`` times later, up to
    ``maximum_s``; ``fixed`` every ``initial_s``. Values other than the defaults (the article's)
    without a policy mean backoff. The provider's time runs ``speed`` times as fast as ours: 1
    except with a simulator. While a provider is to call back when a prediction has ended it is
    polled every ``backstop_s`` only. Raises UsageError naming the field that is wrong.
    """

    policy: PollingPolicy = ""
    initial_s: float = _POLLING_DEFAULTS["initial_s"]
    factor: float = _POLLING_DEFAULTS["factor"]
    maximum_s: float = _POLLING_DEFAULTS["maximum_s"]
    speed: float = 1.0
    backstop_s: float = 60.0

    def __post_init__(self) -> None:
        check_number("polling.initial_s", self.initial_s, TINY)
        check_number("polling.factor", self.factor, 1)
        check_number("polling.maximum_s", self.maximum_s, TINY)
        check_number("polling.speed", self.speed, TINY)
        check_number("polling.backstop_s", self.backstop_s, TINY)
        said = {name for name, usual in _POLLING_DEFAULTS.items() if getattr(self, name) != usual}
        if self.policy == "":
            object.__setattr__(self, "policy", "backoff" if said else "learned")
        check_policy(self.policy, said)
        if self.policy == "backoff" and self.maximum_s < self.initial_s:
            raise UsageError(
                f"polling.maximum_s: {self.maximum_s:g} is less than "
                f"initial_s ({self.initial_s:g}): raise it"
            )


def check_policy(policy: Any, said: set[str]) -> None:
    """Raise UsageError for a policy there is none of, or for values that it does not go by."""
    if not isinstance(policy, str) or policy not in POLICIES:
        raise UsageError(f"polling.policy: {policy!r} must be one of {', '.join(POLICIES)}")
    for name in sorted(said - POLICIES[policy]):
        takes = " and ".join(sorted(POLICIES[policy]))
        raise UsageError(
            f"polling.{name}: {policy} does not go by it, only by {takes}: "
            "take it out, or take policy: backoff"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadlines:
    """How long a prediction may take, in seconds from its submit.

    Raises UsageError naming the field that is wrong.
    """

    image: float = 300.0
    video: float = 1200.0
    audio: float = 300.0

    def __post_init__(self) -> None:
        for name in ("image", "video", "audio"):
            check_number(f"deadline_s.{name}", getattr(self, name), TINY)

    def of(self, job_type: JobType) -> float:
        """The deadline for jobs of ``job_type``."""
        deadline_s: float = getattr(self, job_type.value)
        return deadline_s


WindowKind: TypeAlias = Literal["learned", "fixed"]

WINDOWS: tuple[WindowKind, ...] = get_args(WindowKind)
"""How the number of predictions in flight is chosen: by what the API takes, or ``max_workers``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much may be under way; ``max_workers`` bounds the predictions in flight besides.

    ``requests_per_second`` counts submits and polls together (None: no limit); ``models`` maps
    model ids to the most predictions in flight. Below all that each model's window learns what the
    API takes, unless ``window`` is ``fixed``. ``downloads`` bounds the files fetched at once.
    Raises UsageError naming the field that is wrong.
    """

    requests_per_second: float | None = None
    models: Mapping[str, int] = field(default_factory=dict)
    window: WindowKind = "learned"
    downloads: int = 8

    def __post_init__(self) -> None:
        if self.requests_per_second is not None:
            check_number("limits.requests_per_second", self.requests_per_second, TINY)
        if not isinstance(self.models, Mapping):
            raise UsageError(f"limits.models: {self.models!r:.80} must map models to numbers")
        for model, workers in self.models.items():
            check_whole(f"limits.models.{model}", workers, 1)
        checked_window(self.window)
        check_whole("limits.downloads", self.downloads, 1)

    @classmethod
    def of(cls, said: Limits | Mapping[str, Any] | None) -> Limits:
        """Take what a library caller gave: a mapping of its fields, or nothing."""
        return group_of(cls, "limits", said)


def check_whole(name: str, value: Any, minimum: int) -> None:
    """Raise UsageError for what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UsageError(f"{name}: {value!r} must be a whole number, at least {minimum}")


def checked_window(window: str) -> WindowKind:
    """Return ``window``; raises UsageError for a word that is none of WINDOWS."""
    if window not in WINDOWS:
        raise UsageError(f"window: {window!r} must be {' or '.join(WINDOWS)}")
    return window


Ambiguous: TypeAlias = Literal["hold", "find", "find-resubmit", "resubmit"]

AMBIGUOUS: tuple[Ambiguous, ...] = get_args(Ambiguous)
"""What becomes of jobs whose submit lost its answer.

``hold``: they are left alone; ``find``: those that the provider lists go on; ``find-resubmit``:
those that surely bought nothing are submitted again besides, once; ``resubmit``: all are submitted
again, and may be paid twice.
"""


def checked_ambiguous(ambiguous: str) -> Ambiguous:
    """Return ``ambiguous``; raises UsageError for a word that is none of AMBIGUOUS."""
    if ambiguous not in AMBIGUOUS:
        raise UsageError(f"ambiguous: {ambiguous!r} must be {', '.join(AMBIGUOUS)}")
    return ambiguous
