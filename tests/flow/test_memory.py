"""What runs keep for the next one: never in the way, never too old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from asyncpipe import AtlasCloud
from asyncpipe.engine.engine import memory_of
from asyncpipe.flow.memory import STALE, Memory
from asyncpipe.providers.base import account_of
from asyncpipe.testing import FakeProvider

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Memory("window", origin="https://api.example", account="a1b2")


def test_what_is_kept_comes_back_beside_what_others_kept(memory: Memory) -> None:
    """One run knows one model, the next another; the third knows both."""
    memory.save({"m/x": {"size": 24}}, today=NOW)
    memory.save({"m/杯": {"size": 3}}, today=NOW)
    assert memory.load(today=NOW) == {"m/x": {"size": 24}, "m/杯": {"size": 3}}


def test_what_is_old_is_not_believed(memory: Memory) -> None:
    """Limits change; so do clocks: what comes from the future is not believed either."""
    memory.save({"m/x": 1}, today=NOW)
    assert memory.load(today=NOW + STALE) == {"m/x": 1}
    assert memory.load(today=NOW + STALE + timedelta(seconds=1)) == {}
    assert memory.load(today=NOW - timedelta(seconds=1)) == {}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"format":9,"models":{}}', b'{"format":1,"models":[]}']
)
def test_a_damaged_file_is_as_good_as_none(memory: Memory, tmp_path: Path, damage: bytes) -> None:
    """It is read as empty and replaced by the next save."""
    memory.save({"m/x": 1}, today=NOW)
    (file,) = (tmp_path / "asyncpipe").iterdir()
    file.write_bytes(damage)
    assert memory.load(today=NOW) == {}
    memory.save({"m/y": 2}, today=NOW)
    assert memory.load(today=NOW) == {"m/y": 2}


def test_a_damaged_entry_spoils_no_other(memory: Memory, tmp_path: Path) -> None:
    """It is ignored, and gone with the next save; so is what is too old."""
    memory.save({"m/x": 1}, today=NOW)
    (file,) = (tmp_path / "asyncpipe").iterdir()
    kept = orjson.loads(file.read_bytes())
    kept["models"] |= {"a": None, "b": {"at": 5, "learned": 1}, "c": {"at": NOW.isoformat()}}
    old = (NOW - STALE).isoformat()
    kept["models"] |= {"d": {"at": "x", "learned": 1}, "old": {"at": old, "learned": 1}}
    file.write_bytes(orjson.dumps(kept))
    later = NOW + timedelta(seconds=1)
    assert memory.load(today=later) == {"m/x": 1}
    memory.save({"m/y": 2}, today=later)
    assert orjson.loads(file.read_bytes())["models"].keys() == {"m/x", "m/y"}


def test_accounts_and_subjects_do_not_mix(memory: Memory) -> None:
    """Another account has other limits."""
    memory.save({"m/x": 1}, today=NOW)
    assert Memory("window", origin="https://api.example", account="zz").load(today=NOW) == {}
    assert Memory("latency", origin="https://api.example", account="a1b2").load(today=NOW) == {}


def test_a_folder_that_cannot_be_written_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run does not end badly because nothing could be kept of it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    memory = Memory("window", origin="o", account="a")
    memory.save({"m/x": 1}, today=NOW)
    assert memory.load(today=NOW) == {}


def test_an_account_is_told_by_a_word_that_is_not_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same key, the same word; no piece of the key is in it, or in the file's name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = "apikey-0123456789abcdef"
    one, same, other = AtlasCloud(key), AtlasCloud(f" {key} "), AtlasCloud(key + "0")
    assert account_of(one) == account_of(same) != account_of(other)
    assert len(account_of(one)) == 12
    assert account_of(AtlasCloud(keyless=True)) == account_of(FakeProvider()) == ""
    kept = memory_of(one, "latency")
    assert kept is not None
    kept.save({"m": 1})
    (file,) = (tmp_path / "asyncpipe").iterdir()
    assert account_of(one) in file.name
    assert key not in file.name + file.read_text()
    assert account_of(one) not in key


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:9/api/v1", "http://localhost:9"])
def test_nothing_is_kept_of_what_is_not_the_real_api(base_url: str) -> None:
    """A simulator's times would mislead the next real run."""
    assert memory_of(AtlasCloud("key", base_url=base_url), "latency") is None
    assert memory_of(AtlasCloud(base_url=base_url, simulated=True), "latency") is None
    assert memory_of(FakeProvider(simulated=True, origin="https://api.example"), "x") is None
    assert memory_of(FakeProvider(simulated=False, origin="https://api.example"), "x")
