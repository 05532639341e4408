"""A lease: how long it surely lasts, when a submit may still go, and which processes are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asyncpipe.errors import LedgerError
from asyncpipe.ledger.lease import Lease, is_gone, this_process


def begun(lease_s: float, now: list[float]) -> Lease:
    lease = Lease(lease_s, lambda: None, clock=lambda: now[0])
    lease.begin(now[0])
    lease.close()
    return lease


@pytest.mark.parametrize(("lease_s", "last_s"), [(30.0, 24.9), (6.0, 3.9), (3.0, 1.9)])
def test_nothing_is_sent_shortly_before_a_lease_ends(lease_s: float, last_s: float) -> None:
    """Five seconds, or a third of a short one: by the clock of who asked, before it asked."""
    now = [100.0]
    lease = begun(lease_s, now)
    sends = []
    for at in (100.0, 100.0 + last_s, 100.2 + last_s, 3700.0):  # the machine slept
        now[0] = at
        sends.append(lease.may_send)
    assert sends == [True, True, False, False]
    assert lease.left_s < 0


def test_a_renewal_counts_from_before_it_was_asked_for() -> None:
    """And one that fails does not: it is asked for again."""
    now, renewed, tries = [0.0], threading.Event(), []

    def renew() -> None:
        tries.append(now[0])
        if len(tries) == 1:
            raise LedgerError("away")
        if len(tries) == 3:
            renewed.set()

    lease = Lease(0.03, renew, clock=lambda: now[0])
    lease.begin(0.0)
    now[0] = 7.0
    assert renewed.wait(10)
    lease.close()
    assert lease.left_s == pytest.approx(0.03)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_of_this_machine_that_has_ended_is_known_to_be_gone() -> None:
    """Not one of another machine, nor one of a system that does not say."""
    with subprocess.Popen(["sleep", "60"]) as process:
        boot, space, pid, _ = this_process().split(" ")
        assert int(pid) == os.getpid()
        name = f"{boot} {space} {process.pid} {_started(process.pid)}"
        assert not is_gone(name)
        process.kill()
        process.wait()
    assert is_gone(name)
    assert not is_gone(this_process())
    assert not is_gone(f"another {space} {process.pid} 1")
    assert not is_gone("")


def _started(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()[19]
