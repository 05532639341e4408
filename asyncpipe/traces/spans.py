"""A span of each job and, below it, one of each of its stages: submit, poll, download."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from asyncpipe.errors import UsageError
from asyncpipe.jobs import (
    ENDED,
    AssetStored,
    Attempt,
    Damaged,
    Event,
    Expired,
    Found,
    Generated,
    Intended,
    JobRecord,
    Polled,
    PolledAgain,
    SoughtAgain,
    Submitted,
    Succeeded,
)
from asyncpipe.pricing import from_micro
from asyncpipe.traces.conventions import (
    CONVENTIONS,
    LATEST,
    OPERATION,
    OUTPUT_TYPES,
    error_type,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, TracerProvider

STAGES: Mapping[type[Event], str] = {
    Intended: "submit",
    Submitted: "poll",
    Found: "poll",
    Polled: "poll",
    PolledAgain: "poll",
    Generated: "download",
    Damaged: "download",
    SoughtAgain: "download",
    AssetStored: "download",
}
"""The stage that a job is in after an event."""

MOST_PARENTS = 10_000
"""Jobs of which it is kept in which span their callers are; older ones are forgotten."""


class Traced(Protocol):
    """An open pipeline, as far as spans tell of it."""

    @property
    def provider_name(self) -> str:
        """The provider's name."""

    @property
    def provider_origin(self) -> str:
        """The address of its API."""


@dataclass(slots=True)
class _Open:
    """The span of a job in this process, and that of the stage it is in."""

    span: Span
    stage: str | None = None
    child: Span | None = None


