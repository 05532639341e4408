"""The names of attributes by the GenAI conventions, which still move: one table a version.

Read in open-telemetry/semantic-conventions-genai at commit 024a4f9, "gen_ai.client.inference". They
know no images or videos: the operation is ``generate_content``, the output type of a video is
``video``. What they have no name for is under ``asyncpipe.``, and does not move.
"""

from __future__ import annotations

from collections.abc import Mapping

from asyncpipe.jobs import (
    Event,
    Expired,
    Failed,
    FetchFailed,
    JobRecord,
    JobType,
    Lost,
    Missing,
    NotBought,
    Released,
    Unknown,
)

LATEST = "2026-10"

_NAMES: Mapping[str, str] = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "output_type": "gen_ai.output.type",
    "response_id": "gen_ai.response.id",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "seed": "gen_ai.request.seed",
    "count": "gen_ai.request.choice.count",
    "prompt": "gen_ai.input.messages",
    "error": "error.type",
    "host": "server.address",
    "port": "server.port",
    "cost": "asyncpipe.cost.usd",
    "job": "asyncpipe.job.id",
    "attempt": "asyncpipe.attempt",
    "polls": "asyncpipe.polls",
    "bytes": "asyncpipe.asset.bytes",
}

CONVENTIONS: Mapping[str, Mapping[str, str]] = {
    LATEST: _NAMES,
    "1.36": {**_NAMES, "provider": "gen_ai.system"},
}
"""Names of attributes by what they say, for each version of the conventions there is a word for."""

OPERATION = "generate_content"

OUTPUT_TYPES = {JobType.IMAGE: "image", JobType.VIDEO: "video", JobType.AUDIO: "speech"}

ERROR_TYPES: Mapping[type[Event], str] = {
    NotBought: "not_accepted",
    Released: "provider_failed",
    Failed: "provider_failed",
    Unknown: "unknown",
    Expired: "expired",
    FetchFailed: "not_downloaded",
    Lost: "lost",
    Missing: "missing",
}
"""What ``error.type`` says of an event; besides, of a failure, ``moderated`` and ``refused``."""


def error_type(event: Event, record: JobRecord) -> str | None:
    """Why an event is a failure, in one of few words; None for one that is none."""
    word = ERROR_TYPES.get(type(event))
    if isinstance(event, Failed):
        if record.attempt.moderated:
            return "moderated"
        if record.attempt.prediction_id is None:
            return "refused"
    return word
