"""The pytest plugin of asyncpipe: fixtures for tests of pipelines; nothing heavy until one is used.

``fake_provider``  a FakeProvider: any model has a price, every job ends at once
``simulator``      a simulator on loopback, in a thread; ``simulator.provider()`` asks it
``virtual_loop``   an event loop whose clock jumps over every wait
``failing_ledger`` ``with failing_ledger(pipeline):`` its ledger cannot be written

``@pytest.mark.simulator(profile="fal", faults="all=0.1", speed=1000)`` says how the simulator
behaves. They work with pytest alone, with pytest-asyncio and with anyio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asyncpipe.testing import (
        FakeProvider,
        RunningSimulator,
        VirtualTimeLoop,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "simulator(profile=, faults=, speed=, …): how asyncpipe's fixture simulator behaves",
    )


@pytest.fixture
def fake_provider() -> FakeProvider:
    """A provider that sells nothing: it takes any model, and what it is asked for ends at once."""
    from asyncpipe.testing import FakeProvider, Script

    return FakeProvider(default=Script(generation_s=0.0))


@pytest.fixture
def virtual_loop() -> Iterator[VirtualTimeLoop]:
    """An event loop in virtual time, closed at the test's end."""
    import asyncio

    from asyncpipe.testing import VirtualTimeLoop

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        yield loop


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> Iterator[RunningSimulator]:
    """A simulator that serves on loopback; ``@pytest.mark.simulator(…)`` says how it behaves."""
    from asyncpipe.testing import running_simulator

    marker = request.node.get_closest_marker("simulator")
    with running_simulator(**(marker.kwargs if marker is not None else {})) as running:
        yield running


@pytest.fixture
def failing_ledger() -> Callable[..., AbstractContextManager[None]]:
    """What breaks the ledger of a pipeline while a ``with`` block runs."""
    from asyncpipe.testing import failing_ledger as failing

    return failing
