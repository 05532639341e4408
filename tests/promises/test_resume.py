"""The same command resumes: what is done is left, what is bought is fetched, nothing is resent."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

from asyncpipe.ledger.database import reading
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.server import Simulator
from tests.support.crashes import judge, killing, patient, runner, settings, submitting, two_jobs


@killing
@patient
def test_killed_around_a_skipped_pass_nothing_is_lost_or_removed(tmp_path: Path) -> None:
    """The same file again, killed at every step until it has submitted, and once more."""

    def passes(folder: Path) -> tuple[int, int]:
        with reading(folder) as connection:
            whole = connection.execute("SELECT count(*) FROM runs WHERE seen=id").fetchone()
            skipped = connection.execute("SELECT count(*) FROM runs WHERE seen<id").fetchone()
            return int(whole[0]), int(skipped[0])

    def kill_everywhere(url: str) -> int:
        skips = 0
        with runner(url) as runs, closing(Books(tmp_path / "books")) as books:
            for stop_at in range(10, 46, 3):
                folder = tmp_path / f"{stop_at}"
                jobs = two_jobs(f"same {stop_at}")
                assert runs.run(folder, jobs, stop_at=45, what="same")  # its pass has ended
                unknown = submitting(folder)
                assert runs.run(folder, jobs, stop_at=stop_at, what="same")
                unknown += submitting(folder)
                assert not runs.run(folder, jobs, stop_at=None, what="same")
                judge(folder, jobs, books, unknown)
                whole, skipped = passes(folder)
                assert whole == 1, "a pass was made again"
                skips += skipped
        return skips

    async def main() -> int:
        async with Simulator(settings(tmp_path)) as simulator:
            return await asyncio.to_thread(kill_everywhere, simulator.base_url)

    assert asyncio.run(main()) > 15, "no run was killed after it skipped its pass"
