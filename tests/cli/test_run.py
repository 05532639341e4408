"""The command line as people meet it: a process of its own, its output and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import read_manifest
from asyncpipe.cli.app import run_command
from asyncpipe.ledger import lock_of
from tests.support import CONFIGS
from tests.support.command_line import (
    asyncpipe,
    books,
    command,
    environment,
    job_lines,
    manifest,
    submitted,
    write_jobs,
)

SIGHUP = getattr(signal, "SIGHUP", signal.SIGTERM)

ONE = """\
output_dir: out
jobs:
  - name: 白瓷杯
    model: black-forest-labs/flux-2-pro/text-to-image
    prompt: 橡木桌上的白瓷杯
    width: 256
    height: 256
"""


def test_no_arguments_say_where_to_start(tmp_path: Path) -> None:
    """Five lines, exit 0."""
    done = asyncpipe(cwd=tmp_path)
    assert done.returncode == 0
    assert "asyncpipe init" in done.stdout
    assert len(done.stdout.splitlines()) == 5


def test_a_locale_that_cannot_name_a_file_stops_nothing(tmp_path: Path) -> None:
    """Its downloads stayed away and the next run was a bug of ours."""
    write_jobs(tmp_path / "jobs.yaml", ONE)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "", "PYTHONCOERCECLOCALE": "0"}
    done = asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path, **plain)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "images" / "白瓷杯.png").exists()


def test_help_needs_none_of_the_heavy_packages(tmp_path: Path) -> None:
    """``--help`` answers at once because it imports neither aiohttp nor rich nor Pillow."""
    code = (
        "import sys, asyncpipe.cli.app as a; a.run_command(['run', '--help']);"
        "heavy = {'aiohttp', 'rich', 'PIL', 'av', 'yaml', 'anyio'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_init_run_again_and_the_books(tmp_path: Path) -> None:
    """The first five minutes of a new user, in Chinese; nothing is bought twice."""
    assert asyncpipe("init", "任务.yaml", "--lang", "zh", cwd=tmp_path).returncode == 0
    for _ in range(2):
        done = asyncpipe("run", "任务.yaml", "--simulate", "--simulate-speed", 100, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    out = tmp_path / "pipeline_output"
    assert len(books(out).predictions()) == 3
    report = manifest(out)
    assert (report["successful"], report["total_jobs"], report["failed"]) == (3, 3, 0)
    assert Decimal(str(report["total_cost"])) == books(out).charged()
    assert (out / "images" / "白瓷杯.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "videos" / "杯子短片.mp4").stat().st_size > 1000
    assert "total cost" in done.stdout
    again = asyncpipe("init", "任务.yaml", cwd=tmp_path)
    assert (again.returncode, "--force" in again.stderr) == (2, True)


def test_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    """Programs read stdout; people's text goes to stderr."""
    write_jobs(tmp_path / "jobs.yaml", ONE)
    done = asyncpipe("run", "jobs.yaml", "--simulate", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["successful"] == 1


def test_bad_input_lists_every_problem_and_spends_nothing(tmp_path: Path) -> None:
    """Exit 2; each problem with file, line, job and remedy; no folder is made."""
    write_jobs(
        tmp_path / "jobs.yaml",
        "output_dir: out\njobs:\n  - name: a\n    promt: x\n    model: m/text-to-image\n"
        "  - name: 乙\n    prompt: y\n    model: m/x\n    type: music\n",
    )
    done = asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path)
    assert done.returncode == 2
    assert "jobs.yaml:4" in done.stderr
    assert "prompt" in done.stderr
    assert "乙" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_key_both_ways_on_are_named(tmp_path: Path) -> None:
    """Exit 2, the variable and ``--simulate``."""
    write_jobs(tmp_path / "jobs.yaml", ONE)
    done = asyncpipe("run", "jobs.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "ATLASCLOUD_API_KEY" in done.stderr
    assert "--simulate" in done.stderr


def test_a_model_without_price_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Exit 2 and a ``prices:`` to paste where the provider has no quote either."""
    text = ONE.replace("black-forest-labs/flux-2-pro", "new/model")
    write_jobs(tmp_path / "jobs.yaml", text)
    live = ("--simulate", "--simulate-catalog", "live", "--allow-unknown-models")
    done = asyncpipe("run", "jobs.yaml", *live, cwd=tmp_path)
    assert done.returncode == 2
    assert "jobs.yaml:3: " in done.stderr
    assert "prices:" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert asyncpipe("estimate", "jobs.yaml", cwd=tmp_path).returncode == 2
    assert asyncpipe("validate", "jobs.yaml", cwd=tmp_path).returncode == 0
    done = asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = manifest(tmp_path / "out")
    assert report["total_cost"] == 0.05
    assert report["results"][0]["cost_source"].startswith("provider quote of 20")


def test_a_simulated_folder_is_not_used_for_real(tmp_path: Path) -> None:
    """Another provider than before: exit 2 naming both."""
    write_jobs(tmp_path / "jobs.yaml", ONE)
    assert asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path).returncode == 0
    done = asyncpipe(
        "run", "jobs.yaml", "--base-url", "http://127.0.0.1:9", cwd=tmp_path, ATLASCLOUD_API_KEY="k"
    )
    assert done.returncode == 2
    assert "simulator" in done.stderr
    assert "127.0.0.1:9" in done.stderr


def test_an_env_file_brings_the_key(tmp_path: Path) -> None:
    """And a missing one is said to be missing."""
    write_jobs(tmp_path / "jobs.yaml", ONE)
    (tmp_path / ".env").write_text("ATLASCLOUD_API_KEY=apikey-1\n", encoding="utf-8")
    options = ("--base-url", "http://127.0.0.1:9", "--patience", "0")
    done = asyncpipe("run", "jobs.yaml", "--env-file", ".env", *options, cwd=tmp_path)
    assert (done.returncode, "apikey-1" in done.stderr + done.stdout) == (3, False)
    done = asyncpipe("run", "jobs.yaml", "--env-file", "none", *options, cwd=tmp_path)
    assert done.returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs the modes of POSIX")
def test_an_env_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    """With the remedy, and only where a secret is in it; never what stands there."""
    write_jobs(tmp_path / "jobs.yaml", ONE)
    path = tmp_path / "my env"
    for text, mode, told in (
        ("ATLASCLOUD_API_KEY=apikey-1\n", 0o640, True),
        ("ATLASCLOUD_API_KEY=apikey-1\n", 0o600, False),
        ("ANY=postgresql://me:apikey-1@host/db\n", 0o604, True),
        ("ATLASCLOUD_BASE_URL=http://127.0.0.1:9\nATLASCLOUD_API_KEY=\n", 0o644, False),
    ):
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        done = asyncpipe("estimate", "jobs.yaml", "--offline", "--env-file", path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (f"chmod 600 '{path}'" in done.stderr) is told, (text, mode)
        assert "apikey-1" not in done.stderr


def test_estimate_tells_the_articles_figures(tmp_path: Path) -> None:
    """The article's scenarios at the article's prices, without any network."""
    figures = {"social": "0.95", "library": "7.5", "film": "1.5"}
    for name, figure in figures.items():
        done = asyncpipe("estimate", CONFIGS / f"scenario_{name}.yaml", "--json", cwd=tmp_path)
        assert Decimal(str(json.loads(done.stdout)["total_cost"])) == Decimal(figure)
    done = asyncpipe("estimate", CONFIGS / "catalog_500.yaml", cwd=tmp_path)
    assert "20.00 USD" in done.stdout
    done = asyncpipe("validate", CONFIGS / "weekly.yaml", cwd=tmp_path)
    assert "3 jobs, no problems" in done.stdout


@pytest.mark.parametrize("name", ["weekly", "launch_list", "quickstart"])
def test_the_articles_files_run_to_the_end(tmp_path: Path, name: str) -> None:
    """Exit 0, never more than three in flight, books equal to the manifest, nothing twice."""
    arguments = ("run", CONFIGS / f"{name}.yaml", "--simulate", "-o", "out", "--simulate-speed", 60)
    for _ in range(2):
        done = asyncpipe(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    kept, report = books(tmp_path / "out"), manifest(tmp_path / "out")
    assert len(kept.predictions()) == report["successful"] == report["total_jobs"]
    assert kept.charged() == Decimal(str(report["total_cost"]))
    assert kept.peak_in_flight() <= 3
    assert kept.media_credentials() == 0
    for row in report["results"]:
        assert (tmp_path / "out" / row["local_path"]).stat().st_size == row["bytes"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_and_run_again(tmp_path: Path) -> None:
    """kill -9 in the middle, several times: at the end every job is there, paid once."""
    text = "max_workers: 8\njobs:\n" + "".join(
        f"  - {{name: 杯 {n}, model: black-forest-labs/flux-2-pro/text-to-image,"
        f" prompt: mug {n}, width: 64, height: 64}}\n"
        for n in range(60)
    )
    write_jobs(tmp_path / "jobs.yaml", text)
    run = command("run", "jobs.yaml", "--simulate", "-o", "out", "--quiet")
    for sold in (10, 25, 40):
        process = subprocess.Popen(run, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
        _kill_when(process, tmp_path / "out", sold)
    done = subprocess.run(run, cwd=tmp_path, env=environment(), check=False)
    report = manifest(tmp_path / "out")
    sold_prompts = [p.body["prompt"] for p in books(tmp_path / "out").predictions()]
    ended = {status: _prompts(report, status) for status in ("success", "unknown")}
    assert len(sold_prompts) == len(set(sold_prompts)), "paid twice"
    assert ended["success"] <= set(sold_prompts) <= ended["success"] | ended["unknown"]
    assert len(ended["success"] | ended["unknown"]) == 60
    # A kill between a submit and its record leaves an unknown job, which is exit 75, honestly.
    assert done.returncode == (75 if ended["unknown"] else 0)
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(ended["success"])


def _prompts(report: dict[str, Any], status: str) -> set[str]:
    rows = [row for row in report["results"] if row["status"] == status]
    return {row["name"].replace("杯", "mug") for row in rows}


def _kill_when(process: subprocess.Popen[bytes], folder: Path, sold: int) -> None:
    """Kill a run when its ledger says ``sold`` jobs were submitted; polls the file, bounded."""
    for _ in range(4000):
        if process.poll() is not None:
            return
        if (folder / ".asyncpipe" / "ledger.sqlite3").exists() and submitted(folder) >= sold:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(60)


@pytest.fixture
def _heard() -> Iterator[None]:
    """A hang-up is heard by what is begun here, also where the tests were begun to ignore it."""
    before = signal.signal(SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (SIGHUP, 129)]
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_leaves_a_resumable_run(
    tmp_path: Path, number: signal.Signals, code: int, times: int
) -> None:
    """128 + signal, a manifest, a word on how to go on; then the same command ends the run.

    Nothing is submitted after the signal, and the job that takes minutes is not waited for.
    """
    arguments = ("run", CONFIGS / "launch_list.yaml", "--simulate", "-o", "out", "-j", 2)
    process = subprocess.Popen(
        command(*arguments, "--grace", 0.5 if times == 1 else 100),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    for _ in range(2000):
        ledger = tmp_path / "out" / ".asyncpipe" / "ledger.sqlite3"
        if ledger.exists() and submitted(tmp_path / "out") >= 2:
            break
        time.sleep(0.005)
    assert process.stderr is not None
    process.send_signal(number)
    said = "".join(iter(process.stderr.readline, "")) if times == 1 else process.stderr.readline()
    while times == 2 and "Once more" not in said:
        said = process.stderr.readline()
    if times == 2:
        process.send_signal(number)
    printed, errors = process.communicate(timeout=250)
    assert process.returncode == code, errors
    assert "Traceback" not in said + errors
    assert "run the same command again" in " ".join(printed.split())
    totals = read_manifest(tmp_path / "out").totals
    assert totals.pending > 0
    assert len(books(tmp_path / "out").predictions()) < 5
    assert asyncpipe(*arguments, cwd=tmp_path).returncode == 0
    assert len(books(tmp_path / "out").predictions()) == 5


def test_unknown_jobs_wait_for_a_decision(tmp_path: Path) -> None:
    """Held over any number of runs; given up they count as charged, resubmitted they are bought.

    What the unknown attempt may have cost stays reserved beside the new one.
    """
    write_jobs(tmp_path / "jobs.yaml", ONE + ONE.split("jobs:\n")[1].replace("白瓷杯", "青瓷杯"))
    run = ("run", "jobs.yaml", "--simulate", "--ambiguous", "hold")
    done = asyncpipe(*run, "--simulate-faults", "dropped=1", cwd=tmp_path)
    assert (done.returncode, "asyncpipe resolve" in done.stdout) == (75, True)
    assert asyncpipe(*run, cwd=tmp_path).returncode == 75
    assert len(books(tmp_path / "out").predictions()) == 2
    assert asyncpipe("resolve", "out", cwd=tmp_path).returncode == 2
    both = asyncpipe("resolve", "out", "--resubmit", "--give-up", cwd=tmp_path)
    assert (both.returncode, "either" in both.stderr) == (2, True)
    wrong = asyncpipe("resolve", "out", "红瓷杯", "--give-up", cwd=tmp_path)
    assert (wrong.returncode, "白瓷杯" in wrong.stderr) == (2, True)
    assert asyncpipe("resolve", "out", "白瓷杯", "--give-up", cwd=tmp_path).returncode == 0
    assert asyncpipe("resolve", "out", "--resubmit", cwd=tmp_path).returncode == 0
    assert len(books(tmp_path / "out").predictions()) == 2
    assert asyncpipe(*run, cwd=tmp_path).returncode == 1
    report = manifest(tmp_path / "out")
    assert (report["total_cost"], report["reserved"]) == (0.08, 0.04)
    assert [row["outcome"] for row in report["results"]] == ["failed, charged", "succeeded"]
    assert len(books(tmp_path / "out").predictions()) == 3


def test_a_price_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One price counts, in the check and in the run, though the file be written meanwhile."""
    own = tmp_path / "own.yaml"
    own.write_text("prices:\n  black-forest-labs/flux-2-pro/text-to-image: {per_image: 0.05}\n")
    jobs = write_jobs(tmp_path / "jobs.yaml", ONE)
    opened: list[Path] = []
    read = Path.read_bytes

    def noted(path: Path) -> bytes:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    options = ("--simulate", "--price-file", str(own), "-o", str(tmp_path / "out"))
    assert run_command(["run", str(jobs), *options]) == 0, capsys.readouterr()
    assert opened.count(own) == 1


def test_a_command_waits_for_a_folder_as_long_as_it_is_told_to(tmp_path: Path) -> None:
    """It says for whom, then goes on; without --wait it leaves at once with the way out."""
    write_jobs(tmp_path / "jobs.yaml", job_lines(1))
    (tmp_path / "out" / ".asyncpipe").mkdir(parents=True)
    run = ("run", "jobs.yaml", "--simulate", "--min-free", "0")
    with lock_of(tmp_path / "out"):
        refused = asyncpipe(*run, cwd=tmp_path)
        assert refused.returncode == 3
        assert "--wait SECONDS" in refused.stderr
        assert "--ledger" in refused.stderr
        waiting = subprocess.Popen(
            command(*run, "--wait", 60),
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert waiting.stderr is not None
        assert "waiting" in waiting.stderr.readline()
    with waiting:
        assert waiting.wait(60) == 0
