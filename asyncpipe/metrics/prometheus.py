"""Metrics of one pipeline or several, in a registry of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from asyncpipe.errors import UsageError
from asyncpipe.flow import Limiter
from asyncpipe.jobs import (
    ENDED,
    AssetStored,
    Event,
    JobRecord,
    JobState,
    Polled,
)
from asyncpipe.pricing import from_micro

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

DURATIONS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
"""Upper bounds of the buckets that durations of jobs are counted in, in seconds."""

MOST_MODELS = 50
"""How many models have a label of their own; others are counted together as OTHER_MODELS."""

OTHER_MODELS = "other"


class FolderTotals(Protocol):
    """What is known of how a folder stands; amounts in micro-dollars."""

    jobs: Counter[JobState]
    reserved_micro: int
    lost_answers: int
    cost_by_model_micro: Counter[str]

    @property
    def in_flight(self) -> int:
        """How many jobs the provider has, or may have."""

    @property
    def pending(self) -> int:
        """How many jobs have not ended."""


class Watched(Protocol):
    """An open pipeline, as far as metrics read it."""

    folder: Any

    @property
    def provider_name(self) -> str:
        """The provider's name."""

    @property
    def totals(self) -> Any:
        """Its ``FolderTotals``."""

    @property
    def limiter(self) -> Limiter:
        """What is known of the API's limits."""


class PrometheusHook:
    """A pipeline's hook that keeps metrics in ``registry``, by default one of its own.

    ``registry`` of the hook is what to serve or push, say by
    ``prometheus_client.start_http_server(9000, registry=hook.registry)``. One hook may be given to
    several pipelines, whose numbers are added; two hooks need two registries. At most ``models``
    models have a label of their own. Raises UsageError where prometheus-client is not installed,
    and for a registry that has these metrics already.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, models: int = MOST_MODELS
    ) -> None:
        try:
            import prometheus_client as client
        except ImportError as exc:
            raise UsageError(
                "metrics need prometheus-client: pip install 'asyncpipe[metrics]'"
            ) from exc
        self.registry = client.CollectorRegistry() if registry is None else registry
        self._watched: dict[str, tuple[FolderTotals, Limiter]] = {}
        self._provider, self._most, self._models = "", models, set[str]()
        try:
            self._make(client)
            self.registry.register(_Gauges(self))
        except ValueError as exc:
            raise UsageError(
                "the registry has asyncpipe's metrics already: give one PrometheusHook to all "
                f"pipelines, or each hook a registry of its own ({exc})"
            ) from exc

    def _make(self, client: Any) -> None:
        self._ended = client.Counter(
            "asyncpipe_jobs",
            "Jobs that ended; one that goes on, or is fetched again, ends again.",
            ["outcome", "model", "provider"],
            registry=self.registry,
        )
        self._durations = client.Histogram(
            "asyncpipe_job_duration_seconds",
            "From the first submit until the job ended, downloads included.",
            ["outcome", "model", "provider"],
            buckets=DURATIONS_S,
            registry=self.registry,
        )
        self._polls = client.Counter(
            "asyncpipe_poll_requests",
            "Polls that were answered.",
            ["model"],
            registry=self.registry,
        )
        self._bytes = client.Counter(
            "asyncpipe_downloaded_bytes", "Bytes of media stored.", registry=self.registry
        )
        info = client.Info("asyncpipe_build", "What runs here.", registry=self.registry)
        info.info({"version": version("asyncpipe")})

    def on_open(self, pipeline: Watched) -> None:
        """Read gauges off a pipeline; closed, it stays as it was until opened again."""
        self._watched[str(pipeline.folder)] = pipeline.totals, pipeline.limiter
        self._provider = pipeline.provider_name

    def __call__(self, event: Event, record: JobRecord) -> None:
        """Count one event."""
        if isinstance(event, Polled):
            self._polls.labels(self.model(record.job.model)).inc()
        elif isinstance(event, AssetStored):
            self._bytes.inc(event.size)
        elif event.target in ENDED:
            provider = getattr(record.attempt, "provider", None) or self._provider
            labels = outcome_of(record), self.model(record.job.model), provider
            self._ended.labels(*labels).inc()
            began = min(
                (a.intended_at for a in (*record.earlier, record.attempt) if a.intended_at),
                default=None,
            )
            if began is not None:
                self._durations.labels(*labels).observe((event.at - began).total_seconds())

    def model(self, model: str) -> str:
        """The label of a model: names of models are anybody's, and labels are kept for ever."""
        if model not in self._models and len(self._models) >= self._most:
            return OTHER_MODELS
        self._models.add(model)
        return model

    @property
    def watched(self) -> list[tuple[FolderTotals, Limiter]]:
        """How each pipeline stands, and what it knows of limits."""
        return list(self._watched.values())


_WORDS: Mapping[JobState, str] = {
    JobState.SUCCEEDED: "succeeded",
    JobState.MISSING: "missing",
    JobState.LOST: "failed_charged",
    JobState.UNKNOWN: "unknown",
    JobState.CANCELLED: "cancelled",
}


def outcome_of(record: JobRecord) -> str:
    """How a job ended, as a label."""
    if record.state is not JobState.FAILED:
        return _WORDS[record.state]
    if record.in_doubt:
        return "unknown"
    return "failed_charged" if record.attempt.paid else "failed_not_charged"


class _Gauges:
    """What a registry asks for at every scrape: how the pipelines stand at that moment."""

    def __init__(self, hook: PrometheusHook) -> None:
        self._hook = hook

    def describe(self) -> Iterator[Metric]:
        """What there is: a registry refuses two of one name."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Read it; called in whatever thread serves the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        watched = self._hook.watched
        standing = [totals for totals, _ in watched]
        limiters = [limiter for _, limiter in watched]
        for name, text, value in (
            ("jobs_in_flight", "Jobs that the provider has.", sum(s.in_flight for s in standing)),
            ("jobs_pending", "Jobs that have not ended.", sum(s.pending for s in standing)),
            (
                "unknown_submits",
                "Submits of which nobody knows whether they are paid for.",
                sum(s.jobs[JobState.UNKNOWN] + s.lost_answers for s in standing),
            ),
            ("reserved_usd", "Reserved.", from_micro(sum(s.reserved_micro for s in standing))),
        ):
            yield GaugeMetricFamily(f"asyncpipe_{name}", text, value=float(value))
        spent = CounterMetricFamily(
            "asyncpipe_spent_usd", "Charged, ever, in these folders.", labels=["model"]
        )
        for model, micro in self._by_model([s.cost_by_model_micro for s in standing]).items():
            spent.add_metric([model], float(from_micro(micro)))
        yield spent
        yield CounterMetricFamily(
            "asyncpipe_rate_limited",
            "Submits and polls that were refused because of a limit (429).",
            value=sum(limiter.refused for limiter in limiters),
        )
        window = GaugeMetricFamily(
            "asyncpipe_window", "Predictions that may be in flight at once.", labels=["model"]
        )
        sizes = [{m: k.window.size for m, k in each.models.copy().items()} for each in limiters]
        for model, size in self._by_model(sizes).items():
            window.add_metric([model], size)
        yield window

    def _by_model(self, counted: list[Any]) -> Counter[str]:
        added: Counter[str] = Counter()
        for each in counted:
            for model, count in each.copy().items():  # at once: the loop's thread goes on counting
                added[self._hook.model(model)] += count
        return added
