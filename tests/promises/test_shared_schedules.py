"""Schedules on a shared ledger: the same command on another machine helps the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.buckets import a_bucket
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


def test_a_template_in_a_bucket_is_known_by_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is on this disk; an interrupted run of an older place goes on there."""
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-of-the-schedule")
    with a_bucket(monkeypatch) as s3, a_simulator(tmp_path) as url:
        template = f"{s3.place}/{{date}}"
        scheduled(tmp_path, 3, template)
        shared = ("--ledger", postgres.shared_url())
        run = ("run", "jobs.yaml", "--base-url", url, "--yes", *shared)
        older = asyncpipe(*run, "-o", f"{s3.place}/2026-01-05", "--max-cost", "0.05", cwd=tmp_path)
        assert older.returncode == 3, older.stderr  # one of three, then the money is used up
        on = asyncpipe(*run, cwd=tmp_path)
        assert on.returncode == 0, on.stderr
        assert f"going on in {s3.place}/2026-01-05, whose run was interrupted: 2 jobs" in on.stderr
        assert len(server_books(tmp_path)[0]) == 3
        due = asyncpipe(*run, cwd=tmp_path)
        assert due.returncode == 0, due.stderr
        assert len(server_books(tmp_path)[0]) == 6
        status = asyncpipe("status", template, *shared, cwd=tmp_path)
        assert f"{s3.place}/{today()} is the newest folder of {template}" in status.stderr
        another = asyncpipe(*run, "--new", cwd=tmp_path)
        assert f"{s3.place}/{today()}_2 is a new folder" in another.stderr
