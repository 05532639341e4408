"""What README shows: every snippet and every command is run, on the simulator."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import read_manifest
from asyncpipe.cli.app import app
from asyncpipe.jobs import BucketUrl
from tests.support import CONFIGS, ROOT
from tests.support.buckets import a_bucket
from tests.support.command_line import books, command, environment, start_simulator
from tests.support.postgres import shared_url

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
# What is for a queue needs servers: tests/queues/test_shown.py has them. Tests are run in a project
# of their own: tests/testing/test_plugin.py.
OWN = [
    (language, text)
    for language, text in BLOCKS
    if not re.search("queues|BROKER|rq|virtual_time", text)
]
PYTHON = [text for language, text in OWN if language == "python"]
SHELL = [text for language, text in OWN if language == "bash"]
INLINE = re.findall(r"`(asyncpipe [a-z][^`]*)`", README)
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)))

# What is installed here already, and what runs this very test.
INSTALLED = ("python3 -m venv ", ".venv/bin/pip install ", ".venv/bin/python -m pytest")
# Inline commands that need what a README cannot bring about, and why.
NOT_RUN = {
    "asyncpipe demo": "starts servers of its own: tests/queues/test_shown.py",
    "asyncpipe enqueue": "needs servers: tests/queues/test_shown.py",
    "asyncpipe work": "needs servers: tests/queues/test_shown.py",
    "asyncpipe resolve": "needs a lost answer",
    "asyncpipe simulate": "serves until it is interrupted",
    "asyncpipe validate": "named without its file",
}
# An asyncpipe that is quick on its own simulator, and a sleep until there is something to kill.
SHIM = """\
#!/bin/bash
for word in "$@"; do [ "$word" = --simulate ] && set -- "$@" --simulate-speed 30; done
exec {python} -m asyncpipe "$@"
"""
DATABASE = "postgresql://me@db.example.com/jobs"
SLEEP = """\
#!/bin/bash
until [ -n "$(ls catalog/images 2>/dev/null)" ]; do /bin/sleep 0.02; done
"""


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "bash", "ini"}
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder as README has it, beside a server that stands in for the real one."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    catalog = tmp_path / "configs" / "catalog_500.yaml"  # twenty will do
    catalog.write_text(catalog.read_text("utf-8").replace("count: 25", "count: 1"), "utf-8")
    shutil.copy(CONFIGS / "weekly.yaml", tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("asyncpipe", SHIM.format(python=sys.executable)), ("sleep", SLEEP)):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    server, url = start_simulator(tmp_path)
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-of-the-readme")
    monkeypatch.setenv("ATLASCLOUD_BASE_URL", url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"ATLASCLOUD_BASE_URL={url}\n", encoding="utf-8")
    with a_bucket(monkeypatch, BUCKET):
        yield tmp_path
    server.terminate()
    server.communicate(timeout=60)


BUCKET = "my-bucket"


def all_is_done(home: Path) -> None:
    """Every output folder has all its jobs, and there is one."""
    folders = [path.parent for path in home.rglob("manifest.json")]
    assert folders
    for folder in folders:
        totals = read_manifest(folder).totals
        assert (totals.successful, totals.pending) == (totals.total, 0), folder
        assert totals.total > 0, folder


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.split("\n")[0])
def test_python_snippets_run(home: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand, but for the model and the jobs that they leave to the reader."""
    model = "black-forest-labs/flux-2-pro/text-to-image"
    jobs = [{"name": f"杯 {n}", "model": model, "prompt": f"mug {n}"} for n in range(3)]
    names: dict[str, Any] = {"__name__": "readme", "MODEL": model, "jobs": jobs}
    code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    ended = eval(code, names)
    if inspect.iscoroutine(ended):
        asyncio.run(ended)
    assert capsys.readouterr().out
    all_is_done(home)


def runnable(block: str) -> str:
    """The commands of a block without what is installed already, and what cron makes of its line.

    cron takes five fields as the time and writes ``%`` for ``\\%``.
    """
    lines = []
    for line in block.splitlines():
        cron = re.fullmatch(r"(?:[\d*]+ ){5} *(.*)", line)
        text = cron[1].replace("\\%", "%").replace("/srv/content", ".") if cron else line
        parts = [part for part in text.split(" && ") if not part.startswith(INSTALLED)]
        lines.append(" && ".join(parts) or "true")
    return "\n".join(lines)


def ends(script: str) -> set[int]:
    """Exit codes that are right. A bill that is reconciled last has what other folders bought."""
    return {0, 1} if " reconcile " in script.splitlines()[-1] else {0}


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="needs bash and SIGKILL")
@pytest.mark.parametrize("block", SHELL, ids=lambda text: text.split("\n")[0][:40])
def test_shell_blocks_run(home: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line after line, to exit code 0; what is killed goes on, and nothing is paid twice."""
    script = runnable(block)
    if BUCKET in script or DATABASE in script:
        monkeypatch.setenv("ASYNCPIPE_LEDGER", shared_url())
        script = script.replace(f"={DATABASE}", f"='{shared_url()}'")
        shutil.copy(CONFIGS / "live.yaml", "jobs.yaml")
    if "FOLDER" in script:
        subprocess.run([*command("run", "configs/live.yaml"), "-o", "FOLDER", "-q"], check=True)
    done = subprocess.run(
        ["bash", "-e", "-c", script.replace("apikey-...", "apikey-of-the-readme")],
        env=environment(PATH=f"{home / '.venv' / 'bin'}:{os.environ['PATH']}"),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=250,
    )
    assert done.returncode in ends(script), done.stderr
    assert "Traceback" not in done.stderr
    if "asyncpipe" not in script:
        return
    if BUCKET in script:
        assert read_manifest(BucketUrl.parse(f"s3://{BUCKET}/shop/week-48")).totals.successful
        assert "X-Amz-Signature" in (home / "links.csv").read_text(encoding="utf-8-sig")
        return
    all_is_done(home)
    if "kill" in script:
        bought = [each.body["prompt"] for each in books(home / "catalog").predictions()]
        assert len(bought) == len(set(bought)) == 20


@pytest.mark.timeout(300)
def test_inline_commands_run(home: Path) -> None:
    """Those in the text and in its tables, in turn; placeholders are folders that are done."""
    for folder in ("FOLDER", "文件夹"):
        subprocess.run([*command("run", "configs/live.yaml"), "-o", folder, "-q"], check=True)
    left = set(NOT_RUN)
    for text in dict.fromkeys(INLINE):
        words = text.split()
        assert words[1] in app.commands, text
        if (name := " ".join(words[:2])) in NOT_RUN:
            left.discard(name)
            continue
        if words[1] == "init":
            Path(words[2]).unlink(missing_ok=True)
        if words[1] in ("estimate", "run") and not Path(words[2]).exists():
            shutil.copy(CONFIGS / "live.yaml", words[2])
        done = subprocess.run(
            command(*words[1:]), capture_output=True, encoding="utf-8", check=False, timeout=250
        )
        assert done.returncode in ends(text), (text, done.stderr)
    assert not left, "not in README any more"


def test_options_that_are_named_exist() -> None:
    """Wherever they stand; systemctl's and uvicorn's apart, there are none but ours."""
    known = {name for each in app.commands.values() for p in each.params for name in p.opts}
    known |= {"--now", "--workers"}
    assert [name for name in OPTIONS if name not in known] == []


def test_what_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 1
    assert [link for link in links if not (ROOT / link).exists()] == []
