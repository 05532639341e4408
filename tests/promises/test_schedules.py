"""Schedules: nothing is bought twice, and nothing that is paid for is left behind."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from asyncpipe.ledger import choosing_lock, make_folders
from tests.support.command_line import asyncpipe, books, manifest, started, submitted, write_jobs
from tests.support.schedules import RUN, a_week_older, scheduled, sold, today


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_an_interrupted_run_goes_on_in_its_folder_next_week(tmp_path: Path) -> None:
    """Killed, and a week later: nothing is bought twice, and what comes next is said."""
    scheduled(tmp_path, 30)
    folder = tmp_path / "weekly" / today()
    with started(*RUN, "--quiet", cwd=tmp_path) as process:
        while submitted(folder) < 8:
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.005)
    older = a_week_older(folder)
    done = asyncpipe(*RUN, cwd=tmp_path)
    assert done.returncode in (0, 75), done.stderr
    assert f"going on in weekly/{older.name}, whose run was interrupted" in done.stderr
    assert [each.name for each in (tmp_path / "weekly").glob("2*")] == [older.name]
    prompts = Counter(each.body["prompt"] for each in books(older).predictions())
    assert max(prompts.values()) == 1
    if done.returncode == 0:
        assert "The same command again opens the folder that is due." in done.stderr
    again = asyncpipe(*RUN, cwd=tmp_path)
    assert manifest(tmp_path / "weekly" / today())["successful"] == 30, again.stderr


def test_new_leaves_an_interrupted_run_and_collects_what_is_paid(tmp_path: Path) -> None:
    """A lost answer of last week is found and brought home first; nothing there is bought."""
    scheduled(tmp_path)
    lost = (*RUN, "--ambiguous", "hold", "--simulate-faults", "dropped=1")
    assert asyncpipe(*lost, cwd=tmp_path).returncode == 75
    older = a_week_older(tmp_path / "weekly" / today())
    done = asyncpipe(*RUN, "--new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stderr.splitlines()[1:]
    assert first == (
        f"weekly/{older.name} has jobs that are paid for, or may be, and not here (3 unknown): "
        "collecting, nothing is bought"
    )
    assert second == f"weekly/{older.name} has everything that it paid for"
    assert manifest(older)["successful"] == sold(older) == 3
    assert manifest(tmp_path / "weekly" / today())["successful"] == 3


def test_what_stays_owed_is_named_even_quietly_and_tells_by_the_exit_code(tmp_path: Path) -> None:
    """75 as in one folder: somebody has to decide."""
    scheduled(tmp_path)
    lost = (*RUN, "--ambiguous", "hold", "--simulate-faults", "dropped=1")
    assert asyncpipe(*lost, cwd=tmp_path).returncode == 75
    older = a_week_older(tmp_path / "weekly" / today())
    (older / ".asyncpipe" / "simulator.sqlite3").unlink()  # a provider that knows nothing of it
    done = asyncpipe(*RUN, "--quiet", "--search-s", "0", cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    (line,) = [each for each in done.stderr.splitlines() if "still has" in each]
    assert line.endswith(f"(3 unknown): asyncpipe status weekly/{older.name}")
    assert manifest(tmp_path / "weekly" / today())["successful"] == 3


def test_two_commands_at_the_same_instant_open_one_folder(tmp_path: Path) -> None:
    """While one chooses, and until its folder shows it, the other is refused in one line."""
    file = scheduled(tmp_path, template="weekly/{time}")
    make_folders(tmp_path / "weekly", [".asyncpipe"])
    with choosing_lock(Path(tmp_path / "weekly"), file.absolute(), "it"):
        done = asyncpipe(*RUN, cwd=tmp_path)
        assert done.returncode == 3
        (line,) = done.stderr.splitlines()
        assert "is about to open a folder of weekly/{time} for" in line
        write_jobs(tmp_path / "other.yaml", file.read_text(encoding="utf-8"))
        other = asyncpipe("run", "other.yaml", "--simulate", cwd=tmp_path)
        assert other.returncode == 0, "another job file has its own turn"
    assert len([*(tmp_path / "weekly").glob("2*")]) == 1


@pytest.mark.parametrize("template", ["weekly/{time}", "out"])
def test_a_second_command_is_refused_in_one_line(tmp_path: Path, template: str) -> None:
    """As cron mails it; nothing is asked or surveyed before."""
    scheduled(tmp_path, 400, template)
    with started(*RUN, "--quiet", "--simulate-speed", "2", cwd=tmp_path):
        while not [*tmp_path.rglob("ledger.sqlite3")]:
            time.sleep(0.01)
        done = asyncpipe(*RUN, cwd=tmp_path)
        assert done.returncode == 3
        (line,) = done.stderr.splitlines()
        remedy = "--new" if "{" in template else "--output-dir"
        assert " in use by " in line or "about to open" in line
        assert remedy in line or "about to open" in line
