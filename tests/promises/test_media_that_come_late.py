"""Nothing paid is given up while it can be had: media hosts that are away, ban or lag behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import Manifest, Pipeline
from asyncpipe.engine.chase import PATIENCE_S
from asyncpipe.errors import DownloadError
from asyncpipe.jobs.states import JobState
from asyncpipe.report import summary
from asyncpipe.report.status import read_status, status_lines
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.media import PNG
from tests.support.pipelines import counts_agree, job, opened
from tests.support.servers import serving

Status = Callable[[float], int]
"""What a media host answers so many virtual seconds after its start; 0: it drops the connection."""


def between(start: float, end: float, status: int) -> Status:
    return lambda at: status if start <= at < end else 200


def run_with_host(
    folder: Path,
    status: Status,
    names: list[str],
    generation_s: Callable[[int], float] = lambda _: 10.0,
    **options: Any,
) -> tuple[Manifest, Pipeline, FakeProvider, float]:
    """A batch whose media lie at a host of ours; returns as well the virtual seconds it took."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        code = status(asyncio.get_running_loop().time())
        if code == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=code, body=PNG, content_type="image/png")

    async def main() -> tuple[Manifest, Pipeline, FakeProvider, float]:
        async with serving(answer) as origin:
            scripts = {
                name: Script(outputs=(f"{origin}/{n}.png",), generation_s=generation_s(n))
                for n, name in enumerate(names)
            }
            provider = FakeProvider(scripts=scripts, origin=origin)
            async with opened(folder, provider, **options) as pipeline:
                manifest = await pipeline.batch_generate([job(name) for name in names])
                await counts_agree(pipeline)
                took_s = asyncio.get_running_loop().time()
        return manifest, pipeline, provider, took_s

    return run_virtual(main())


NAMES = [f"杯子 {n}" for n in range(12)]


@pytest.mark.parametrize("code", [0, 500, 503, 403, 404, 410, 429])
def test_a_host_that_is_away_in_mid_run_costs_no_job(tmp_path: Path, code: int) -> None:
    """For a minute, while others are still being generated; and no second command."""
    manifest, pipeline, provider, _ = run_with_host(
        tmp_path, between(15, 75, code), NAMES, lambda n: 10.0 + 10 * n, max_workers=4
    )
    assert (manifest.totals.successful, pipeline.stopped) == (12, None)
    assert len(provider.sold) == 12


@pytest.mark.parametrize("code", [0, 403, 404, 502])
def test_a_host_that_is_away_at_the_end_is_waited_for(tmp_path: Path, code: int) -> None:
    """Five minutes of a firewall's page, when nothing else is left to do."""
    manifest, _, _, took_s = run_with_host(tmp_path, between(0, 300, code), NAMES[:3])
    assert manifest.totals.successful == 3
    assert 300 <= took_s < 400


def test_a_dead_host_ends_the_run_after_its_patience(tmp_path: Path) -> None:
    """The jobs stay generated; summary and status say how many, and whose fault it is."""
    manifest, pipeline, _, took_s = run_with_host(
        tmp_path, lambda _: 500, NAMES[:3], patience_s=120.0
    )
    totals = manifest.totals
    assert (totals.jobs[JobState.GENERATED], totals.pending, totals.unknown) == (3, 3, 0)
    assert pipeline.stopped is None
    assert 120 <= took_s < 200
    said = " ".join(summary(totals, elapsed_s=1.0, manifest="m", simulated=False))
    assert "3 x media host answers 500" in said
    assert "3 paid and not downloaded: media host answers 500" in " ".join(
        status_lines(read_status(tmp_path))
    )
    assert all("run the same command again" in str(result.error) for result in manifest)


def test_without_a_word_patience_has_an_end(tmp_path: Path) -> None:
    """In the library, too."""
    *_, took_s = run_with_host(tmp_path, lambda _: 404, NAMES[:1])
    assert PATIENCE_S <= took_s < PATIENCE_S + 100


def test_patience_counts_from_the_last_good_news(tmp_path: Path) -> None:
    """Each download that succeeds, and each job that still comes, begins it anew."""
    manifest, *_ = run_with_host(
        tmp_path,
        lambda at: 200 if int(at / 80) % 2 else 503,
        NAMES,
        lambda n: 24.0 * n,
        patience_s=100.0,
    )
    assert manifest.totals.successful == 12


def test_the_next_run_fetches_what_a_dead_host_kept(tmp_path: Path) -> None:
    """Nothing is bought again."""
    code = 403

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=code, body=PNG)

    async def main() -> None:
        nonlocal code
        async with serving(answer) as origin:
            provider = FakeProvider(default=Script(outputs=(f"{origin}/x.png",)))
            async with opened(tmp_path, provider, patience_s=30.0) as pipeline:
                manifest = await pipeline.batch_generate([job(name) for name in NAMES[:3]])
                assert manifest.totals.jobs[JobState.GENERATED] == 3
            code = 200
            async with opened(tmp_path, provider) as pipeline:
                assert (await pipeline.collect()).totals.successful == 3
                await counts_agree(pipeline)
            assert len(provider.sold) == 3

    run_virtual(main())


def test_a_caller_hears_of_a_dead_host_and_the_job_is_chased_on(tmp_path: Path) -> None:
    """``generate`` waits as long as the patience; the media come in later all the same."""
    code = 500

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=code, body=PNG, content_type="image/png")

    async def main() -> None:
        nonlocal code
        async with serving(answer) as origin:
            provider = FakeProvider(default=Script(outputs=(f"{origin}/x.png",)))
            async with opened(tmp_path, provider, patience_s=60.0) as pipeline:
                result = await pipeline.generate(job("杯"))
                assert result.state is JobState.GENERATED
                assert "answers 500" in str(result.error)
                waited = asyncio.ensure_future(pipeline.generate(job("杯")))
                await asyncio.sleep(30)
                assert not waited.done()
                code = 200
                assert (await waited).state is JobState.SUCCEEDED
                assert provider.sold == ["杯"]

    run_virtual(main())


def test_a_drain_waits_for_no_dead_host(tmp_path: Path) -> None:
    """Whoever interrupts a run wants to leave."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=500)

    async def main() -> float:
        async with serving(answer) as origin:
            provider = FakeProvider(default=Script(outputs=(f"{origin}/x.png",)))
            async with opened(tmp_path, provider) as pipeline:
                batch = asyncio.ensure_future(pipeline.batch_generate([job("杯")]))
                await asyncio.sleep(100)
                pipeline.stop()
                await batch
                return asyncio.get_running_loop().time()

    assert run_virtual(main()) < 200


def test_too_much_that_cannot_be_downloaded_ends_the_buying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory has an end: the rest stays pending, and the run says why it stopped."""
    monkeypatch.setattr("asyncpipe.engine.admission.MOST_CHASED", 4)
    manifest, pipeline, provider, _ = run_with_host(
        tmp_path, lambda _: 500, NAMES, max_workers=2, patience_s=120.0
    )
    assert isinstance(pipeline.stopped, DownloadError)
    assert 4 <= len(provider.sold) <= 7
    assert manifest.totals.jobs[JobState.PENDING] == 12 - len(provider.sold)
