"""The provider of the simulator's profile ``keyed``: keys, cancelling, charges by request."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from decimal import Decimal
from urllib.parse import urlencode

from asyncpipe.jobs import Job
from asyncpipe.pricing import PriceBook
from asyncpipe.providers.kit import (
    ApiProvider,
    Cancelled,
    HttpAnswer,
    Prediction,
    PredictionStatus,
    base_of,
    failed_poll,
    holds_key,
    read_json,
    read_key,
    refused_submit,
    segment,
)

KEY_VARIABLES = ("KEYED_API_KEY",)

_STATUSES = {
    "queued": PredictionStatus.RUNNING,
    "in_progress": PredictionStatus.RUNNING,
    "completed": PredictionStatus.COMPLETED,
    "failed": PredictionStatus.FAILED,
    "nsfw": PredictionStatus.FAILED,
    "canceled": PredictionStatus.FAILED,
}


def has_key() -> bool:
    return holds_key(KEY_VARIABLES)


def connect(*, base_url: str | None, simulated: bool, keyless: bool) -> Unbilled:
    key = "" if keyless else read_key(None, KEY_VARIABLES, simulated=simulated)
    return KeyedApi(key, base_url or "https://keyed.example", simulated=simulated)


def known_prices(*, base_url: str | None, simulated: bool) -> PriceBook | None:
    return None


class Unbilled(ApiProvider):
    """The same without charges."""

    name = "keyed"

    key_ttl_s: float | None = 86_400.0

    def __init__(self, key: str, base_url: str, *, simulated: bool = True) -> None:
        base = base_of(base_url, example="https://keyed.example", simulated=simulated)
        headers = {"Authorization": f"Key {key}"} if key else {}
        super().__init__(base, key, headers=headers, simulated=simulated)

    async def submit(self, job: Job, *, key: str | None = None) -> Prediction:
        key = key or uuid.uuid4().hex
        body = {"prompt": job.prompt, **job.params}
        answer = self._clean(
            await self._http.post(f"/{job.model}", body, headers={"Idempotency-Key": key})
        )
        if answer.status != 200:
            raise refused_submit(answer, _said(answer))
        return _prediction(answer)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        answer = self._clean(await self._http.get(f"/requests/{segment(prediction_id)}/status"))
        if answer.status != 200:
            raise failed_poll(answer, _said(answer))
        return _prediction(answer)

    async def cancel(self, prediction_id: str, *, route: str = "") -> Cancelled:
        path = f"/requests/{segment(prediction_id)}/cancel"
        answer = self._clean(await self._http.ask(path, {}, what="a cancel"))
        if answer.status == 202:
            return Cancelled.FREE
        if answer.status == 400:
            return Cancelled.TOO_LATE
        raise failed_poll(answer, _said(answer))


class KeyedApi(Unbilled):
    async def bills(self, ids: Collection[str]) -> Mapping[str, Decimal]:
        query = urlencode({"ids": ",".join(ids)})
        answer = self._clean(await self._http.get(f"/charges?{query}", what="a bill"))
        if answer.status != 200:
            raise failed_poll(answer, _said(answer))
        told = (read_json(answer.body) or {}).get("charges", {})
        return {name: Decimal(usd) for name, usd in told.items()}


def _said(answer: HttpAnswer) -> str:
    return str((read_json(answer.body) or {}).get("detail", ""))


def _prediction(answer: HttpAnswer) -> Prediction:
    told = read_json(answer.body) or {}
    word = str(told.get("status", ""))
    failed = word in ("failed", "nsfw", "canceled")
    return Prediction(
        id=str(told.get("request_id", "")),
        status=_STATUSES.get(word, PredictionStatus.RUNNING),
        outputs=tuple(each["url"] for each in told.get("outputs", ())),
        error=f"it ended {word}" if failed else None,
        moderated=word == "nsfw",
        said=word,
    )
