"""The disk: threads that write media, and whether there is room for more."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from asyncpipe.errors import DiskError
from asyncpipe.media.parts import SmallFile, Written, disk_error, disk_trouble, write_small

logger = logging.getLogger("asyncpipe.downloader")

T = TypeVar("T")

THREADS = 4
"""Fsyncs wait for the disk, not for one another: 1.5 x the jobs/s of one thread, on ext4."""

_ENOUGH = 8
"""While a thread is busy another is woken only for so many files: waking costs more than writing
one where the disk is fast, and is all that helps where it is slow."""


class Disk:
    """Run what blocks for the disk that ``folder`` is on; every OSError becomes a DiskError.

    The small files of one tick of the loop are written by one thread, with one fsync for each
    folder they go to; while all threads are busy, the next list grows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="asyncpipe-disk")
        self._batch: list[tuple[SmallFile, asyncio.Future[tuple[str, str]]]] = []
        self._busy = 0
        self._scheduled = False

    async def hop(self, function: Callable[[], T]) -> T:
        """Call ``function`` in a thread."""
        with disk_trouble(self._folder):
            return await asyncio.get_running_loop().run_in_executor(self.executor, function)

    async def store(self, small: SmallFile) -> tuple[str, str]:
        """Write a small file durably under its final name, or the next where that is another's.

        Returns its path and sha256.

        Cancelling the wait does not keep the file from being written.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[tuple[str, str]] = loop.create_future()
        self._batch.append((small, waiter))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._hand_over)
        try:
            return await waiter
        except OSError as exc:
            raise disk_error(self._folder, exc) from exc

    def close(self) -> None:
        """Take no more; what the threads have is written to its end."""
        self.executor.shutdown(wait=False)

    def _hand_over(self) -> None:
        self._scheduled = False
        if not self._batch or self._busy >= THREADS or (self._busy and len(self._batch) < _ENOUGH):
            return  # the thread that is done first comes for it
        batch, self._batch = self._batch, []
        self._busy += 1
        write = partial(write_small, [small for small, _ in batch])
        future = asyncio.get_running_loop().run_in_executor(self.executor, write)
        future.add_done_callback(partial(self._written, [waiter for _, waiter in batch]))

    def _written(
        self, waiters: list[asyncio.Future[tuple[str, str]]], future: asyncio.Future[list[Written]]
    ) -> None:
        self._busy -= 1
        error = future.exception()
        results: list[Written | BaseException] = (
            [*future.result()] if error is None else [error] * len(waiters)
        )
        for waiter, result in zip(waiters, results, strict=True):
            if waiter.done():
                continue
            if isinstance(result, BaseException):
                waiter.set_exception(result)
            else:
                waiter.set_result(result)
        self._hand_over()


GIB = 1024**3

LOOK_EVERY_S = 1.0
"""Free space is asked for at most so often."""


class DiskSpace:
    """Whether there is room for what submits would bring: ``minimum`` bytes free, looked at often.

    ``clock`` gives seconds; ``give_up`` is called when there was too little for ``patience_s``
    (None: never). ``free`` is for tests.
    """

    def __init__(
        self,
        folder: Path,
        minimum: int,
        clock: Callable[[], float],
        patience_s: float | None = None,
        give_up: Callable[[DiskError], None] = lambda _: None,
        *,
        free: Callable[[Path], int] | None = None,
    ) -> None:
        self._folder, self._minimum, self._clock = folder, minimum, clock
        self._patience_s, self._give_up = patience_s, give_up
        self._free = free or (lambda path: shutil.disk_usage(path).free)
        self._next_look = 0.0
        self._low_since: float | None = None
        self._last = 0

    def enough(self) -> bool:
        """Whether a submit may go out now."""
        now = self._clock()
        if not self._minimum:
            return True
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            self._last = self._free(self._folder)
            if self._last >= self._minimum:
                self._low_since = None
            elif self._low_since is None:
                self._low_since = now
                logger.warning("waiting: %s", self.problem, extra={"action": "disk.waiting"})
            self._lose_patience(now)
        return self._low_since is None

    def _lose_patience(self, now: float) -> None:
        problem = self.problem
        if problem is None or self._low_since is None or self._patience_s is None:
            return
        if now - self._low_since > self._patience_s:
            self._give_up(problem)

    @property
    def low_s(self) -> float:
        """For how many seconds there has been too little."""
        return 0.0 if self._low_since is None else self._clock() - self._low_since

    @property
    def problem(self) -> DiskError | None:
        """What to tell people while there is too little, or None."""
        if self._low_since is None:
            return None
        return DiskError(
            f"only {self._last / GIB:.2f} GiB are free where {self._folder} is, and submits stop "
            f"below {self._minimum / GIB:.2f}: make room, or lower the floor (--min-free, "
            "min_free_bytes=)"
        )
