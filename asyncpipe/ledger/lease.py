"""A worker's lease: how long others leave its jobs alone, by a clock that no sleep stops."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from asyncpipe.errors import LedgerError

logger = logging.getLogger("asyncpipe.ledger")

RENEWALS = 3
"""So many times within a lease it is renewed."""

MARGIN_S = 5.0
"""No byte of a submit leaves later than so long before the lease ends, …"""

MARGIN_SHARE = 1 / 3
"""… or, of a short one, so much of it."""


def awake_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # goes on by itself on macOS and Windows


class Lease:
    """Renews itself in a thread of its own, which neither a busy loop nor a long query holds up."""

    def __init__(
        self, lease_s: float, renew: Callable[[], None], clock: Callable[[], float] = awake_s
    ) -> None:
        self.lease_s = lease_s
        self.clock = clock
        self._renew = renew
        self._ends_at = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="asyncpipe-lease", daemon=True)

    def begin(self, at: float) -> None:
        """Note that the lease was taken, which was asked for at ``at`` by its clock."""
        self._ends_at = at + self.lease_s
        self._thread.start()

    @property
    def left_s(self) -> float:
        """How many seconds it surely lasts on."""
        return self._ends_at - self.clock()

    @property
    def may_send(self) -> bool:
        """Whether a submit may go out: none of it may be sent once others may have the job."""
        return self.left_s > min(MARGIN_S, self.lease_s * MARGIN_SHARE)

    def close(self) -> None:
        """Renew no more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._closed.wait(self.lease_s / RENEWALS):
            at = self.clock()
            try:
                self._renew()
            except LedgerError as exc:
                logger.info("lease not renewed: %s", exc, extra={"action": "lease.late"})
            else:
                self._ends_at = at + self.lease_s


def this_process() -> str:
    """What tells this process from all others; empty where the system does not say."""
    return _process(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process was one of this machine, and is no more."""
    if not process:
        return False
    *machine, pid, _ = process.split(" ")
    here = this_process().split(" ")[:2]
    return machine == here and _process(int(pid)) != process


def _process(pid: int) -> str:
    """Boot, name space of process ids, id and time of start of a process of this machine."""
    with suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if status[0] not in ("Z", "X"):  # a zombie's connections are closed
            return f"{boot} {space} {pid} {status[19]}"
        return f"{boot} {space} {pid} ended"
    return ""
