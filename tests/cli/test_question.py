"""Before more than 1 USD is spent without a cap: on a terminal a run shows it and asks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.simulator.server import Simulator
from tests.support.command_line import environment
from tests.support.simulator_client import beside_simulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")

QUESTION = "Submit them?"


def write_jobs(folder: Path, count: int, *, name: str = "jobs.yaml") -> None:
    """Pictures at 0.04 USD each."""
    (folder / name).write_text(
        "output_dir: out\nmax_workers: 30\npolling: {initial_s: 0.05, maximum_s: 0.1}\n"
        "defaults: {model: black-forest-labs/flux-2-pro/text-to-image}\njobs:\n"
        + "".join(f"  - {{name: 杯 {n}, prompt: mug {n}}}\n" for n in range(count)),
        encoding="utf-8",
    )


@dataclass(frozen=True, kw_only=True)
class Done:
    code: int
    said: str


async def on_terminal(*arguments: object, cwd: Path, answer: bytes | int = b"") -> Done:
    """Run asyncpipe on a terminal; ``answer`` the question with text, or with a signal."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncpipe", *map(str, arguments)),
        cwd=cwd,
        env=environment(ATLASCLOUD_API_KEY="k"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    said = b""
    left: bytes | int | None = answer
    try:
        while True:
            ended = process.returncode is not None
            try:
                piece = os.read(master, 65536)
            except BlockingIOError:
                if ended:
                    break
            except OSError:  # Linux says so when nobody has the other side open any more
                break
            else:
                if not piece:  # and macOS so
                    break
                said += piece
                continue
            if QUESTION.encode() in said and left is not None:
                if isinstance(left, int):
                    process.send_signal(left)
                else:
                    os.write(master, left)
                left = None
            await asyncio.sleep(0.02)
    finally:
        os.close(master)
    return Done(code=await process.wait(), said=" ".join(said.decode().split()))


def served(steps: Callable[[Simulator], Awaitable[Any]]) -> Any:
    return beside_simulator(steps, generation_s=(0.0, 0.0), body_bytes=2000)


def test_no_spends_nothing_and_yes_goes_on(tmp_path: Path) -> None:
    """1.20 USD: the estimate with its source, then the question; no is 130, as is Ctrl-C."""
    write_jobs(tmp_path, 30)

    async def steps(simulator: Simulator) -> None:
        run = ("run", "jobs.yaml", "--base-url", simulator.base_url)
        for answer in (b"\n", signal.SIGINT):
            done = await on_terminal(*run, cwd=tmp_path, answer=answer)
            assert done.code == 130, done.said
            assert "30 jobs 1.20 USD" in done.said
            assert "prices of 1 model(s) from: provider quote of 20" in done.said
            assert simulator.books.submits() == 0
        assert not (tmp_path / "out" / ".asyncpipe" / "ledger.sqlite3").exists()
        done = await on_terminal(*run, cwd=tmp_path, answer=b"y\n")
        assert (done.code, len(simulator.books.predictions())) == (0, 30), done.said
        done = await on_terminal(*run, cwd=tmp_path)
        assert (done.code, QUESTION in done.said) == (0, False)

    served(steps)


@pytest.mark.parametrize("options", [("--yes",), ("--max-cost", "5")])
def test_nobody_is_asked_who_said_it_already(tmp_path: Path, options: tuple[str, ...]) -> None:
    write_jobs(tmp_path, 30)

    async def steps(simulator: Simulator) -> None:
        run = ("run", "jobs.yaml", "--base-url", simulator.base_url, *options)
        done = await on_terminal(*run, cwd=tmp_path, answer=b"n\n")
        assert (done.code, QUESTION in done.said) == (0, False), done.said
        assert len(simulator.books.predictions()) == 30

    served(steps)


def test_only_what_is_still_to_be_bought_counts(tmp_path: Path) -> None:
    """25 pictures are 1.00 USD and no question; of 30 then, five are left: no question either."""

    async def steps(simulator: Simulator) -> None:
        run = ("run", "jobs.yaml", "--base-url", simulator.base_url)
        for count in (25, 30):
            write_jobs(tmp_path, count)
            done = await on_terminal(*run, cwd=tmp_path, answer=b"n\n")
            assert (done.code, QUESTION in done.said) == (0, False), done.said
            assert len(simulator.books.predictions()) == count

    served(steps)


def test_a_simulated_run_never_asks(tmp_path: Path) -> None:
    """Its money is not real."""
    write_jobs(tmp_path, 30)
    run = ("run", "jobs.yaml", "--simulate", "--simulate-speed", 1000)
    done = asyncio.run(on_terminal(*run, cwd=tmp_path, answer=b"n\n"))
    assert (done.code, QUESTION in done.said) == (0, False), done.said


def test_in_a_pipe_it_goes_on(tmp_path: Path) -> None:
    """Cron cannot answer."""
    write_jobs(tmp_path, 30)

    async def steps(simulator: Simulator) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asyncpipe", "run", "jobs.yaml"),
            *("--base-url", simulator.base_url),
            cwd=tmp_path,
            env=environment(ATLASCLOUD_API_KEY="k"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert QUESTION not in (out + err).decode()
        assert len(simulator.books.predictions()) == 30

    served(steps)
