"""Which signals a run listens to."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from asyncpipe.cli.session import heard_signals

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
