"""Polls: what a prediction has come to, and what may be wrong with the answer."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction, PollPast
from asyncpipe.simulator.faults import (
    Plan,
    dice,
    odd_word,
    plan_of,
    poll_fault,
    quiet,
    word,
)
from asyncpipe.simulator.media import transcribes, transcript
from asyncpipe.simulator.models import medium
from asyncpipe.simulator.sales import output_url
from asyncpipe.simulator.wire import Service, broken_gateway, drop, refusal, reset, root

EMPTY_POLLS = 2
"""Polls that ``empty_first`` answers completed and without outputs."""

_CONTENT_TYPES = {
    "image": "image/png",
    "video": "video/mp4",
    "audio": "audio/wav",
    "model": "model/gltf-binary",
}

_ERRORS = (429, 500, 502, 503, 504)


def content_type(prediction: BookedPrediction) -> str:
    """The type of a prediction's outputs."""
    return _CONTENT_TYPES[medium(prediction.type, prediction.model)]


class Polls:
    """Answer polls."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._books = service.books
        self._settings = service.settings

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Answer one poll."""
        prediction = self._books.find(request.match_info["id"])
        if prediction is None or prediction.account != self._service.account(request):
            return refusal(404, "prediction not found")
        self._books.note_poll(prediction.id)
        if prediction.polls < prediction.hidden_polls:
            return refusal(404, "prediction not found")
        faults, seed = self._settings.faults, self._settings.seed
        plan = plan_of(faults, seed, prediction.id)
        if quiet(faults):
            return await self._answer(request, prediction, await self.tell(request, prediction))
        draw = dice(seed, "poll", prediction.id, prediction.polls)
        past = self._books.poll_past(prediction.id)
        fault = poll_fault(faults, past, draw)
        if fault is not None:
            hung = past.hung + (fault == "hung_poll")
            past = replace(past, row=past.row + 1, total=past.total + 1, hung=hung)
            self._books.note_poll_past(prediction.id, past)
            return await self._faulty(request, prediction, fault, draw)
        told = self._held_back(prediction, plan, past, await self.tell(request, prediction))
        told = replace(told, word=word(told.status, plan, prediction.polls, draw))
        return await self._answer(request, prediction, told)

    async def tell(self, request: web.Request, prediction: BookedPrediction) -> PollAnswer:
        """What is to be told of a prediction now."""
        if time.time() < prediction.ready_at:
            return PollAnswer()
        plan = self._plan(prediction)
        if prediction.outcome != "completed":
            error, code = ERRORS[prediction.outcome]
            http = 500 if plan.failed_500 else 200
            return PollAnswer(status="failed", word="failed", error=error, code=code, http=http)
        outputs = await self._outputs(request, prediction, plan)
        told = PollAnswer(status="completed", word="completed", outputs=outputs)
        cover = {"cover_url": f"{root(request)}/media/{prediction.id}/{COVER}"}
        # A text beside a lone audio_url is what was heard in it.
        heard = plan.shape == "url" and prediction.type == "audio"
        return _with_notes(told, plan, cover if heard else cover | {"lyrics_result": LYRICS})

    def _plan(self, prediction: BookedPrediction) -> Plan:
        return plan_of(self._settings.faults, self._settings.seed, prediction.id)

    def _held_back(
        self, prediction: BookedPrediction, plan: Plan, past: PollPast, told: PollAnswer
    ) -> PollAnswer:
        """Leave the outputs out a few times, and keep in the books what is told."""
        done = told.status == "completed"
        empty = done and plan.empty_first and not past.told and past.empty < EMPTY_POLLS
        now = replace(
            past,
            row=0,
            empty=past.empty + empty,
            told=past.told or int(done and not empty),
        )
        if now != past:
            self._books.note_poll_past(prediction.id, now)
        return replace(told, outputs=(), error="", beside={}) if empty else told

    async def _answer(
        self, request: web.Request, prediction: BookedPrediction, told: PollAnswer
    ) -> web.Response:
        wire = self._settings.wire
        answer = poll_answer(prediction, told, self._plan(prediction), wire=wire)
        return web.json_response(answer, status=told.http)

    async def _faulty(
        self, request: web.Request, prediction: BookedPrediction, fault: str, draw: random.Random
    ) -> web.StreamResponse:
        if fault == "poll_error":
            return broken_gateway(draw, _ERRORS)
        if fault == "garbage":
            return web.Response(body=garbage(prediction, draw), content_type="application/json")
        if fault == "poll_reset":
            return reset(request)
        if fault == "hung_poll":
            await self._service.hold(request, self._settings.held_s)
            return drop(request)
        odd = PollAnswer(word=None if fault == "no_status" else odd_word(draw))
        return await self._answer(request, prediction, odd)

    # -- outputs --------------------------------------------------------------------------------

    async def _outputs(
        self, request: web.Request, prediction: BookedPrediction, plan: Plan
    ) -> tuple[str, ...]:
        if transcribes(prediction.body):
            return (transcript(prediction.body),)
        indexes = range(prediction.outputs)
        if plan.inline is None:
            service = self._service
            return tuple(output_url(service, request, prediction, index) for index in indexes)
        return tuple([await self._inline(prediction, index, plan.inline) for index in indexes])

    async def _inline(self, prediction: BookedPrediction, index: int, form: str) -> str:
        maker, loop = self._service.maker, asyncio.get_running_loop()
        body = await loop.run_in_executor(maker.thread, maker.make, prediction, index)
        text = base64.b64encode(body).decode()
        return text if form == "base64" else f"data:{content_type(prediction)};base64,{text}"


