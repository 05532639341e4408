"""Schedules on a shared ledger: the same command on another machine helps the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.command_line import a_simulator, asyncpipe, server_books, started
from tests.support.schedules import scheduled, today

postgres = pytest.importorskip("tests.support.postgres")


def test_two_machines_open_one_place_of_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in its own folder; every job is bought once, and found by the template."""
    scheduled(tmp_path, 30)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "jobs.yaml", other)
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-of-the-schedule")
    with a_simulator(tmp_path) as url:
        run = ("run", "jobs.yaml", "--base-url", url, "--ledger", postgres.shared_url(), "--yes")
        place = ("--place", f"weekly of {tmp_path.name}")
        with started(*run, *place, "--quiet", cwd=tmp_path) as first:
            done = asyncpipe(*run, *place, cwd=other)
            assert done.returncode == 0, done.stderr
            assert first.wait(timeout=60) == 0
        assert len(server_books(tmp_path)[0]) == 30
        again = asyncpipe(*run, "--output-dir", "w/{time}", cwd=other)
        assert (again.returncode, "use {date} or {week}" in again.stderr) == (2, True)
    for words in (("status", "weekly/{date}"), ("status", "jobs.yaml")):
        status = asyncpipe(*words, "--ledger", postgres.shared_url(), cwd=other)
        assert status.returncode == 0, status.stderr
        assert f"weekly/{today()} is the newest folder" in status.stderr
