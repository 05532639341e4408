"""Webhooks from the submit that asks for one to the end, over sockets, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import (
    AtlasCloud,
    Fal,
    Job,
    JobType,
    Pipeline,
    Polling,
    Rate,
    Replicate,
    SpendingLimits,
)
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.webhooks import receiver
from tests.support.clock import Clock

MODEL = "black-forest-labs/flux-dev"
JOBS = 30


PROVIDERS: dict[str, type[AtlasCloud | Fal | Replicate]] = {
    "atlas": AtlasCloud,
    "fal": Fal,
    "replicate": Replicate,
}


class Door:
    """What a receiver delivers to, once there is one."""

    pipeline: Pipeline

    async def deliver(self, headers: Any, body: bytes, *, verifier: Any = None) -> int:
        return await self.pipeline.deliver(headers, body, verifier=verifier)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a run went: its jobs, its deliveries, and what the simulator counted."""

    succeeded: int
    deliveries: dict[str, int]
    polls: int
    sold: int
    took_s: float
    counts: dict[str, int]


COUNTS = ("sent_200", "forged_401", "stale_400", "replayed_409", "twice_200", "lost", "keys")


def told(books: Books) -> dict[str, int]:
    counted = {name: books.counter(f"callback_{name}") for name in COUNTS}
    return {name: count for name, count in counted.items() if count}


def ran(
    clock: Clock,
    folder: Path,
    *,
    called: bool = True,
    path: str = "/webhooks",
    polling: Polling | None = None,
    profile: str = "atlas",
    faults: Faults | None = None,
) -> Ran:
    """Run JOBS jobs beside a simulator and a receiver, each on a port of its own."""

    async def main() -> Ran:
        door = Door()
        app = web.Application()
        app.add_subapp(path, receiver(door))
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        settings = SimulatorSettings(
            speed=1,
            profile=profile,
            faults=faults or Faults(),
            books=folder / "books.sqlite3",
            generation_s=(8.0, 90.0),
            body_bytes=1000,
        )
        async with Simulator(settings) as simulator:
            provider = PROVIDERS[profile](
                "apikey-called-back",
                base_url=simulator.base_url,
                simulated=True,
                webhook_url=url if called else None,
            )
            door.pipeline = Pipeline(
                provider,
                folder / "out",
                seed=1,
                polling=polling,
                spending=SpendingLimits(prices={MODEL: Rate(per_image=Decimal("0.04"))}),
                storage={"min_free_bytes": 0},
            )
            started = clock.time()
            async with door.pipeline:
                jobs = [
                    Job(name=f"mug {n}", model=MODEL, type=JobType.IMAGE, prompt="a mug")
                    for n in range(JOBS)
                ]
                manifest = await door.pipeline.batch_generate(jobs)
                took_s = clock.time() - started
            books = simulator.books
            sold = books.predictions()
            found = Ran(
                succeeded=manifest.totals.successful,
                deliveries=dict(door.pipeline.deliveries),
                polls=sum(each.polls for each in sold),
                sold=len(sold),
                took_s=took_s,
                counts=told(books),
            )
        await runner.cleanup()
        return found

    folder.mkdir(parents=True, exist_ok=True)
    return clock.run(main())


def test_with_webhooks_a_run_makes_one_poll_a_job(tmp_path: Path, one_clock: Clock) -> None:
    """And ends no later; the keys are fetched once."""
    without = ran(one_clock, tmp_path / "a", called=False)
    with_them = ran(one_clock, tmp_path / "b")
    assert without.succeeded == with_them.succeeded == JOBS
    assert without.counts == {}
    assert with_them.counts == {"sent_200": JOBS, "keys": 1}
    assert with_them.deliveries == {"woken": JOBS}
    assert with_them.polls < 1.5 * JOBS, "one for each delivery, and one where a minute passed"
    assert without.polls > 2 * with_them.polls
    assert with_them.took_s <= without.took_s


def test_a_run_ends_well_when_every_delivery_is_lost(tmp_path: Path, one_clock: Clock) -> None:
    """A minute later at most, and with fewer polls all the same."""
    without = ran(one_clock, tmp_path / "a", called=False)
    lost = ran(one_clock, tmp_path / "b", faults=Faults(callback_lost=1.0))
    assert lost.succeeded == lost.sold == JOBS
    assert lost.counts == {"lost": JOBS}
    assert lost.deliveries == {}
    assert lost.polls < without.polls
    assert lost.took_s < without.took_s + 60


@pytest.mark.parametrize("profile", PROVIDERS)
def test_forged_stale_and_replayed_deliveries_are_refused(
    tmp_path: Path, one_clock: Clock, profile: str
) -> None:
    """Each is counted, and none has anything polled."""
    found = ran(
        one_clock,
        tmp_path,
        profile=profile,
        faults=Faults(callback_forged=1.0, callback_stale=1.0, callback_replayed=1.0),
        polling=Polling(backstop_s=250),
    )
    assert found.succeeded == found.sold == found.polls == JOBS
    each = dict.fromkeys(("sent_200", "forged_401", "stale_400", "replayed_409"), JOBS)
    assert found.counts == {**each, "keys": 1}
    refused = dict.fromkeys(("forged", "stale", "replayed"), JOBS)
    assert found.deliveries == {"woken": JOBS, **refused}


@pytest.mark.parametrize("fault", ["late", "twice", "early"])
def test_deliveries_may_be_late_twice_or_before_the_answer(
    tmp_path: Path, one_clock: Clock, fault: str
) -> None:
    """Everything succeeds and is bought once; an early one has its job polled at once."""
    faults = Faults.parse(f"callback_{fault}=1")
    found = ran(one_clock, tmp_path, faults=faults, polling=Polling(backstop_s=250))
    assert found.succeeded == found.sold == found.polls == JOBS
    assert found.counts["sent_200"] == JOBS
    match fault:
        case "late":
            assert found.deliveries == {"woken": JOBS}
        case "twice":
            assert found.deliveries["woken"] == JOBS
            assert found.counts["twice_200"] == found.deliveries["kept"] > JOBS / 2
        case "early":
            assert found.deliveries == {"kept": JOBS}
            assert found.took_s < 5


def test_where_to_call_back_is_no_part_of_a_job(tmp_path: Path, one_clock: Clock) -> None:
    """The same jobs with another URL, or none, are bought already."""
    assert ran(one_clock, tmp_path).sold == JOBS
    assert ran(one_clock, tmp_path, path="/elsewhere").sold == JOBS
    assert ran(one_clock, tmp_path, called=False).sold == JOBS
