"""Cuts, 500s, 403s and 429s at 15 %, with everything learned, on the loop that users get.

One command, once: it ends with 0 and everything there. ASYNCPIPE_CHAOS=long does it ten times.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.chaos import LONG, MODELS, bought
from tests.support.command_line import books, command, environment, manifest, write_jobs

JOBS = 400 if LONG else 30
FAULTS = (
    "rate_limited=0.15,overloaded=0.05,dropped=0.05,server_error_submit=0.05,nameless=0.02,"
    "poll_error=0.15,poll_reset=0.1,garbage=0.05,hung_poll=0.02,not_found_first=0.05,"
    "empty_first=0.1,cut=0.15,expired=0.15,empty_media=0.05,html_media=0.1,slow=0.02,"
    "history_error=0.1"
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("turn", range(10 if LONG else 1))
def test_one_command_brings_everything_home(tmp_path: Path, turn: int) -> None:
    """Lost answers, too, each bought once."""
    lines = (
        f"  - {{name: 杯 {n}, model: {MODELS[n % 2]}, prompt: mug {n}, width: 64, height: 64}}"
        for n in range(JOBS)
    )
    write_jobs(tmp_path / "jobs.yaml", "\n".join(["jobs:", *lines]))
    options = ("--simulate", "--simulate-speed", 60, "--simulate-faults", FAULTS)
    done = subprocess.run(
        command("run", "jobs.yaml", "-o", "out", *options),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=800,
        check=False,
    )
    sold = bought(books(tmp_path / "out").predictions())
    report = manifest(tmp_path / "out")
    assert (done.returncode, report["successful"]) == (0, JOBS), done.stdout + done.stderr
    assert set(sold.values()) == {1}
    assert len(sold) == JOBS
