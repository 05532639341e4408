"""What a part measured, one line per number, kept and printed; and the machine that measured it."""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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


# -- the machine ----------------------------------------------------------------------------------

MB = 1024 * 1024


def pin(core: int) -> None:
    """Keep this process on one core, where the system can and has so many."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


def new_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's loop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def rss() -> int:
    """Resident bytes of this process; 0 where the system does not say (no /proc)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """Watch resident memory from a thread, 50 times a second: VmHWM would include the imports."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="benchmark peak")
        self.base = self.most = rss()
        self._over = threading.Event()

    def run(self) -> None:
        """Look now and then until ``stop``."""
        while not self._over.wait(0.02):
            self.most = max(self.most, rss())

    def stop(self) -> None:
        """Look a last time."""
        self._over.set()
        self.join()
        self.most = max(self.most, rss())


@contextmanager
def scratch(where: Path | None = None) -> Iterator[Path]:
    """Make a folder to work in, on tmpfs where there is one; it is gone afterwards."""
    shared = Path("/dev/shm")
    folder = where or (shared if shared.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="asyncpipe-bench-", dir=folder) as made:
        yield Path(made)


def describe() -> dict[str, object]:
    """The machine and versions, for the record."""
    import aiohttp

    versions = {"python": platform.python_version(), "aiohttp": aiohttp.__version__}
    try:
        import uvloop

        versions["uvloop"] = str(getattr(uvloop, "__version__", "?"))
    except ImportError:
        pass
    return {
        "system": platform.system(),
        "cores": os.cpu_count(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
        "pinned": sys.platform == "linux",
    }
