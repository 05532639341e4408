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
    template = f"of {tmp_path.name}/{{date}}"  # a place is called by its folder
    scheduled(tmp_path, 30, template)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "jobs.yaml", other)
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-of-the-schedule")
    with a_simulator(tmp_path) as url:
        run = ("run", "jobs.yaml", "--base-url", url, "--ledger", postgres.shared_url(), "--yes")
        with started(*run, "--quiet", cwd=tmp_path) as first:
            done = asyncpipe(*run, cwd=other)
            assert done.returncode == 0, done.stderr
            assert first.wait(timeout=60) == 0
        assert len(server_books(tmp_path)[0]) == 30
        for options, why in (
            (("-o", "w/{time}"), "use {date} or {week}"),
            (("--place", "one"), "leave --place out"),
        ):
            again = asyncpipe(*run, *options, cwd=other)
            assert (again.returncode, why in again.stderr) == (2, True)
    for words in (("status", template), ("status", "jobs.yaml")):
        status = asyncpipe(*words, "--ledger", postgres.shared_url(), cwd=other)
        assert status.returncode == 0, status.stderr
        newest = template.replace("{date}", today())
        assert f"{newest} is the newest folder of {template}" in status.stderr
