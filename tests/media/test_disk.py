"""How much room there is: looked for at most once a second."""

from __future__ import annotations

from pathlib import Path

from asyncpipe.media.disk import GIB, DiskSpace


def test_room_looks_at_most_once_a_second() -> None:
    """And changes its mind when there is room again."""
    now, looks, free = [0.0], [], [GIB]

    def look(_: Path) -> int:
        looks.append(now[0])
        return free[0]

    room = DiskSpace(Path(), GIB, lambda: now[0], free=look)
    assert [room.enough() for _ in range(100)] == [True] * 100
    assert looks == [0.0]
    free[0] = GIB - 1
    now[0] = 1.0
    assert not room.enough()
    assert "1.00 GiB are free" in str(room.problem)
    free[0], now[0] = GIB, 2.5
    assert room.enough()
    assert room.problem is None
