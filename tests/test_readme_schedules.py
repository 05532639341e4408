"""What README shows for schedules: cron's line in cron's environment, and systemd's units."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncpipe.ledger import lock_of
from tests.support import CONFIGS, ROOT
from tests.support.command_line import a_simulator, manifest, server_books

README = (ROOT / "README.md").read_text(encoding="utf-8")
CRONTAB = re.findall(r"^((?:[\d*/,-]+ ){5}) *(\S.*)$", README, re.M)
UNITS = dict(re.findall(r"^# /etc/systemd/system/(\S+)\n(.*?)(?=^#|^```)", README, re.M | re.S))

KEY = "apikey-of-the-schedule"
PROGRAM = """\
#!/bin/sh
PYTHONPATH={root} exec {python} -m asyncpipe "$@"
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs /bin/sh")


@dataclass(frozen=True)
class Home:
    """A project's folder as README has it, with a server that stands in for the provider."""

    folder: Path

    def run(self, line: str) -> str:
        """What cron mails: the output of a line in its environment."""
        done = subprocess.run(
            ["/bin/sh", "-c", line.replace("\\%", "%").replace("/srv/content", str(self.folder))],
            cwd="/",
            env=bare(self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=100,
            check=False,
        )
        return done.stdout

    @property
    def dated(self) -> Path:
        (only,) = (self.folder / "weekly").glob("2*")
        return only

    @property
    def sold(self) -> int:
        return len(server_books(self.folder)[0])


def bare(home: Path) -> dict[str, str]:
    """All that cron gives to a command."""
    return {"HOME": str(home), "LOGNAME": "content", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    tmp_path = tmp_path / "内容"  # in an environment that names no encoding
    tmp_path.mkdir()
    shutil.copy(CONFIGS / "weekly.yaml", tmp_path)
    program = tmp_path / ".venv" / "bin" / "asyncpipe"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(root=ROOT, python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    with a_simulator(tmp_path) as url:
        keys = tmp_path / ".env"
        keys.write_text(f"ATLASCLOUD_API_KEY={KEY}\nATLASCLOUD_BASE_URL={url}\n", encoding="utf-8")
        keys.chmod(0o600)
        yield Home(tmp_path)


def test_crons_line_runs_in_crons_environment(home: Home) -> None:
    """The article's weekly YAML to disk; silent when all is well, and again buys nothing."""
    ((when, line),) = CRONTAB
    assert len(when.split()) == 5
    assert not re.search(r"(?<!\\)%", line), "cron makes line breaks of it"
    for _ in range(2):
        assert home.run(line) == ""
        assert manifest(home.dated)["successful"] == home.sold == 3
    log = (home.folder / "weekly.log").read_text(encoding="utf-8")
    assert f"weekly/{home.dated.name} is a new folder of weekly/{{date}}" in log
    assert KEY not in log
    assert "chmod" not in log


def test_crons_line_stores_in_a_bucket(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the ledger's address and the bucket's keys in the env file; the key is only there."""
    postgres = pytest.importorskip("tests.support.postgres")
    buckets = pytest.importorskip("tests.support.buckets")
    ((_, line),) = CRONTAB
    with buckets.a_bucket(monkeypatch) as s3:
        told = {"ASYNCPIPE_LEDGER": postgres.shared_url(), **buckets.environment(s3.endpoint)}
        with (home.folder / ".env").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in told.items())
        template = f"s3://{s3.bucket}/weekly/{{date}}"
        assert '-o "weekly/{date}"' in line
        for _ in range(2):
            assert home.run(line.replace("weekly/{date}", template)) == ""
            assert home.sold == 3
        stored = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="weekly/")["Contents"]
    media = [each["Key"] for each in stored if re.search(r"/(images|videos)/", each["Key"])]
    assert len(media) == 3
    assert not (home.folder / "weekly").exists()


def test_cron_mails_one_clear_line_when_a_run_is_under_way(home: Home) -> None:
    """And what is readable by others is told in the log."""
    ((_, line),) = CRONTAB
    home.run(line)
    (home.folder / "weekly.log").unlink()
    with lock_of(home.dated):
        mailed = home.run(line).splitlines()
    assert len(mailed) == 1
    assert f"weekly/{home.dated.name} is in use by process {os.getpid()} on " in mailed[0]
    (home.folder / ".env").chmod(0o644)
    assert home.run(line) == ""
    assert "chmod 600 .env" in (home.folder / "weekly.log").read_text(encoding="utf-8")
    assert home.sold == 3


def test_the_service_runs_in_an_environment_as_bare(home: Home) -> None:
    """By its own words: folder, program and arguments; the timer starts it."""
    assert {*UNITS} == {"weekly.service", "weekly.timer"}
    service = unit("weekly.service")["Service"]
    words = shlex.split(service["ExecStart"].replace("/srv/content", str(home.folder)))
    assert Path(words[0]).is_absolute()
    done = subprocess.run(
        words,
        cwd=service["WorkingDirectory"].replace("/srv/content", str(home.folder)),
        env=bare(home.folder),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert manifest(home.dated)["successful"] == home.sold == 3
    assert unit("weekly.timer")["Timer"]["Persistent"] == "true"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNITS[name])
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(home: Home) -> None:
    """Without a remark; an option that it does not know would be one."""
    units = home.folder / "units"
    units.mkdir()
    for name, text in UNITS.items():
        told = text.replace("/srv/content", str(home.folder))
        (units / name).write_text(told.replace("User=content", "User=root"), encoding="utf-8")
    assert verified(units) == ""
    with (units / "weekly.service").open("a", encoding="utf-8") as file:
        file.write("Environmentfile=.env\n")
    assert "Environmentfile" in verified(units)


def verified(units: Path) -> str:
    """What is said of these units; others of the machine may have faults of their own."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(units.iterdir()))],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    return "\n".join(line for line in done.stdout.splitlines() if "weekly" in line)
