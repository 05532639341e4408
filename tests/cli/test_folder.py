"""Commands that recover: collect, verify, and runs on disks that are full or read-only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from asyncpipe import read_manifest
from tests.support.command_line import (
    asyncpipe,
    books,
    intended,
    job_lines,
    manifest,
    started,
    submitted,
    write_jobs,
)


def wait_for(process: subprocess.Popen[str], folder: Path, jobs: int) -> None:
    """Return when a run has so many jobs submitted; it may not end before."""
    while submitted(folder) < jobs:
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.005)


def most_often_sold(folder: Path) -> int:
    return max(Counter(p.body["prompt"] for p in books(folder).predictions()).values())


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_collect_after_a_kill_needs_no_job_file(tmp_path: Path) -> None:
    """What was submitted is finished, nothing is submitted, and a run goes on from there."""
    file = write_jobs(tmp_path / "jobs.yaml", job_lines(30))
    with started("run", "jobs.yaml", "--simulate", "--quiet", cwd=tmp_path) as process:
        wait_for(process, tmp_path / "out", 8)
    asked = intended(tmp_path / "out")
    file.rename(tmp_path / "elsewhere.yaml")
    (tmp_path / "out").rename(tmp_path / "moved")
    done = asyncpipe("collect", "moved", cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    totals = read_manifest(tmp_path / "moved").totals
    assert intended(tmp_path / "moved") == asked
    sold = len(books(tmp_path / "moved").predictions())
    assert totals.successful + totals.unknown + totals.pending == 30
    assert totals.successful >= 4
    assert totals.pending + totals.unknown >= 30 - sold
    assert totals.removed == 0
    asyncpipe("run", "elsewhere.yaml", "--simulate", "-o", "moved", cwd=tmp_path)
    assert read_manifest(tmp_path / "moved").totals.successful == 30 - totals.unknown
    assert most_often_sold(tmp_path / "moved") == 1


def test_verify_names_what_is_bad_and_brings_it_back(tmp_path: Path) -> None:
    """A deleted file and a changed one come back unpaid; a second look finds nothing."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(3))
    assert asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path).returncode == 0
    images = tmp_path / "out" / "images"
    bought = {path.name: path.read_bytes() for path in images.iterdir()}
    (images / "杯_0.png").unlink()
    with (images / "杯_1.png").open("ab") as file:
        file.write(b"retouched")
    done = asyncpipe("verify", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "杯_0.png is missing" in done.stderr
    assert "kept as 杯_1.png.changed" in done.stderr
    assert {name: (images / name).read_bytes() for name in bought} == bought
    assert len(books(tmp_path / "out").predictions()) == 3
    again = asyncpipe("verify", "out", cwd=tmp_path)
    assert (again.returncode, "3 assets checked" in again.stdout) == (0, True)


def test_verify_exits_by_the_files_not_by_failed_jobs(tmp_path: Path) -> None:
    """A moderated job has no file: 0 when all files are fine, and 0 after one was repaired."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(6))
    run = ("run", "jobs.yaml", "--simulate", "--simulate-faults", "moderated=0.5")
    assert asyncpipe(*run, cwd=tmp_path).returncode == 1
    assert asyncpipe("verify", "out", cwd=tmp_path).returncode == 0
    next((tmp_path / "out" / "images").iterdir()).unlink()
    repaired = asyncpipe("verify", "out", cwd=tmp_path)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "1 of" in repaired.stderr


def test_verify_and_collect_of_no_ledger_say_so(tmp_path: Path) -> None:
    """No traceback, and no folder is made."""
    for name in ("verify", "collect"):
        done = asyncpipe(name, "nothing", cwd=tmp_path)
        assert (done.returncode, "no ledger" in done.stderr) == (3, True)
        assert not (tmp_path / "nothing").exists()


def test_ambiguous_resubmit_takes_up_held_jobs(tmp_path: Path) -> None:
    """A lost answer is held by a plain run, and sent again by one that is told to."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(2))
    run = ("run", "jobs.yaml", "--simulate")
    held = (*run, "--ambiguous", "hold")
    assert asyncpipe(*held, "--simulate-faults", "dropped=1", cwd=tmp_path).returncode == 75
    assert asyncpipe(*held, cwd=tmp_path).returncode == 75
    assert len(books(tmp_path / "out").predictions()) == 2
    done = asyncpipe(*run, "--ambiguous", "resubmit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(books(tmp_path / "out").predictions()) == 4
    report = manifest(tmp_path / "out")
    assert (report["successful"], report["total_cost"], report["reserved"]) == (2, 0.08, 0.08)


def test_resolve_settles_what_lost_answers_cost(tmp_path: Path) -> None:
    """Status names the command; the bill decides; afterwards nothing is reserved any more."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(2))
    run = ("run", "jobs.yaml", "--simulate", "--ambiguous", "hold")
    assert asyncpipe(*run, "--simulate-faults", "dropped=1", cwd=tmp_path).returncode == 75
    done = asyncpipe("resolve", "out", "杯 0", "--resubmit", cwd=tmp_path)
    assert "0.04 USD stay reserved for 1 lost answer" in done.stdout, done.stderr
    done = asyncpipe("resolve", "out", "杯 1", "--resubmit", "--lost-free", cwd=tmp_path)
    assert "to be submitted, 0.00 USD charged, 0.04 USD released" in done.stdout, done.stderr
    done = asyncpipe(*run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "asyncpipe resolve out --lost-charged or" in " ".join(done.stdout.split())
    assert "--lost-charged" in asyncpipe("status", "out", cwd=tmp_path).stdout
    assert manifest(tmp_path / "out")["reserved"] == 0.04
    done = asyncpipe("resolve", "out", "--lost-charged", cwd=tmp_path)
    assert done.stdout.startswith("  杯 0: 0.04 USD charged"), done.stderr
    report = manifest(tmp_path / "out")
    assert (report["total_cost"], report["reserved"], report["lost_answers"]) == (0.12, 0, 0)
    for wrong in ((), ("--resubmit", "--give-up"), ("--lost-free", "--lost-charged")):
        assert asyncpipe("resolve", "out", *wrong, cwd=tmp_path).returncode == 2


def test_too_little_disk_submits_nothing(tmp_path: Path) -> None:
    """Exit 3 after patience, the reason with the remedy, everything still to do."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(2))
    options = ("--min-free", 10**9, "--patience", 0)
    done = asyncpipe("run", "jobs.yaml", "--simulate", *options, cwd=tmp_path)
    assert done.returncode == 3
    assert "--min-free" in done.stdout
    assert books(tmp_path / "out").predictions() == []
    assert asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_read_only_folder_is_said_to_be_one(small_disk: Path) -> None:
    """Before anything is spent; with the remedy."""
    home = small_disk.parent
    write_jobs(home / "jobs.yaml", job_lines(2))
    run = ("run", "jobs.yaml", "--simulate", "--min-free", 0, "-o", "disk/out")
    assert asyncpipe(*run, cwd=home).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for arguments in (run, ("verify", "disk/out"), ("collect", "disk/out"), (*run[:-1], "disk/b")):
        done = asyncpipe(*arguments, cwd=home)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "--output-dir" in done.stderr or "make it writable" in done.stderr


def test_a_damaged_ledger_is_said_to_be_one(tmp_path: Path) -> None:
    """Exit 3; it is left alone, and putting a copy back is enough."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(2))
    run = ("run", "jobs.yaml", "--simulate")
    assert asyncpipe(*run, cwd=tmp_path).returncode == 0
    ledger = tmp_path / "out" / ".asyncpipe" / "ledger.sqlite3"
    whole = ledger.read_bytes()
    ledger.write_bytes(b"\0" * 100 + os.urandom(len(whole) - 100))
    damaged = ledger.read_bytes()
    for arguments in (run, ("verify", "out"), ("resolve", "out", "--give-up"), ("collect", "out")):
        done = asyncpipe(*arguments, cwd=tmp_path)
        assert done.returncode == 3, (arguments, done.stdout, done.stderr)
        assert "damaged" in done.stderr
        assert "Traceback" not in done.stderr
    assert ledger.read_bytes() == damaged
    ledger.write_bytes(whole)
    assert asyncpipe(*run, cwd=tmp_path).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_one_process_per_folder_and_no_puzzle_after_a_kill(tmp_path: Path) -> None:
    """The second one names the first and leaves; once that is killed, nobody is in the way."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(12))
    run = ("run", "jobs.yaml", "--simulate", "--simulate-speed", 1)
    others = (run, ("collect", "out"), ("verify", "out"), ("resolve", "out", "--give-up"))
    with started(*run, "--quiet", cwd=tmp_path) as first:
        wait_for(first, tmp_path / "out", 1)
        first.send_signal(signal.SIGSTOP)  # however long the others take, it has not ended
        for arguments in others:
            done = asyncpipe(*arguments, cwd=tmp_path)
            assert done.returncode == 3, done.stderr
            assert f"in use by process {first.pid}" in done.stderr
    assert asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path).returncode in (0, 75)
    assert most_often_sold(tmp_path / "out") == 1


def test_a_budget_ends_a_run_and_a_raised_one_goes_on(tmp_path: Path) -> None:
    """Exit 3 with the figures; the option goes before the job file; books never above the cap."""
    write_jobs(tmp_path / "jobs.yaml", "max_cost: 0.12\n" + job_lines(6))
    done = asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the budget of 0.12 USD is reached" in " ".join(done.stdout.split())
    assert (manifest(tmp_path / "out")["total_cost"], books(tmp_path / "out").submits()) == (
        0.12,
        3,
    )
    done = asyncpipe("run", "jobs.yaml", "--simulate", "--max-cost", "0.24", cwd=tmp_path)
    assert (done.returncode, manifest(tmp_path / "out")["successful"]) == (0, 6)
    for wrong in ("-1", "viel", "nan"):
        done = asyncpipe("run", "jobs.yaml", "--simulate", "--max-cost", wrong, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    write_jobs(tmp_path / "jobs.yaml", "max_cost: lots\n" + job_lines(6))
    done = asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path)
    assert (done.returncode, "jobs.yaml:1: max_cost" in done.stderr) == (2, True)
