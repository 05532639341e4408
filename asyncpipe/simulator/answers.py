"""What the API says of a prediction, on either wire and in every shape: pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.chance import Plan

ERRORS: dict[str, tuple[str, int]] = {
    "failed": ("the model failed to generate: internal error", 1),
    "unreachable": ("failed to download the input media: 404 Not Found", 2),
    "moderated": ("input refused: it violates the content policy", 1039),
}
"""Text and error code by outcome."""

_OBJECT_KEYS = ("url", "download_url", "uri")


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one answer tells: the status, the word for it, outputs, and the HTTP status.

    ``word`` None: the answer leaves the status out, and all that goes with it.
    """

    status: str = "processing"
    word: str | None = "processing"
    outputs: tuple[str, ...] = ()
    error: str = ""
    code: int = 0
    http: int = 200


def poll_answer(
    prediction: BookedPrediction, told: Told, plan: Plan, *, wire: str
) -> dict[str, Any]:
    """The answer to a poll."""
    if wire == "article":
        return _article_fields(prediction, told, plan)
    fields = _canonical_fields(prediction, told, plan)
    return {"code": "200" if plan.text_code else 200, "message": "", "data": fields}


def submit_answer(
    prediction: BookedPrediction, told: Told, plan: Plan, *, wire: str, poll_url: str
) -> dict[str, Any]:
    """The answer to a submit; ``told`` is final where the plan says instant."""
    if wire == "article":
        final = _article_fields(prediction, told, plan) if plan.instant else {}
        return {"request_id": prediction.id, **final}
    answer = poll_answer(prediction, told, plan, wire=wire)
    fields: dict[str, Any] = answer["data"]
    if plan.id_shape is None:
        fields.update(urls={"get": poll_url}, has_nsfw_contents=fields.get("has_nsfw_contents"))
        return answer
    rest = {name: value for name, value in fields.items() if name != "id"}
    if plan.id_shape == "nested":
        return {**answer, "data": {"data": fields}}
    if plan.id_shape.startswith("data."):
        return {**answer, "data": {plan.id_shape.removeprefix("data."): prediction.id, **rest}}
    if plan.id_shape == "top":
        return {"id": prediction.id, **(rest if plan.instant else {"status": "created"})}
    return {plan.id_shape: prediction.id, **(rest if plan.instant else {})}


def nameless(plan: Plan) -> dict[str, Any]:
    """The answer to a submit that was sold, without any id."""
    code = "200" if plan.text_code else 200
    return {"code": code, "message": "", "data": {"status": "processing", "outputs": None}}


def garbage(prediction: BookedPrediction, draw: random.Random) -> bytes:
    """A body that is none of the API's: JSON cut off, of another kind, nothing, or no text."""
    whole = json.dumps({"code": 200, "data": {"id": prediction.id, "status": "completed"}})
    return draw.choice((whole[:-9].encode(), b"", b"null", b'["ok"]', b"OK", b"\xff\xfe\x00{"))


def _canonical_fields(prediction: BookedPrediction, told: Told, plan: Plan) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": prediction.id, "model": prediction.model}
    if told.word is None:
        return fields
    fields.update(status=told.word, outputs=None, error=told.error)
    fields.update(_placed(prediction.type, told.outputs, plan.shape or "list"))
    fields.update(_cost(prediction, told, plan))
    if told.status == "completed":
        fields["has_nsfw_contents"] = [False] * len(told.outputs)
        fields["metrics"] = {"predict_time": round(prediction.ready_at - prediction.created_at, 3)}
    if told.code:
        fields["error_code"] = told.code
    return fields


def _article_fields(prediction: BookedPrediction, told: Told, plan: Plan) -> dict[str, Any]:
    if told.word is None:
        return {"model": prediction.model}
    fields: dict[str, Any] = {"status": told.word}
    fields.update(_placed(prediction.type, told.outputs, plan.shape or "output.url"))
    fields.update(_cost(prediction, told, plan))
    if told.error:
        fields["error"] = told.error
    if told.code:
        fields["error_code"] = told.code
    return fields


def _cost(prediction: BookedPrediction, told: Told, plan: Plan) -> dict[str, Any]:
    """What it cost, in the public API's form of an amount; nothing if it is not told."""
    if told.status != "completed" or not plan.cost_told:
        return {}
    value = f"{Decimal(prediction.price).scaleb(-6):.6f}"
    return {"cost": {"value": value, "currency": "usd"}}


def _placed(kind: str, outputs: tuple[str, ...], shape: str) -> dict[str, Any]:
    """Put outputs where a shape has them; nowhere if there are none."""
    if not outputs:
        return {}
    one = outputs[0] if len(outputs) == 1 else None
    if shape == "objects":
        names = (*_OBJECT_KEYS, kind)
        return {"outputs": [{names[i % len(names)]: url} for i, url in enumerate(outputs)]}
    if shape == "output":
        return {"output": one or list(outputs)}
    if shape == "output.url":
        return {"output": {f"{kind}_url": one or list(outputs)}}
    if shape == "url":
        return {f"{kind}_url": one} if one else {f"{kind}s": [{"url": url} for url in outputs]}
    return {"outputs": list(outputs)}
