"""Polls: what a prediction has come to, and what may be wrong with the answer."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from dataclasses import replace

from aiohttp import web

from asyncpipe.simulator.answers import ERRORS, Told, garbage, poll_answer
from asyncpipe.simulator.books import BookedPrediction, PollPast
from asyncpipe.simulator.chance import (
    Plan,
    dice,
    media_plan,
    odd_word,
    plan_of,
    poll_fault,
    quiet,
    word,
)
from asyncpipe.simulator.sound import transcribes, transcript
from asyncpipe.simulator.wire import Service, broken_gateway, drop, refusal, reset, root

EMPTY_POLLS = 2
"""Polls that ``empty_first`` answers completed and without outputs."""

CONTENT_TYPES = {"image": "image/png", "video": "video/mp4", "audio": "audio/wav"}

_SUFFIX = {"image": ".png", "video": ".mp4", "audio": ".wav"}

_ERRORS = (429, 500, 502, 503, 504)


class Polls:
    """Answer polls."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._books = service.books
        self._settings = service.settings

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Answer one poll."""
        prediction = self._books.find(request.match_info["id"])
        if prediction is None:
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

    async def tell(self, request: web.Request, prediction: BookedPrediction) -> Told:
        """What is to be told of a prediction now."""
        if time.time() < prediction.ready_at:
            return Told()
        plan = self._plan(prediction)
        if prediction.outcome != "completed":
            error, code = ERRORS[prediction.outcome]
            http = 500 if plan.failed_500 else 200
            return Told(status="failed", word="failed", error=error, code=code, http=http)
        outputs = await self._outputs(request, prediction, plan)
        return Told(status="completed", word="completed", outputs=outputs)

    def _plan(self, prediction: BookedPrediction) -> Plan:
        return plan_of(self._settings.faults, self._settings.seed, prediction.id)

    def _held_back(
        self, prediction: BookedPrediction, plan: Plan, past: PollPast, told: Told
    ) -> Told:
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
        return replace(told, outputs=()) if empty else told

    async def _answer(
        self, request: web.Request, prediction: BookedPrediction, told: Told
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
        odd = Told(word=None if fault == "no_status" else odd_word(draw))
        return await self._answer(request, prediction, odd)

    # -- outputs --------------------------------------------------------------------------------

    async def _outputs(
        self, request: web.Request, prediction: BookedPrediction, plan: Plan
    ) -> tuple[str, ...]:
        if transcribes(prediction.body):
            return (transcript(prediction.body),)
        indexes = range(prediction.outputs)
        if plan.inline is None:
            return tuple(self._url(request, prediction, index) for index in indexes)
        return tuple([await self._inline(prediction, index, plan.inline) for index in indexes])

    async def _inline(self, prediction: BookedPrediction, index: int, form: str) -> str:
        maker, loop = self._service.maker, asyncio.get_running_loop()
        body = await loop.run_in_executor(maker.thread, maker.make, prediction, index)
        text = base64.b64encode(body).decode()
        return text if form == "base64" else f"data:{CONTENT_TYPES[prediction.type]};base64,{text}"

    def _url(self, request: web.Request, prediction: BookedPrediction, index: int) -> str:
        plan = media_plan(self._settings.faults, self._settings.seed, prediction.id, index)
        suffix = "" if plan.untyped else _SUFFIX[prediction.type]
        path = f"/media/{prediction.id}/{index}{suffix}"
        if plan.expired is None:
            return f"{root(request)}{path}"
        # An expired URL is told until it was tried; after that, the fresh one.
        tried, _ = self._books.fetches(prediction.id, index)
        return f"{root(request)}{path}?Signature={plan.fresh if tried else plan.old}"
