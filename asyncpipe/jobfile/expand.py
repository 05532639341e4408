"""From checked fields to jobs: defaults, then ``count``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncpipe.jobfile.fields import MEDIA
from asyncpipe.jobs import BODY_FIELDS, Job, JobType, is_media_field, type_of_model

IN_BODY = frozenset({*BODY_FIELDS, *MEDIA})


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says: fields of the job, and fields of the request body."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, checked: Mapping[str, Any]) -> Layer:
        """Split checked fields; ``params`` and fields such as ``width`` are one body."""
        own = {key: value for key, value in checked.items() if key in IN_BODY}
        rest = {k: v for k, v in checked.items() if k not in IN_BODY and k != "params"}
        return cls(rest, {**checked.get("params", {}), **own})

    def over(self, lower: Layer) -> Layer:
        """Both, this one winning; bodies and labels are merged one level deep."""
        fields = {**lower.fields, **self.fields}
        if "labels" in lower.fields and "labels" in self.fields:
            fields["labels"] = {**lower.fields["labels"], **self.fields["labels"]}
        return Layer(fields, {**lower.body, **self.body})


@dataclass(frozen=True, slots=True)
class Defaults:
    """What jobs take where they say nothing themselves; by type goes before the common ones.

    ``faulty`` are fields that stand there and were reported: no job is said to lack them.
    """

    common: Layer = field(default_factory=Layer)
    by_type: Mapping[JobType, Layer] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()

    def type_of(self, own: Layer) -> JobType | None:
        """The type of a job; what it says itself, its model included, goes before defaults."""
        for layer in (own, self.common):
            job_type: JobType | None = layer.fields.get("type")
            if job_type is None and isinstance(layer.fields.get("model"), str):
                job_type = type_of_model(layer.fields["model"])
            if job_type is not None:
                return job_type
        return None

    def under(self, own: Layer, job_type: JobType | None) -> Layer:
        """The job with what it does not say filled in."""
        if self is NO_DEFAULTS:
            return own
        typed = self.by_type.get(job_type, Layer()) if job_type else Layer()
        return own.over(typed.over(self.common))


NO_DEFAULTS = Defaults()
"""Where nothing is said for a job but by itself."""


def is_wordless(body: Mapping[str, Any], job_type: JobType | None) -> bool:
    """Whether a job needs no prompt: it has fields to speak or hear, or a medium to work on."""
    return bool(body) if job_type is JobType.AUDIO else any(map(is_media_field, body))


def copies(layer: Layer, job_type: JobType) -> Iterator[Job]:
    """Yield the ``count`` equal jobs that one row stands for: occurrences 1 to n.

    With n > 1 a name becomes name-1 to name-n. Raises UsageError where Job does.
    """
    fields = {**layer.fields, "type": job_type}
    count = fields.pop("count", 1)
    name = fields.pop("name", None)
    if count == 1:
        yield Job(**fields, name=name, params=layer.body)
        return
    for n in range(1, count + 1):
        own = f"{name}-{n}" if name is not None and count > 1 else name
        yield Job(**fields, name=own, params=dict(layer.body), occurrence=n)
