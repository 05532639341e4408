"""A toy provider: other paths, other words, no quotes, no uploads; a folder, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import orjson

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.http import HttpAnswer, HttpClient, retry_after_s
from asyncpipe.jobs import Job
from asyncpipe.providers import Prediction, PredictionStatus

KEY_VARIABLES = ("TOY_TOKEN",)

_PHASES = {
    "cooking": PredictionStatus.RUNNING,
    "served": PredictionStatus.COMPLETED,
    "burnt": PredictionStatus.FAILED,
}

_REFUND = {"yes": True, "no": False}

_REFUSALS: dict[int, type[ProviderError]] = {
    401: KeyRefused,
    402: BalanceExhausted,
    429: RateLimited,
    503: Overloaded,
}


def has_key() -> bool:
    return bool(os.environ.get(KEY_VARIABLES[0]))


def connect(*, base_url: str | None, simulated: bool, keyless: bool) -> Toy:
    token = "simulated" if simulated else os.environ.get(KEY_VARIABLES[0], "")
    if not token and not keyless:
        raise UsageError(f"no token: set {KEY_VARIABLES[0]}")
    return Toy(token, base_url or "https://toy.example", simulated=simulated)


class Toy:
    """A kitchen: works are cooking, served or burnt."""

    name = "toy"

    def __init__(self, token: str, base_url: str, *, simulated: bool = False) -> None:
        self._simulated, self._base_url = simulated, base_url
        self._http = HttpClient(base_url, headers={"X-Toy-Token": token})

    @property
    def origin(self) -> str:
        parts = urlsplit(self._base_url)
        return "simulator" if self._simulated else f"{parts.scheme}://{parts.netloc}"

    @property
    def simulated(self) -> bool:
        return self._simulated

    async def submit(self, job: Job) -> Prediction:
        order = {"recipe": job.model, "wish": job.prompt, "extra": dict(job.params)}
        answer = await self._http.post("/v2/works", order)
        work = _work(answer)
        if work.get("ref"):
            return _prediction(work)
        if 400 <= answer.status < 500 or answer.status == 503:
            raise _refusal(answer)
        raise SubmitUnknown("the kitchen took the order and named no work", status=answer.status)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        answer = await self._http.get(f"/v2/works/{quote(prediction_id, safe='')}")
        if answer.status == 404:
            raise PredictionGone("the kitchen does not know the work", status=404)
        if answer.status != 200:
            raise PollFailed(f"the kitchen answers {answer.status}", status=answer.status)
        return _prediction(_work(answer))

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)


def _work(answer: HttpAnswer) -> Mapping[str, Any]:
    try:
        work = orjson.loads(answer.body)["work"]
    except (ValueError, KeyError, TypeError):
        return {}
    return work if isinstance(work, dict) else {}


def _prediction(work: Mapping[str, Any]) -> Prediction:
    return Prediction(
        id=str(work["ref"]),
        status=_PHASES[work["phase"]],
        outputs=tuple(dish["href"] for dish in work.get("dishes", ())),
        error=work.get("why"),
        released=_REFUND.get(work.get("refund", "")),
        said=work["phase"],
    )


def _refusal(answer: HttpAnswer) -> ProviderError:
    text = f"the kitchen refuses the order ({answer.status})"
    kind = _REFUSALS.get(answer.status, Rejected)
    if issubclass(kind, RateLimited):
        return kind(text, status=answer.status, retry_after_s=retry_after_s(answer.headers))
    return kind(text, status=answer.status)
