"""The gate: who goes first, who waits, and who gives a place up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asyncpipe.flow.gate import IN_A_ROW, Gate
from asyncpipe.flow.pace import Pace
from asyncpipe.testing import run_virtual


def in_gate(pace: Pace, test: Callable[[Gate], Any]) -> Any:
    async def main() -> Any:
        return await test(Gate(pace, clock=asyncio.get_running_loop().time))

    return run_virtual(main())


def test_without_a_limit_nobody_waits() -> None:
    """Ten thousand polls at once take no time."""

    async def test(gate: Gate) -> float:
        for _ in range(10_000):
            await gate.poll_turn()
            assert gate.submit_free()
            gate.submit_taken()
        return asyncio.get_running_loop().time()

    assert in_gate(Pace(), test) == 0.0


def test_polls_go_first_come_first_served_and_submits_before_them() -> None:
    """But after IN_A_ROW submits a waiting poll has its turn, so that neither starves."""
    order: list[str] = []

    async def poll(gate: Gate, name: str) -> None:
        await gate.poll_turn()
        order.append(name)

    async def test(gate: Gate) -> None:
        gate.submit_taken()  # the first turn is gone
        async with asyncio.TaskGroup() as tasks:
            for n in range(4):
                tasks.create_task(poll(gate, f"p{n}"))
            await asyncio.sleep(0)
            news = asyncio.Event()
            gate.news = news.set
            for _ in range(6):
                while not gate.submit_free():
                    await news.wait()
                    news.clear()
                gate.submit_taken()
                order.append("s")

    in_gate(Pace(cap=1.0), test)
    assert IN_A_ROW == 2
    assert order == ["s", "s", "p0", "s", "s", "p1", "s", "s", "p2", "p3"]


def test_held_polls_do_not_hold_submits() -> None:
    """A 429 on a poll with a wish to wait is for polls."""

    async def test(gate: Gate) -> tuple[bool, float]:
        gate.hold_polls(30.0)
        free = gate.submit_free()
        await gate.poll_turn()
        return free, asyncio.get_running_loop().time()

    assert in_gate(Pace(), test) == (True, 30.0)


def test_a_poll_that_is_cancelled_gives_its_place_up() -> None:
    """The next one moves up."""

    async def test(gate: Gate) -> float:
        gate.submit_taken()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.poll_turn(), 0.5)
        await gate.poll_turn()
        return asyncio.get_running_loop().time()

    assert in_gate(Pace(cap=1.0), test) <= 1.0
