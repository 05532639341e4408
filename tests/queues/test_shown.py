"""What README and the demonstration show of queues, run on real servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import CONFIGS, ROOT
from tests.support.brokers import below, until
from tests.support.cluster import Cluster
from tests.support.command_line import command, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers and /proc of Linux")

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = dict.fromkeys(re.findall(r"^```\w+\n(.*?)^```$", README, re.M | re.S))
BROKER, LEDGER = "redis://127.0.0.1:6379/0", "postgresql://me@127.0.0.1/jobs"
MODEL = "black-forest-labs/flux-2-pro/text-to-image"


def block(word: str) -> str:
    (found,) = [text for text in BLOCKS if word in text]
    return str(found)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("queue", ["celery", "rq"])
def test_the_weekly_file_goes_through_a_queue_as_readme_shows(
    queue: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Its commands as they stand, with the servers' addresses in place of README's."""
    (tmp_path / "weekly.yaml").write_bytes((CONFIGS / "weekly.yaml").read_bytes())
    asyncpipe = tmp_path / "bin" / "asyncpipe"
    asyncpipe.parent.mkdir()
    asyncpipe.write_text(f'#!/bin/bash\nexec {sys.executable} -m asyncpipe "$@"\n')
    asyncpipe.chmod(0o755)
    script = block("ASYNCPIPE_BROKER=").replace("celery", queue)
    place = f"weekly-{queue}"
    script = script.replace(BROKER, cluster.broker).replace(f"={LEDGER}", f"='{cluster.ledger}'")
    script = script.replace("--yes", f"--yes -o {place}").replace("weekly_content", place)
    script = script.replace("--queue ", "--queue-name readme --queue ")
    told = {
        "PATH": f"{asyncpipe.parent}:{os.environ['PATH']}",
        "ATLASCLOUD_API_KEY": "apikey-of-the-readme",
        "ATLASCLOUD_BASE_URL": cluster.api,
    }
    with (tmp_path / "log").open("w") as log:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", f"{script}\nwait"],
            cwd=tmp_path,
            env=environment(**told),
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: sum(cluster.states(place).values()), "jobs in the ledger")
        count = sum(cluster.states(place).values())
        cluster.finish(place, count)
    finally:
        for pid in [shell.pid, *below(shell.pid)]:
            os.kill(pid, signal.SIGKILL)
        shell.wait()
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert f"{count} jobs for {place}" in said
    assert len(list((tmp_path / place).glob("*s/*.*"))) == count


def test_an_app_of_readme_has_the_tasks_and_the_schedule(cluster: Cluster) -> None:
    """Mondays at six, and only then; the job is in its queue."""
    names: dict[str, Any] = {"__name__": "readme", "MODEL": MODEL}
    exec(block("register(shop)").replace(BROKER, cluster.broker), names)
    shop, weekly = names["shop"], names["shop"].conf.beat_schedule["weekly"]
    assert weekly["task"] in shop.tasks
    due = weekly["schedule"]
    due.nowfun = lambda: datetime(2026, 11, 30, 6, 0).astimezone()
    assert due.is_due(datetime(2026, 11, 29, 7, 0).astimezone()).is_due
    due.nowfun = lambda: datetime(2026, 12, 1, 6, 0).astimezone()
    assert not due.is_due(datetime(2026, 11, 30, 7, 0).astimezone()).is_due
    assert names["answer"].id
    shop.control.purge()


def test_rqs_cron_of_readme_is_read_by_rq(cluster: Cluster, tmp_path: Path) -> None:
    """By its own loader."""
    from redis import Redis
    from rq.cron import CronScheduler

    path = tmp_path / "cron_config.py"
    path.write_text(block("cron.register("), encoding="utf-8")
    cron = CronScheduler(Redis.from_url(cluster.broker))
    cron.load_config_from_file(str(path))
    (job,) = cron.get_jobs()
    assert (job.func_name, job.cron) == ("asyncpipe.queues.rq.enqueue_file", "0 6 * * 1")
    assert job.queue_name == "asyncpipe"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where temporary folders go, short and open to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="asyncpipe-shown-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def left_in(folder: Path) -> list[str]:
    """What the demonstration left; a library of its server's has a lock of its own there."""
    return [path.name for path in folder.iterdir() if path.name.startswith("asyncpipe-")]


@pytest.mark.timeout(180)
def test_the_demonstration_kills_a_worker_and_all_is_there(temporary: Path) -> None:
    """And leaves nothing behind."""
    done = subprocess.run(
        command("demo", "cluster", "--jobs", 40),
        env=environment(TMPDIR=str(temporary)),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9 of a worker that had" in done.stdout
    assert "the ledger: 40 of 40 jobs succeeded, once each; 40 files" in done.stdout
    assert "nothing is paid twice and nothing is lost" in done.stdout
    assert left_in(temporary) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demonstration_that_is_interrupted_leaves_nothing_running(
    number: signal.Signals, temporary: Path
) -> None:
    """No server, no worker, no folder."""
    with subprocess.Popen(
        command("demo", "cluster"),
        env=environment(TMPDIR=str(temporary), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as demo:
        told = demo.stdout
        assert told is not None
        until(lambda: "two workers" in told.readline(), "the workers")
        running = below(demo.pid)
        demo.send_signal(number)
        assert demo.wait(60) == 128 + number
    assert len(running) > 3
    assert [pid for pid in running if Path(f"/proc/{pid}").exists()] == []
    assert left_in(temporary) == []
