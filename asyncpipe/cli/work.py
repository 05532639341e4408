"""``asyncpipe work``: a worker of the queue that is there, with the settings that lose no work."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from asyncpipe._text import printable
from asyncpipe.cli.session import echo
from asyncpipe.errors import UsageError
from asyncpipe.providers import has_key, key_variable, provider_named
from asyncpipe.queues import WorkerSettings, queue_of, shown


def start_worker(
    *,
    queue: str,
    broker: str,
    queue_name: str,
    concurrency: int,
    ledger: str,
    lease_s: float,
    grace_s: float,
    provider: str | None = None,
) -> int:
    """Become the engine's own worker command; returns its exit code where a process cannot."""
    name = provider_named(provider)
    if not has_key(name):
        raise UsageError(f"a worker needs the key: set {key_variable(name)}, or give --env-file")
    settings = WorkerSettings(ledger=ledger, lease_s=lease_s, grace_s=grace_s)
    command, own = queue_of(queue).worker(broker, queue_name, concurrency, lease_s)
    echo(
        printable(
            f"a worker of {queue}: shards of {queue_name} from {shown(broker)}, jobs from "
            f"{shown(ledger)}; SIGTERM lets it finish what is quick and give the rest back"
        )
    )
    return _become(command, {**os.environ, **own, **settings.variables})


def _become(command: list[str], variables: Mapping[str, str]) -> int:
    if os.name == "posix":
        os.execve(command[0], command, variables)  # noqa: S606 (signals reach the worker itself)
    return subprocess.run(command, env=variables, check=False).returncode  # noqa: S603
