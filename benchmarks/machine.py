"""Cores, clocks and memory of the machine that measures."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
