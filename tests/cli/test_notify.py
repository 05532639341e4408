"""Who is told of a run: by options, by the job file, and of what kept it from beginning."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.support.command_line import asyncpipe, books, write_jobs
from tests.support.signed import SECRET

JOBS = """\
notify: {notify}
output_dir: out
jobs:
  - {{name: mug, model: black-forest-labs/flux-2-pro/text-to-image, prompt: a mug}}
"""

SAYS = """
import json, os, sys
facts = json.load(sys.stdin)
print("said")
key = os.environ.get("ATLASCLOUD_API_KEY")
print(json.dumps([facts, os.environ["ASYNCPIPE_RUN_EXIT_CODE"], key]), file=open("told", "a"))
"""


@contextmanager
def listening(status: int = 200) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server in a thread, and what it was told."""
    heard: list[tuple[dict[str, str], bytes]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(folder: Path, *options: str, **variables: str) -> Any:
    return asyncpipe(
        "run", "jobs.yaml", "--simulate", "--simulate-speed", "100", *options,
        cwd=folder, **variables,
    )  # fmt: skip


def test_a_run_tells_its_end_signed_and_to_a_command(tmp_path: Path) -> None:
    """What the file names and what the options do; the exit code is known; no key is handed on."""
    program = tmp_path / "says.py"
    program.write_text(SAYS, encoding="utf-8")
    with listening() as (url, heard), listening() as (other, also):
        write_jobs(tmp_path / "jobs.yaml", JOBS.format(notify="$HOOK"))
        done = run(
            tmp_path, "--notify", f"slack:{other}", "--exec",
            f"{shlex.quote(sys.executable)} says.py", "--json",
            HOOK=url, ASYNCPIPE_NOTIFY_SECRET=SECRET, ATLASCLOUD_API_KEY="apikey-secret",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)  # and nothing of what the command says
    (headers, body), (slack, text) = heard[0], also[0]
    assert len(heard) == len(also) == 1
    told = Webhook(SECRET).verify(body, headers)
    assert told["type"] == "asyncpipe.run.ended"
    facts = told["data"]
    assert (facts["succeeded"], facts["exit_code"], facts["simulated"]) == (1, 0, True)
    assert "webhook-signature" not in {name.lower() for name in slack}
    assert "Jobs: 1 of 1 succeeded" in json.loads(text)["text"]
    by_command, code, key = json.loads((tmp_path / "told").read_text(encoding="utf-8"))
    assert by_command["text"] == facts["text"]
    assert (code, key) == ("0", None)


def test_who_cannot_be_told_changes_no_exit_code(tmp_path: Path) -> None:
    """It is a remark, which shows no token."""
    with listening(status=404) as (url, heard):
        write_jobs(tmp_path / "jobs.yaml", JOBS.format(notify=f"[{url}]"))
        done = run(tmp_path, "--exec", f"{shlex.quote(sys.executable)} -c 'exit(9)'")
    assert done.returncode == 0, done.stderr
    assert len(heard) == 1
    assert "not told: 127.0.0.1: it answered 404" in done.stderr
    assert "ended with exit code 9" in done.stderr
    assert "token" not in done.stderr


def test_what_keeps_a_run_from_beginning_is_told(tmp_path: Path) -> None:
    """There is no key; then the job file has a mistake, of which only the options' URL is told."""
    with listening() as (url, heard):
        write_jobs(tmp_path / "jobs.yaml", JOBS.format(notify=url))
        done = asyncpipe("run", "jobs.yaml", cwd=tmp_path)
        assert done.returncode == 2
        write_jobs(tmp_path / "jobs.yaml", "jobs: 7")
        assert run(tmp_path, "--notify", url).returncode == 2
    told = [json.loads(body) for _, body in heard]
    assert [each["type"] for each in told] == ["asyncpipe.run.stopped"] * 2
    assert "ATLASCLOUD_API_KEY" in told[0]["data"]["reason"]
    assert [each["data"]["exit_code"] for each in told] == [2, 2]
    assert "jobs.yaml:1" in told[1]["data"]["reason"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("http://me.example/hook", None),
        ("teams:https://me.example/", "jobs.yaml:1: notify: write an https URL"),
        ("7", "jobs.yaml:1"),
        ("[]\nnotify_secret: " + SECRET, "jobs.yaml:2: notify_secret: name an environment"),
        ("$NOT_SET", None),
        ("https://me.example/\nnotify_secret: $NOT_SET", None),
    ],
)
def test_what_cannot_be_told_is_said_before_anything_is_bought(
    tmp_path: Path, said: str, line: str | None
) -> None:
    """With file and line where it stands there; a secret is not repeated."""
    write_jobs(tmp_path / "jobs.yaml", JOBS.format(notify=said))
    done = run(tmp_path)
    assert done.returncode == 2
    assert (line or "not") in done.stderr
    assert SECRET not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_job_file_runs_no_command(tmp_path: Path) -> None:
    """It may be somebody else's."""
    write_jobs(tmp_path / "jobs.yaml", JOBS.format(notify="[]\nexec: touch pwned"))
    done = run(tmp_path)
    assert done.returncode == 2
    assert "exec" in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_a_run_that_waits_for_people_says_so(tmp_path: Path) -> None:
    """Its submit lost the answer, and the list is not there: exit 75, and what to do."""
    with listening() as (url, heard):
        write_jobs(tmp_path / "jobs.yaml", JOBS.format(notify=url))
        done = run(tmp_path, "--simulate-faults", "dropped=1,no_history=1", "--search-s", "1")
    assert done.returncode == 75, done.stderr
    told = json.loads(heard[-1][1])
    assert told["type"] == "asyncpipe.run.needs_decision"
    assert "asyncpipe resolve out" in told["data"]["remedy"]
    assert books(tmp_path / "out").counter("submits") == 1
