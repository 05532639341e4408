"""The top level of a job file: everything but its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncpipe._text import shown
from asyncpipe.errors import UsageError
from asyncpipe.jobfile.checks import Check, Wrong, mapping, number, positive, says, text, usd, whole
from asyncpipe.jobfile.expand import Defaults
from asyncpipe.jobfile.placeholders import Columns
from asyncpipe.jobfile.prices import read_prices
from asyncpipe.jobfile.problems import Place
from asyncpipe.jobfile.source import Block
from asyncpipe.jobfile.validate import read_defaults
from asyncpipe.jobs import (
    POLICIES,
    WINDOWS,
    Caps,
    Deadlines,
    JobType,
    Polling,
    check_policy,
    check_whole,
    checked_window,
)
from asyncpipe.pricing import MOST_FACTOR

if TYPE_CHECKING:
    from asyncpipe.pricing import Rate

IGNORED = "x-"
"""Top-level keys that begin so are nobody's: a place for YAML anchors."""


def _any(value: Any) -> Any:
    return value


def _deadline(value: Any) -> Any:
    return value if isinstance(value, Mapping) else positive(value)


@says({"enum": list(POLICIES)})
def _policy(value: Any) -> str:
    return str(text(value))


@says({"enum": list(WINDOWS)})
def _window(value: Any) -> str:
    if (word := text(value)) not in WINDOWS:
        raise Wrong(f"{shown(value)} must be {' or '.join(WINDOWS)}")
    return word


@says({"type": "number", "minimum": 1, "maximum": MOST_FACTOR})
def _factor(value: Any) -> Decimal:
    factor = usd(value)
    if not 1 <= factor <= MOST_FACTOR:
        raise Wrong(f"{value} must be from 1 to {MOST_FACTOR}: how many times as much to reserve")
    return factor


_PLAIN = ("max_workers", "window", "max_cost", "min_balance", "estimate_factor", "retries")

DEADLINE_FIELDS: dict[str, Check] = {kind.value: positive for kind in JobType}

POLLING_FIELDS: dict[str, Check] = {
    "policy": _policy,
    "initial_s": positive,
    "factor": number,
    "maximum_s": positive,
}

LIMIT_FIELDS: dict[str, Check] = {"requests_per_second": positive, "models": mapping}

TOP_FIELDS: dict[str, Check] = {
    "output_dir": text,
    "max_workers": whole(1),
    "window": _window,
    "limits": mapping,
    "max_cost": usd,
    "min_balance": usd,
    "estimate_factor": _factor,
    "retries": whole(0),
    "deadline_s": _deadline,
    "polling": mapping,
    "prices": mapping,
    "rows": _any,
    "matrix": _any,
    "defaults": mapping,
    "jobs": _any,
}


def read_top(top: Block, place: Place, columns: Columns | None) -> tuple[RunSettings, Defaults]:
    """Check the top level; what it does not say keeps its default.

    ``columns`` are those that defaults may name in braces.
    """
    ours = Block(((k, v) for k, v in top.items() if not k.startswith(IGNORED)), top.lines)
    checked = place.check(ours, TOP_FIELDS)
    said: dict[str, Any] = {k: checked[k] for k in _PLAIN if k in checked}
    if "output_dir" in checked:
        said["output_dir"] = Path(checked["output_dir"])
    if "deadline_s" in checked:
        said["deadlines"] = _deadlines(checked["deadline_s"], place.below(top, "deadline_s"))
    if "polling" in checked:
        said["polling"] = _polling(checked["polling"], place.below(top, "polling"))
    if "limits" in checked:
        said["limits"] = _caps(checked["limits"], place.below(top, "limits"))
    if "prices" in checked:
        said["prices"] = read_prices(checked["prices"], place.below(top, "prices"))
    defaults = Defaults()
    if "defaults" in checked:
        below = replace(place.below(top, "defaults"), columns=columns)
        defaults = read_defaults(checked["defaults"], below)
    return RunSettings(**said), defaults


def _deadlines(value: Any, place: Place) -> Deadlines:
    if not isinstance(value, Mapping):
        return Deadlines(image=value, video=value, audio=value)
    return Deadlines(**place.check(value, DEADLINE_FIELDS))


def _caps(value: Mapping[str, Any], place: Place) -> Caps:
    said = place.check(value, LIMIT_FIELDS)
    if "models" in said:
        models = said["models"]
        said["models"] = place.below(value, "models").check(models, dict.fromkeys(models, whole(1)))
    return Caps(**said)


def _polling(value: Mapping[str, Any], place: Place) -> Polling:
    checked = place.check(value, POLLING_FIELDS)
    policy = checked.pop("policy", "backoff" if checked else "learned")
    try:
        check_policy(policy, set(checked))
        return Polling(policy=policy, **checked)
    except UsageError as exc:
        place.report(str(exc))
        return Polling()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """A job file's top level, defaults filled in.

    ``max_workers`` bounds the predictions in flight; below it ``window`` learns what the API takes,
    or is ``fixed``; ``limits`` are caps of the user's own; ``max_cost`` is the most that the
    folder's jobs may cost, in USD (None: no limit); ``retries`` is how often a failure that is not
    charged is submitted again; ``prices`` maps model ids to rates. Nothing is submitted while the
    account has less than ``min_balance`` USD (None: not asked). A quote that the provider only
    estimates is reserved times ``estimate_factor``. Raises UsageError naming the field that is
    wrong.
    """

    output_dir: Path = Path("pipeline_output")
    max_workers: int = 64
    window: str = "learned"
    limits: Caps = field(default_factory=Caps)
    max_cost: Decimal | None = None
    min_balance: Decimal | None = None
    estimate_factor: Decimal = Decimal("1.25")
    retries: int = 2
    deadlines: Deadlines = field(default_factory=Deadlines)
    polling: Polling = field(default_factory=Polling)
    prices: Mapping[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, minimum in (("max_workers", 1), ("retries", 0)):
            check_whole(name, getattr(self, name), minimum)
        checked_window(self.window)
