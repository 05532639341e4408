"""Faults nothing can make good: each ends as what it is, over real sockets, told once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, JobState, Manifest, Pipeline, Polling
from asyncpipe.errors import BalanceExhausted, KeyRefused, Rejected
from asyncpipe.http.client import Timeouts
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def run(
    tmp_path: Path, count: int = 3, **faults: float
) -> tuple[Manifest, Exception | None, Books]:
    settings = SimulatorSettings(
        speed=500, faults=Faults(**faults), books=tmp_path / "books", body_bytes=5000
    )
    jobs = [Job(name=f"杯 {n}", model=FLUX, prompt=f"mug {n}") for n in range(count)]

    async def main() -> tuple[Manifest, Exception | None, Books]:
        async with Simulator(settings) as simulator:
            timeouts = Timeouts(submit_s=1.0)
            provider = AtlasCloud(
                "any", base_url=simulator.base_url, timeouts=timeouts, simulated=True
            )
            options: dict[str, Any] = {"polling": Polling(initial_s=0.02, maximum_s=0.1)}
            async with Pipeline(provider, tmp_path / "out", max_workers=1, **options) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
                return manifest, pipeline.stopped, Books(tmp_path / "books")

    return asyncio.run(main())


@pytest.mark.parametrize(
    "fault", ["dropped", "hung_submit", "server_error_submit", "nameless", "huge_answer"]
)
def test_a_lost_answer_is_unknown_and_never_sent_again(tmp_path: Path, fault: str) -> None:
    """However it is lost: sold once each, reserved to the cent, also after a second run."""
    for _ in range(2):
        manifest, stopped, books = run(tmp_path, 2, **{fault: 1.0})
        assert {result.state for result in manifest} == {JobState.UNKNOWN}
        assert len(books.predictions()) == books.submits() == 2
        assert Decimal(manifest.totals.reserved).scaleb(-6) == books.charged()
        assert stopped is None


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [("firewall", KeyRefused, "firewall"), ("no_balance", BalanceExhausted, "top it up")],
)
def test_what_no_submit_survives_stops_the_run(
    tmp_path: Path, fault: str, kind: type[Exception], said: str
) -> None:
    """One submit, nothing sold, everything still to do; then, without the fault, all is done."""
    manifest, stopped, books = run(tmp_path, 3, **{fault: 1.0})
    assert isinstance(stopped, kind)
    assert said in str(stopped)
    assert (books.submits(), len(books.predictions()), manifest.totals.pending) == (1, 0, 3)
    assert manifest.totals.charged == manifest.totals.reserved == 0
    assert run(tmp_path)[0].totals.successful == 3


def test_refusals_are_final_until_the_model_is_stopped(tmp_path: Path) -> None:
    """400: failed, free, with the reason and the trace id; the 21st job is not tried."""
    manifest, stopped, books = run(tmp_path, count=25, refused=1.0)
    assert isinstance(stopped, Rejected)
    assert (manifest.totals.failed, manifest.totals.pending, books.submits()) == (20, 5, 20)
    assert manifest.totals.charged == 0
    failed = [result for result in manifest if result.state is JobState.FAILED]
    assert all(result.request_id and "400" in str(result.error) for result in failed)


def test_moderation_is_final_free_and_never_asked_again(tmp_path: Path) -> None:
    """Also not by ``retry_failed``; its reason and code are kept."""
    manifest, _, books = run(tmp_path, moderated=1.0)
    assert (manifest.totals.failed, manifest.totals.charged) == (3, 0)
    assert len(books.predictions()) == 3
    assert all("content policy" in str(result.error) for result in manifest)


def test_media_that_is_gone_for_good_is_lost_and_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for anew first; then counted as failed, charged, with the reason."""
    monkeypatch.setattr("asyncpipe.engine.fetch.backoff_s", lambda *_, **__: 0.01)
    manifest, _, books = run(tmp_path, lost_media=1.0)
    assert {result.state for result in manifest} == {JobState.LOST}
    assert manifest.totals.failed == 3
    assert Decimal(manifest.totals.charged).scaleb(-6) == books.charged()
    assert all("404" in str(result.error) for result in manifest)
