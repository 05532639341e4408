"""``asyncpipe work``: which command it becomes, and what is seen of it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from asyncpipe.cli.app import run_command

BROKER = "redis://:secret-of-the-broker@127.0.0.1:6379/0"
LEDGER = "postgresql://me:secret-of-the-ledger@127.0.0.1/jobs"


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would have taken this process's place."""
    found: dict[str, Any] = {}
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-of-the-worker")

    def become(path: str, command: list[str], variables: dict[str, str]) -> None:
        found.update(command=command, variables=variables)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", become)
    return found


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        ("celery", ["-m celery ", "--pool prefork --concurrency 1", "--queues asyncpipe"]),
        ("rq", ["-m rq.cli worker", "--worker-ttl 20", "ShardWorker", "PlainSerializer"]),
    ],
)
def test_it_becomes_the_queues_own_worker(
    queue: str, words: list[str], became: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the measured settings, and passwords in no argument and on no screen."""
    options = ["--queue", queue, "--broker", BROKER, "--ledger", LEDGER, "--lease-s", "30"]
    with pytest.raises(SystemExit):
        run_command(["work", *options])
    line = " ".join(became["command"])
    assert [word for word in words if word not in line] == []
    assert became["variables"]["ASYNCPIPE_LEDGER"] == LEDGER
    assert became["variables"]["ASYNCPIPE_BROKER"] == BROKER
    assert became["variables"]["ASYNCPIPE_LEASE_S"] == "30"
    said = capsys.readouterr()
    assert "secret" not in line + said.out + said.err
    assert "redis://:***@127.0.0.1:6379/0" in said.err


def test_variables_name_broker_and_ledger(
    became: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no list of processes shows them."""
    monkeypatch.setenv("ASYNCPIPE_BROKER", BROKER)
    monkeypatch.setenv("ASYNCPIPE_LEDGER", LEDGER)
    with pytest.raises(SystemExit):
        run_command(["work", "--queue", "rq"])
    assert became["variables"]["RQ_REDIS_URL"] == BROKER


def test_several_shards_at_once_are_celerys(
    became: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--broker", BROKER, "--ledger", LEDGER, "--concurrency", "2"]
    assert run_command(["work", "--queue", "rq", *options]) == 2
    assert "start several" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_command(["work", "--queue", "celery", *options])
    assert "--concurrency 2" in " ".join(became["command"])


def test_a_worker_without_a_key_is_refused_before_it_fails_shards(
    became: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ATLASCLOUD_API_KEY")
    assert run_command(["work", "--queue", "rq", "--broker", BROKER, "--ledger", LEDGER]) == 2
    assert "a worker needs the key: set ATLASCLOUD_API_KEY" in capsys.readouterr().err
    assert not became