class TraceHook:
    """A pipeline's hook that makes spans with ``tracer_provider``, by default the global one.

    A job's span lasts from its first submit to its end, or to the end of the process; what another
    process goes on with has a span of its own, linked to the first one by the context that the
    ledger keeps. One whose caller is in a span is a child of that. Prompts are in none, unless
    ``prompts``. ``conventions`` is the version of the names. Raises UsageError for another version,
    and where opentelemetry-api is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        prompts: bool = False,
        conventions: str = LATEST,
    ) -> None:
        if conventions not in CONVENTIONS:
            raise UsageError(
                f"conventions: {conventions!r} must be one of {', '.join(CONVENTIONS)}"
            )
        try:
            from opentelemetry import trace
        except ImportError as exc:
            raise UsageError(
                "traces need opentelemetry-api: pip install 'asyncpipe[otel]'"
            ) from exc
        self._tracer = trace.get_tracer("asyncpipe", tracer_provider=tracer_provider)
        self._names, self._prompts = CONVENTIONS[conventions], prompts
        self._open: dict[int, _Open] = {}
        self._parents: dict[int, Context] = {}
        self._of_provider: dict[str, Any] = {}

    # -- what a pipeline asks and tells ---------------------------------------------------------

    def on_open(self, pipeline: Traced) -> None:
        """Take from a pipeline where its provider is."""
        address = urlsplit(pipeline.provider_origin)
        self._of_provider = self._named(
            provider=pipeline.provider_name, host=address.hostname, port=address.port
        )

    def admitted(self, record: JobRecord) -> None:
        """Keep which span a caller is in, who waits for a job."""
        from opentelemetry import context, trace

        if not trace.get_current_span().get_span_context().is_valid:
            return
        if len(self._parents) >= MOST_PARENTS:
            del self._parents[next(iter(self._parents))]
        self._parents[record.id] = context.get_current()

    def trace_of(self, record: JobRecord) -> str | None:
        """Begin a job's span, unless it has one; return its context, as ``traceparent`` has it."""
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        known = self._open.get(record.id) or self._begin(record, None)
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(known.span))
        return carrier.get("traceparent")

    def __call__(self, event: Event, record: JobRecord) -> None:
        """Follow a job."""
        stage, failed = STAGES.get(type(event)), error_type(event, record)
        known = self._open.get(record.id)
        if known is None:
            if stage is None and failed is None and not isinstance(event, Succeeded):
                return  # nothing that takes time: a decision of somebody's
            known = self._begin(record, event.at)
        if failed is not None:
            self._end_stage(known, record, event, failed)
        if stage is not None and stage != known.stage:
            self._end_stage(known, record, event)
            self._begin_stage(known, stage, event, record)
        if isinstance(event, AssetStored) and known.child is not None:
            size = self._named(bytes=event.size)
            known.child.add_event("asset stored", size, timestamp=_ns(event.at))
        if event.target in ENDED or isinstance(event, Expired):
            self._end(record, event, failed)

    def on_close(self) -> None:
        """End what goes on in another process."""
        for known in self._open.values():
            if known.child is not None:
                known.child.end()
            known.span.end()
        self._open.clear()
        self._parents.clear()

    # -- spans ----------------------------------------------------------------------------------

    def _begin(self, record: JobRecord, at: datetime | None) -> _Open:
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(
            f"{OPERATION} {record.job.model}",
            context=self._parents.pop(record.id, None) or _no_context(),
            kind=SpanKind.CLIENT,
            attributes=self._attributes(record),
            links=_links(record),
            start_time=None if at is None else _ns(at),
        )
        known = self._open[record.id] = _Open(span)
        return known

    def _attributes(self, record: JobRecord) -> dict[str, Any]:
        job = record.job
        count = next((job.params[k] for k in ("n", "num_images") if k in job.params), 1)
        messages = [{"role": "user", "parts": [{"type": "text", "content": job.prompt}]}]
        return self._of_provider | self._named(
            operation=OPERATION,
            request_model=job.model,
            output_type=OUTPUT_TYPES[job.kind],
            job=record.key,
            seed=seed if isinstance(seed := job.params.get("seed"), int) else None,
            count=count if isinstance(count, int) and count != 1 else None,
            prompt=json.dumps(messages, ensure_ascii=False) if self._prompts else None,
        )

    def _begin_stage(self, known: _Open, stage: str, event: Event, record: JobRecord) -> None:
        from opentelemetry.trace import set_span_in_context

        known.stage = stage
        known.child = self._tracer.start_span(
            stage,
            context=set_span_in_context(known.span),
            attributes=self._named(attempt=record.attempt.n or record.next_attempt),
            start_time=_ns(event.at),
        )

    def _end_stage(
        self, known: _Open, record: JobRecord, event: Event, failed: str | None = None
    ) -> None:
        if known.child is not None:
            if known.stage == "poll":
                known.child.set_attributes(self._named(polls=_last(record).polls))
            self._end_span(known.child, event, failed)
        known.stage = known.child = None

    def _end(self, record: JobRecord, event: Event, failed: str | None) -> None:
        known = self._open.pop(record.id)
        self._end_stage(known, record, event)
        last = _last(record)
        known.span.set_attributes(
            self._named(
                response_id=last.prediction_id,
                response_model=last.terms.model or None,
                finish_reasons=["error"] if failed else None,
                cost=float(from_micro(record.charged)),
                attempt=last.n,
            )
        )
        if last.terms.provider:
            known.span.set_attributes(self._named(provider=last.terms.provider))
        self._end_span(known.span, event, failed)

    def _end_span(self, span: Span, event: Event, failed: str | None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if failed is not None:
            span.set_attributes(self._named(error=failed))
            span.set_status(Status(StatusCode.ERROR, str(getattr(event, "error", ""))[:500]))
        span.end(end_time=_ns(event.at))

    def _named(self, **values: Any) -> dict[str, Any]:
        """Attributes by the names of the conventions, without those that are not known."""
        return {self._names[word]: value for word, value in values.items() if value is not None}


def _last(record: JobRecord) -> Attempt:
    """The attempt that is under way, or the one that the job has just gone on from."""
    attempt = record.attempt
    return record.earlier[-1] if not attempt.n and record.earlier else attempt


def _no_context() -> Context:
    """One without a span: that of whoever opened the pipeline is nobody's parent."""
    from opentelemetry.context import Context

    return Context()


def _links(record: JobRecord) -> list[Link]:
    """A link to the span of another process that had the job before."""
    from opentelemetry.trace import Link, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    attempts = (*record.earlier, record.attempt)
    stored = next((each.trace for each in attempts if each.trace), None)
    if stored is None:
        return []
    found = TraceContextTextMapPropagator().extract({"traceparent": stored}, _no_context())
    return [Link(get_current_span(found).get_span_context())]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ns(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
