"""Commands in processes of their own that have our modules loaded when they begin."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from functools import cache
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

from asyncpipe.cli import main

LOADED = (
    *("asyncpipe.cli.run", "asyncpipe.cli.reconcile", "asyncpipe.engine", "asyncpipe.simulator"),
    *("asyncpipe.report.export", "asyncpipe.report.progress", "aiohttp.web", "rich.live", "yaml"),
    *("PIL.Image", "av", "jsonschema_rs", "uvloop", "anyio._backends._asyncio", "pydantic"),
    *("asyncpipe.jobfile.models", "asyncpipe.commands.survey", "asyncpipe.commands.precheck"),
)

NULL = Path(os.devnull)


@cache
def server() -> BaseContext:
    """What forks them: begun with the first, ends with the process that asked for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.forked", *LOADED])
    return context


def command(
    arguments: list[str], *, cwd: Path, env: dict[str, str], timeout_s: float
) -> CompletedProcess[str]:
    """Run ``asyncpipe`` as the system would, but for the second that its imports take."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = begun(arguments, cwd=cwd, env=env, out=out, err=err)
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutExpired(arguments, timeout_s)
        said = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
        code = process.exitcode
        process.close()
    return CompletedProcess(arguments, code, *said)


def begun(
    arguments: list[str], *, cwd: Path, env: dict[str, str], out: Path = NULL, err: Path = NULL
) -> BaseProcess:
    """Begin a command that its caller waits for, or kills."""
    process: BaseProcess = server().Process(  # type: ignore[attr-defined]
        target=_begin, args=(arguments, cwd, env, out, err)
    )
    process.start()
    return process


def _begin(arguments: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for stream, target in ((sys.stdout, out), (sys.stderr, err)):
        with target.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.argv = ["asyncpipe", *arguments]
    main()
