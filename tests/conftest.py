"""What every test gets: a clean environment, and no task that outlives its loop; small disks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from asyncio import runners
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.clock import Clock

# What fails inside what tests share is told like what fails in a test.
pytest.register_assert_rewrite("tests.support")

_FOREIGN = (
    "ATLASCLOUD_API_KEY",
    "ATLAS_CLOUD_API_KEY",
    "ATLASCLOUD_BASE_URL",
    "FAL_KEY",
    "FAL_KEY_ID",
    "FAL_KEY_SECRET",
    "REPLICATE_API_TOKEN",
    "REPLICATE_API_BASE_URL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)


_NOT_OURS = ("RequestHandler.", "async_generator_athrow")


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache folder that is nobody's."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, cache_home: str) -> None:
    """Strip keys and proxies of the machine the tests run on; keep nothing in its cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", cache_home)
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def no_task_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See that every task has ended when its loop does: ``asyncio.run`` would hide those left.

    Apart from servers of tests, which end with what they still answer, and from generators that
    are closed when they are collected.
    """
    left: list[str] = []
    cancel = runners._cancel_all_tasks  # type: ignore[attr-defined]

    def look(loop: asyncio.AbstractEventLoop) -> None:
        told = map(str, asyncio.all_tasks(loop))
        left.extend(text for text in told if not any(word in text for word in _NOT_OURS))
        cancel(loop)

    monkeypatch.setattr(runners, "_cancel_all_tasks", look)
    yield
    assert not left, "tasks outlived what started them"


@pytest.fixture
def one_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Wall time, the engine's and the simulator's alike, is that of the clock's own loops."""
    from tests.support.clock import Clock

    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr("asyncpipe.jobs.events.datetime", clock)
    return clock


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB that the test may fill; only root on Linux can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        sys.platform == "linux"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder],
            check=False,
            capture_output=True,
        ).returncode
    )
    if not mounted:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
