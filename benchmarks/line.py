"""What a part measured, one line per number, and how lines are printed and kept."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One number: the median of ``rounds``, its span, and what was wanted of it.

    ``must`` and ``aim`` are None where nothing is; ``less`` says that less is better.
    ``server`` is the share of its core that the server was busy, where there was one.
    """

    part: str
    what: str
    unit: str
    value: float
    low: float
    high: float
    rounds: int
    command: str
    must: float | None = None
    aim: float | None = None
    less: bool = False
    server: float | None = None

    @property
    def verdict(self) -> str:
        """How it stands to what was wanted: aim, must, missed, or nothing."""
        for name, limit in (("aim", self.aim), ("must", self.must)):
            if limit is not None and (self.value <= limit if self.less else self.value >= limit):
                return name
        return "" if self.must is None else "missed"


def line(values: Sequence[float], **fields: Any) -> Line:
    """Make a line of what the rounds gave."""
    return Line(
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        rounds=len(values),
        **fields,
    )


def shown(number: float) -> str:
    """A number with three digits that matter."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def table(lines: Iterable[Line]) -> str:
    """The lines as a Markdown table."""
    heads = ("what", "measured", "span", "must", "aim", "reached", "server")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for each in lines:
        sign = "≤" if each.less else "≥"
        must, aim = (
            "" if limit is None else f"{sign} {shown(limit)}" for limit in (each.must, each.aim)
        )
        server = "" if each.server is None else f"{each.server:.0%}"
        span = f"{shown(each.low)}-{shown(each.high)}"
        rows.append(
            f"| {each.what} | {shown(each.value)} {each.unit} | {span} | {must} | {aim}"
            f" | {each.verdict} | {server} |"
        )
    return "\n".join(rows)


def keep(path: Path, lines: Iterable[Line], machine: dict[str, object]) -> list[Line]:
    """Write lines to a JSON file; those of other parts that are there stay."""
    fresh = list(lines)
    parts = {each.part for each in fresh}
    old = orjson.loads(path.read_bytes())["lines"] if path.exists() else []
    kept = [Line(**fields) for fields in old if fields["part"] not in parts]
    together = sorted([*kept, *fresh], key=lambda each: each.part)
    told = {"machine": machine, "lines": [asdict(each) for each in together]}
    path.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
    return together