def _with_notes(told: PollAnswer, plan: Plan, beside: Mapping[str, str]) -> PollAnswer:
    """The same answer with what its plan says of the outputs and has ``beside`` them."""
    if plan.fewer and len(told.outputs) > 1:
        told = replace(told, outputs=told.outputs[:-1])
    if plan.flagged:
        told = replace(told, error=FLAGGED, flagged=True)
    return replace(told, beside=beside) if plan.beside else told


COVER = "cover.png"
"""The name of the picture beside a prediction's outputs."""

FLAGGED = "an output was flagged by the safety filter"

LYRICS = "One mug, two mugs,\nthree mugs of tea."
"""The text beside a prediction's outputs."""

ERRORS: dict[str, tuple[str, int]] = {
    "failed": ("the model failed to generate: internal error", 1),
    "unreachable": ("failed to download the input media: 404 Not Found", 2),
    "moderated": ("input refused: it violates the content policy", 1039),
}
"""Text and error code by outcome."""

_OBJECT_KEYS = ("url", "download_url", "uri")


@dataclass(frozen=True, kw_only=True, slots=True)
class PollAnswer:
    """What one answer tells: the status, the word for it, outputs, and the HTTP status.

    ``word`` None: the answer leaves the status out, and all that goes with it. ``flagged``: its
    first output is. ``beside`` are more fields, which stand where there are outputs.
    """

    status: str = "processing"
    word: str | None = "processing"
    outputs: tuple[str, ...] = ()
    error: str = ""
    code: int = 0
    http: int = 200
    flagged: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def flags(self) -> list[bool]:
        """Which outputs are flagged."""
        return [self.flagged and index == 0 for index in range(len(self.outputs))]


def poll_answer(
    prediction: BookedPrediction, told: PollAnswer, plan: Plan, *, wire: str
) -> dict[str, Any]:
    """The answer to a poll."""
    if wire == "article":
        return _article_fields(prediction, told, plan)
    fields = _canonical_fields(prediction, told, plan)
    return {"code": "200" if plan.text_code else 200, "message": "", "data": fields}


def submit_answer(
    prediction: BookedPrediction, told: PollAnswer, plan: Plan, *, wire: str, poll_url: str
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


def _canonical_fields(prediction: BookedPrediction, told: PollAnswer, plan: Plan) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": prediction.id, "model": prediction.model}
    if told.word is None:
        return fields
    fields.update(status=told.word, outputs=None, error=told.error, **told.beside)
    fields.update(_placed(prediction.type, told.outputs, plan.shape or "list"))
    fields.update(_cost(prediction, told, plan))
    if told.status == "completed":
        fields["has_nsfw_contents"] = told.flags
        fields["metrics"] = {"predict_time": round(prediction.ready_at - prediction.created_at, 3)}
    if told.code:
        fields["error_code"] = told.code
    return fields


def _article_fields(prediction: BookedPrediction, told: PollAnswer, plan: Plan) -> dict[str, Any]:
    if told.word is None:
        return {"model": prediction.model}
    fields: dict[str, Any] = {"status": told.word, **told.beside}
    fields.update(_placed(prediction.type, told.outputs, plan.shape or "output.url"))
    fields.update(_cost(prediction, told, plan))
    if told.flagged and told.outputs:
        fields["has_nsfw_contents"] = told.flags
    if told.error:
        fields["error"] = told.error
    if told.code:
        fields["error_code"] = told.code
    return fields


def _cost(prediction: BookedPrediction, told: PollAnswer, plan: Plan) -> dict[str, Any]:
    """What it cost, as text; nothing if it is not told."""
    if told.status != "completed" or not plan.cost_told:
        return {}
    return {"price": f"{Decimal(prediction.price).scaleb(-6):.6f}"}


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
