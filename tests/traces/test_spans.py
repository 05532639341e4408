"""What is exported of a job: its span, its stages, its failures, and how a restart is linked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id

from asyncpipe.errors import RateLimited, UsageError
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.testing import FakeProvider, Script, run_virtual
from asyncpipe.traces import TraceHook
from tests.support.batches import FLUX, jobs, pipeline, run_batch
from tests.support.pipelines import cut_after, opened

JOB = f"generate_content {FLUX}"
FAILED = PredictionStatus.FAILED


class Kept:
    """A tracer provider whose spans are kept in memory."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def jobs(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == JOB]

    def stages(self, of: ReadableSpan) -> list[ReadableSpan]:
        assert of.context is not None
        found = [s for s in self.spans if s.parent and s.parent.span_id == of.context.span_id]
        return sorted(found, key=lambda span: span.start_time or 0)


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    kept.provider.shutdown()


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_job_is_a_span_with_its_stages_below(tmp_path: Path, kept: Kept) -> None:
    """By the names of the conventions; the prompt is in none of them."""
    provider = FakeProvider(origin="https://api.example.com:8443/v1")
    batch = jobs(1, params={"seed": 7, "num_images": 2})
    run_batch(tmp_path, provider, batch, on_event=TraceHook(kept.provider))
    (span,) = kept.jobs()
    told = said(span)
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    job = told.pop("asyncpipe.job.id")
    assert job == batch[0].key("atlas")
    assert told == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "atlas",
        "gen_ai.request.model": FLUX,
        "gen_ai.response.model": FLUX,
        "gen_ai.output.type": "image",
        "gen_ai.response.id": "p1",
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "server.address": "api.example.com",
        "server.port": 8443,
        "asyncpipe.cost.usd": 0.08,
        "asyncpipe.attempt": 1,
    }
    stages = kept.stages(span)
    assert [stage.name for stage in stages] == ["submit", "poll", "download"]
    assert said(stages[1])["asyncpipe.polls"] > 0
    assert [event.name for event in stages[2].events] == ["asset stored"]
    assert len(kept.spans) == 4
    assert span.start_time is not None
    assert span.end_time is not None
    assert all(stage.end_time and stage.end_time <= span.end_time for stage in stages)
    assert "a mug" not in str([span.to_json() for span in kept.spans])


def test_prompts_are_there_where_they_are_wanted(tmp_path: Path, kept: Kept) -> None:
    """And older names where those are."""
    hook = TraceHook(kept.provider, prompts=True, conventions="1.36")
    run_batch(tmp_path, FakeProvider(), jobs(1), on_event=hook)
    told = said(kept.jobs()[0])
    assert '"content": "a mug"' in told["gen_ai.input.messages"]
    assert told["gen_ai.system"] == "atlas"
    assert "gen_ai.provider.name" not in told
    with pytest.raises(UsageError, match=r"2026-10, 1\.36"):
        TraceHook(conventions="2027-01")


def test_each_attempt_that_fails_says_why_in_a_word(tmp_path: Path, kept: Kept) -> None:
    """A refused submit, a prediction that failed and its retry; then the job's own end."""
    script = Script(submits=[RateLimited("429")], end=FAILED, error="out of memory")
    provider = FakeProvider(default=script)
    run_batch(tmp_path, provider, jobs(1), on_event=TraceHook(kept.provider), retries=1)
    (span,) = kept.jobs()
    stages = kept.stages(span)
    assert [(each.name, said(each).get("error.type")) for each in stages] == [
        ("submit", "not_accepted"),
        ("submit", None),
        ("poll", "provider_failed"),
        ("submit", None),
        ("poll", "provider_failed"),
    ]
    assert [said(each)["asyncpipe.attempt"] for each in stages] == [1, 1, 1, 2, 2]
    assert said(span)["error.type"] == "provider_failed"
    assert said(span)["gen_ai.response.finish_reasons"] == ("error",)
    assert span.status.status_code is StatusCode.ERROR
    assert "out of memory" in (span.status.description or "")


def test_moderated_and_lost_answers_have_words_of_their_own(tmp_path: Path, kept: Kept) -> None:
    scripts = {"杯子 0": Script(end=FAILED, moderated=True), "杯子 1": Script(lost=1)}
    hook = TraceHook(kept.provider)
    provider = FakeProvider(scripts=scripts)
    run_batch(tmp_path, provider, jobs(2), on_event=hook, ambiguous="hold")
    assert {said(span)["error.type"] for span in kept.jobs()} == {"moderated", "unknown"}


def test_what_another_process_goes_on_with_is_linked_to_the_first_span(
    tmp_path: Path, kept: Kept
) -> None:
    """The context lies in the ledger; nothing of a killed process is needed."""
    provider = FakeProvider(default=Script(generation_s=100.0))

    async def killed() -> None:
        hook = TraceHook(kept.provider)
        await cut_after(30.0, opened(tmp_path, provider, on_event=hook), jobs(1))

    run_virtual(killed())
    (first,) = kept.jobs()
    assert first.context is not None
    assert [stage.name for stage in kept.stages(first)] == ["submit", "poll"]
    again = Kept()
    for made in provider._made.values():
        made.ready = 0.0
    run_batch(tmp_path, provider, jobs(1), on_event=TraceHook(again.provider))
    (resumed,) = again.jobs()
    assert [link.context.span_id for link in resumed.links] == [first.context.span_id]
    assert resumed.links[0].context.trace_id == first.context.trace_id
    assert resumed.context is not None
    assert resumed.context.trace_id != first.context.trace_id
    assert [stage.name for stage in again.stages(resumed)] == ["poll", "download"]
    assert said(resumed)["gen_ai.response.id"] == "p1"
    again.provider.shutdown()


def test_a_job_is_a_child_of_its_callers_span(tmp_path: Path, kept: Kept) -> None:
    """Though it runs in a task of the pipeline's own; a batch's jobs have no parent."""
    tracer = trace.get_tracer("service", tracer_provider=kept.provider)

    async def request(opened: Any, name: str) -> str:
        with tracer.start_as_current_span(name) as span:
            await opened.generate({"name": name, "model": FLUX, "prompt": "a mug"})
            return format_span_id(span.get_span_context().span_id)

    async def main() -> dict[str, str]:
        hook = TraceHook(kept.provider)
        async with pipeline(tmp_path, FakeProvider(), on_event=hook) as opened:
            names = ["a", "b"]
            found = await asyncio.gather(*(request(opened, name) for name in names))
            await opened.batch_generate(jobs(1))
            return dict(zip(names, found, strict=True))

    parents = run_virtual(main())
    found = [format_span_id(span.parent.span_id) if span.parent else "" for span in kept.jobs()]
    assert sorted(found) == sorted(["", *parents.values()])


def test_without_the_api_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the hook is made, and not when asyncpipe is imported."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncpipe\[otel\]'"):
        TraceHook()
