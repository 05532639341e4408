"""A provider that takes a key with every submit, and buys once for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asyncpipe.errors import ProviderError
from asyncpipe.jobs import Job
from asyncpipe.providers import Prediction
from asyncpipe.testing.provider import FakeProvider, _AnswerLost


@dataclass(kw_only=True)
class Keyed(FakeProvider):
    """FakeProvider with keys; ``keys`` are the submits that came, each key with its body.

    A known key is answered with ``replays`` first, raised one by one, then with its prediction.
    """

    key_ttl_s: float | None = None
    keys: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    replays: list[ProviderError] = field(default_factory=list)
    _bought: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)

    async def submit(self, job: Job, *, key: str | None = None) -> Prediction:
        assert key is not None
        self.keys.append((key, job.body))
        if key in self._bought:
            body, prediction_id = self._bought[key]
            assert body == job.body, "the same key comes with the same body"
            if self.replays:
                raise self.replays.pop(0)
            return Prediction(id=prediction_id)
        try:
            answer = await super().submit(job)
        except _AnswerLost:
            self._bought[key] = job.body, f"p{len(self.sold)}"
            raise
        self._bought[key] = job.body, answer.id
        return answer
