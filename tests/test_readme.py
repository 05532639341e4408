"""README as its readers use it: every block is run on the simulator, in a folder of its own."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from asyncpipe import load_jobs, read_manifest
from asyncpipe.cli.app import app
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support import ROOT
from tests.support.command_line import environment, job_lines, write_jobs

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FLUX = "black-forest-labs/flux-2-pro/text-to-image"


@dataclass(frozen=True)
class Block:
    """A fenced block, with the line of README that opens it."""

    line: int
    language: str
    code: str


def blocks() -> list[Block]:
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [Block(TEXT[: f.start()].count("\n") + 1, f[1], f[2]) for f in fences]


def of(language: str) -> list[Any]:
    return [pytest.param(b, id=f"line {b.line}") for b in blocks() if b.language == language]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """A new one is taken up below, or fails here."""
    assert {block.language for block in blocks()} == {"bash", "python"}
    assert TEXT.count("```") == 2 * len(blocks())


@dataclass(frozen=True)
class Desk:
    """A user's folder: the project's job files, and a command line that knows the simulator."""

    folder: Path
    variables: dict[str, str]

    def bash(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=environment(**self.variables),
            capture_output=True,
            encoding="utf-8",
            timeout=110,
            check=False,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """With a server beside it; what would install or test this project is only named."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, script in {
        "asyncpipe": f'exec "{sys.executable}" -m asyncpipe "$@"',
        "pip": 'test "$1" = install',
        "python": 'test "$*" = "-m pytest"',
        "python3": 'test "$*" = "-m venv .venv"',
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (commands / name).chmod(0o755)
    server = subprocess.Popen(
        [commands / "asyncpipe", "simulate", "--port", "0", "--speed", "60"],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        path = f"{commands}:{environment()['PATH']}"
        yield Desk(tmp_path, {"PATH": path, "ATLASCLOUD_BASE_URL": url})
        server.terminate()


posix = pytest.mark.skipif(sys.platform == "win32", reason="the blocks are bash's")


@posix
@pytest.mark.parametrize("block", of("bash"))
def test_what_is_to_be_typed_works(block: Block, desk: Desk) -> None:
    """As it stands, but for the names that a reader has to fill in."""
    write_jobs(desk.folder / "weekly.yaml", job_lines(2))
    write_jobs(desk.folder / ".env", "ATLASCLOUD_API_KEY=apikey-1\n")
    cron = re.sub(r"^0 6 \* \* 1 +cd /srv/content", f'cd "{desk.folder}"', block.code)
    script = cron.replace("\\%", "%").replace("FOLDER", "live_output")
    assert script.count("*") == 0, "a line of cron that is not understood"
    done = desk.bash(script)
    if "kill -9" in script:
        # What was killed may have had an answer in a socket: that job is unknown, and said to be.
        assert done.returncode in (0, 75), done.stdout + done.stderr
        totals = read_manifest(desk.folder / "catalog").totals
        assert totals.successful + totals.unknown == 500
    elif script.rstrip().splitlines()[-1].startswith("asyncpipe reconcile"):
        # Two folders were bought with one key, and one of them is compared.
        assert done.returncode == 1, done.stdout + done.stderr
        assert "somebody else may use the same key: another folder" in done.stdout
    else:
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("python"))
def test_what_is_to_be_programmed_works(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over sockets, with a key from the environment, in an output folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-1")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    jobs = [{"name": f"cup {n}", "model": FLUX, "prompt": "a cup"} for n in range(3)]
    names: dict[str, Any] = {"MODEL": FLUX, "jobs": jobs}
    settings, sold = SimulatorSettings(generation_s=(0.0, 0.0), port=0), list[str]()
    code = block.code if "asyncio.run(" in block.code else _as_main(block.code)

    async def main() -> None:
        async with Simulator(settings) as simulator:
            monkeypatch.setenv("ATLASCLOUD_BASE_URL", simulator.base_url)
            # A thread, since a script starts a loop of its own.
            await asyncio.to_thread(exec, compile(code, f"README:{block.line}", "exec"), names)
            sold.extend(p.outcome for p in simulator.books.predictions())

    asyncio.run(main())
    if "asyncio.run(" in block.code:
        weekly = len(load_jobs(ROOT / "configs" / "weekly.yaml").jobs)
        assert (capsys.readouterr().out, len(sold)) == (f"{weekly}\n", weekly)
    else:
        assert names["manifest"].totals.successful == len(sold) == len(jobs) + 1


def _as_main(code: str) -> str:
    """A snippet that awaits, as the body of a coroutine whose names are kept."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    return f"import asyncio\nasync def main():\n    global manifest\n{body}asyncio.run(main())\n"


def test_what_is_installed_has_the_extras_that_are_named() -> None:
    """``pip install '.[word]'`` only warns of a word that is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r"'\.\[(\w+)\]'", TEXT))
    assert {"simulator", "dev"} <= named <= set(project["optional-dependencies"])


def options(command: click.Command) -> set[str]:
    return {
        opt for parameter in command.params for opt in [*parameter.opts, *parameter.secondary_opts]
    }


def test_commands_and_options_in_the_prose_exist() -> None:
    """Every ``asyncpipe …`` is a command with these options; every other option is somebody's."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", TEXT)
    known = set().union(*(options(command) for command in app.commands.values()))
    commands = [span.split() for span in spans if span.startswith("asyncpipe ")]
    assert len(commands) > 8
    for _, name, *rest in commands:
        assert name in app.commands, name
        given = {word for word in rest if word.startswith("--")}
        assert given <= options(app.commands[name]), (name, given)
    given = {word for span in spans for word in re.findall(r"(?:^| )(--[a-z-]+)", span)}
    assert given <= known, given - known
