"""Which signals a run listens to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncpipe import Pipeline
from asyncpipe.cli.session import End, Output, heard_signals, run_session
from asyncpipe.errors import DiskError
from asyncpipe.testing import FakeProvider

SIGHUP = getattr(signal, "SIGHUP", None)


@pytest.fixture
def hang_up() -> Iterator[signal.Signals]:
    """The signal of a terminal that is closed, as it was before afterwards."""
    if SIGHUP is None:
        pytest.skip("there is none on Windows")
    before = signal.getsignal(SIGHUP)
    yield SIGHUP
    signal.signal(SIGHUP, before)


@pytest.mark.parametrize("ignored", [True, False])
def test_a_hang_up_drains_unless_it_was_ignored_at_the_start(
    hang_up: signal.Signals, ignored: bool
) -> None:
    """As nohup does; the terminal's end is otherwise no reason to lose an answer."""
    signal.signal(hang_up, signal.SIG_IGN if ignored else signal.SIG_DFL)
    assert (hang_up in heard_signals()) is not ignored


def test_without_hang_ups_the_others_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    assert heard_signals() == [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("quiet", [True, False])
def test_why_a_run_stopped_is_always_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quiet: bool,
) -> None:
    """With ``-q`` too: a nearly full disk ended runs without one byte on stderr."""
    monkeypatch.setattr("asyncpipe.cli.session.prepare_process", lambda: None)

    async def work() -> End:
        async with Pipeline(FakeProvider(), tmp_path) as pipeline:
            await pipeline.batch_generate([])
        return End(stopped=DiskError("磁盘 is nearly full"))

    output = Output(quiet=quiet)
    assert run_session(tmp_path, work, output=output, simulated=True) == 3
    said = capsys.readouterr()
    assert "磁盘 is nearly full" in (said.err if quiet else said.out)
    assert not quiet or said.out == ""
