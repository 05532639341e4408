"""What a scrape says after a run, and of which pipeline."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from asyncpipe import Job
from asyncpipe.errors import RateLimited, UsageError
from asyncpipe.metrics import PrometheusHook
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import FLUX, jobs, pipeline, run_batch

OTHER = "google/veo3.1/text-to-video"


def scrape(hook: PrometheusHook) -> dict[str, float]:
    """Every sample of the text format."""
    lines = generate_latest(hook.registry).decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def labels(outcome: str, model: str = FLUX) -> str:
    return f'{{model="{model}",outcome="{outcome}",provider="atlas"}}'


def test_a_scrape_after_a_run_agrees_with_its_totals(tmp_path: Path) -> None:
    """Jobs, money, polls, bytes, refusals, windows, and what runs here."""
    hook = PrometheusHook()
    refused = Script(submits=[RateLimited("429")], generation_s=30.0)
    failed = Script(end=PredictionStatus.FAILED, error="bad prompt")
    provider = FakeProvider(scripts={"杯子 0": refused, "杯子 1": failed})
    manifest, results, _ = run_batch(
        tmp_path, provider, jobs(5), on_event=hook, retries=0, max_workers=4
    )
    told = scrape(hook)
    assert told[f"asyncpipe_jobs_total{labels('succeeded')}"] == manifest.totals.successful == 4
    assert told[f"asyncpipe_jobs_total{labels('failed_not_charged')}"] == 1
    assert told["asyncpipe_jobs_in_flight"] == told["asyncpipe_jobs_pending"] == 0
    assert told[f'asyncpipe_spent_usd_total{{model="{FLUX}"}}'] == 0.16
    assert told["asyncpipe_reserved_usd"] == told["asyncpipe_unknown_submits"] == 0
    assert told["asyncpipe_rate_limited_total"] == 1
    assert told["asyncpipe_downloaded_bytes_total"] == manifest.totals.bytes > 0
    polls = told[f'asyncpipe_poll_requests_total{{model="{FLUX}"}}']
    assert polls == sum(result.polls for result in results) > 0
    assert told[f"asyncpipe_job_duration_seconds_count{labels('succeeded')}"] == 4
    assert told[f'asyncpipe_window{{model="{FLUX}"}}'] > 0
    assert any(name.startswith('asyncpipe_build_info{version="') for name in told)
    assert not [name for name in told if "杯子" in name]


def test_gauges_tell_how_things_stand_while_it_runs(tmp_path: Path) -> None:
    """A lost answer keeps its money reserved, and what is in flight is counted."""
    hook = PrometheusHook()
    seen: list[dict[str, float]] = []
    provider = FakeProvider(scripts={"杯子 0": Script(lost=1)})

    async def main() -> None:
        async with pipeline(tmp_path, provider, on_event=hook, ambiguous="hold") as opened:
            batch = asyncio.ensure_future(opened.batch_generate(jobs(2)))
            await asyncio.sleep(5)
            seen.append(scrape(hook))
            await batch

    run_virtual(main())
    told = seen[0]
    assert told["asyncpipe_jobs_in_flight"] == 1
    assert told["asyncpipe_unknown_submits"] == 1
    assert told["asyncpipe_reserved_usd"] == 0.08
    assert scrape(hook)["asyncpipe_reserved_usd"] == 0.04


def test_two_pipelines_with_two_registries_do_not_meet(tmp_path: Path) -> None:
    """And one hook adds up what several do; in one registry there is room for one hook."""
    registry = CollectorRegistry()
    one, two = PrometheusHook(registry), PrometheusHook()
    assert one.registry is registry
    run_batch(tmp_path / "1", FakeProvider(), jobs(2), on_event=one)
    run_batch(tmp_path / "2", FakeProvider(), jobs(3), on_event=two)
    run_batch(tmp_path / "3", FakeProvider(), jobs(4), on_event=two)
    done = f"asyncpipe_jobs_total{labels('succeeded')}"
    assert (scrape(one)[done], scrape(two)[done]) == (2, 7)
    with pytest.raises(UsageError, match="a registry of its own"):
        PrometheusHook(registry)


def test_models_beyond_the_first_share_a_label(tmp_path: Path) -> None:
    """Whoever names models cannot fill the memory of what scrapes."""
    hook = PrometheusHook(models=1)
    batch = [*jobs(2), Job(name="clip", model=OTHER, prompt="a clip", params={"duration": 8})]
    run_batch(tmp_path, FakeProvider(), batch, on_event=hook)
    told = scrape(hook)
    assert told[f"asyncpipe_jobs_total{labels('succeeded', 'other')}"] == 1
    assert not [name for name in told if OTHER in name]
    assert told['asyncpipe_spent_usd_total{model="other"}'] > 0


def test_without_prometheus_client_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the hook is made, and not when asyncpipe is imported."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncpipe\[metrics\]'"):
        PrometheusHook()
