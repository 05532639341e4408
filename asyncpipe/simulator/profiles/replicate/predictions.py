"""Replicate's predictions: create, ask, cancel."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.callbacks import CallbackDesk, may_be_called
from asyncpipe.simulator.faults import Plan, odd_word, plan_of, poll_fault, quiet
from asyncpipe.simulator.media import transcribes, transcript
from asyncpipe.simulator.models import charge
from asyncpipe.simulator.poll import EMPTY_POLLS, garbage
from asyncpipe.simulator.profiles.replicate.signed import SignedByReplicate
from asyncpipe.simulator.profiles.replicate.words import (
    NO_CREDIT,
    at,
    broken,
    kind_of,
    limited,
    problem,
    throttled,
)
from asyncpipe.simulator.sales import Sales
from asyncpipe.simulator.submit import lose, read_body
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service, drop, firewall, reset, root

KEPT_S = 3600.0
"""How long input and output are kept after the end of a prediction."""

VERSION, DEPLOYMENT = "replicate:version", "replicate:deployment"
"""Where the books have what a submit named besides its input."""

_STARTS = 0.3
"""So much of its time a prediction is starting before it is worked on."""

_ASKING = ("prompt", "text", "image", "images", "audio", "video")

_ERRORS = {
    "failed": "CUDA out of memory",
    "unreachable": "the input cannot be fetched: 404 Not Found",
    "moderated": "The input or output was flagged as sensitive. Please try again with different "
    "inputs. (E005)",
}

_WORDS = {"completed": "succeeded", "aborted": "aborted", "charged": "canceled"}


def _unheard(url: Any) -> web.Response | None:
    """What is answered to a URL that cannot be called back."""
    if url is None or may_be_called(url):
        return None
    return problem(422, "- webhook: must be a https URL", invalid_fields=[_invalid("webhook")])


class Predictions:
    """Sell predictions, and tell how they stand."""

    def __init__(self, service: Service, uploads: UploadDesk) -> None:
        self._service, self._books, self._settings = service, service.books, service.settings
        self._sales, self._uploads = Sales(service), uploads
        self.signed = SignedByReplicate(service, self.document)
        self._callbacks = CallbackDesk(service, self.signed.write)

    # -- create -----------------------------------------------------------------------------------

    async def of_model(self, request: web.Request) -> web.StreamResponse:
        """Of an official model."""
        return await self._create(request, "{owner}/{name}".format(**request.match_info), {})

    async def of_deployment(self, request: web.Request) -> web.StreamResponse:
        """Of a deployment, whatever model it runs."""
        name = "{owner}/{name}".format(**request.match_info)
        return await self._create(request, f"{name}-model", {DEPLOYMENT: name})

    async def of_version(self, request: web.Request) -> web.StreamResponse:
        """Of the version that the body names."""
        body = await read_body(request)
        told = body.get("version") if isinstance(body, dict) else None
        if not isinstance(told, str) or not told:
            return problem(422, "version is required", invalid_fields=[_invalid("version")])
        model, _, version = told.rpartition(":")
        return await self._create(request, model or "somebody/model", {VERSION: version})

    async def _create(
        self, request: web.Request, model: str, named: dict[str, str]
    ) -> web.StreamResponse:
        body = await read_body(request)
        if (fault := self._sales.refused()) is not None:
            return self._refused(fault)
        given = body.get("input") if isinstance(body, dict) else None
        if not isinstance(given, dict) or not any(given.get(name) for name in _ASKING):
            return problem(422, "- input: prompt is required", invalid_fields=[_invalid("input")])
        url = body.get("webhook")
        unfit = _unheard(url) or self._unfit(request, model, given)
        if unfit is not None:
            return unfit
        sell = partial(self._sell, request, model, {**given, **named}, called=url is not None)
        if self._sales.comes_late(sell):
            return drop(request)
        sold = sell()
        if url is not None:
            await self._callbacks.expect(request, sold, url)
        return await self._answer(request, sold)

    async def _answer(self, request: web.Request, sold: BookedPrediction) -> web.StreamResponse:
        lost, told = self._sales.lost(sold), self.document(request, sold)
        if lost is not None and lost != "nameless":
            return await lose(self._service, request, lost)
        return limited(web.json_response({"status": "starting"} if lost else told, status=201))

    def _refused(self, fault: str) -> web.Response:
        if fault in ("rate_limited", "overloaded"):  # it has no word of its own for the second
            return throttled(self._sales.draw("refusal", self._books.submits()))
        if fault == "firewall":
            return firewall()
        if fault == "no_balance":
            return problem(402, NO_CREDIT, "Insufficient credit")
        return problem(422, "- input.seed: is not taken", invalid_fields=[_invalid("input.seed")])

    def _unfit(
        self, request: web.Request, model: str, given: dict[str, Any]
    ) -> web.Response | None:
        """What is refused for a limit, or for what it says."""
        most = self._settings.in_flight
        if most is not None and self._books.in_flight(model, time.time()) >= most:
            self._books.count("beyond_in_flight")
            return throttled(self._sales.draw("beyond", self._books.submits()))
        if self._sales.too_dear(self._service.account(request), charge({**given, "model": model})):
            return problem(402, NO_CREDIT, "Insufficient credit")
        if (field := self._uploads.malformed(given)) is not None:
            wrong = [_invalid(f"input.{field}")]
            return problem(422, f"- input.{field}: must be a URL", invalid_fields=wrong)
        return None

    def _sell(
        self, request: web.Request, model: str, body: dict[str, Any], *, called: bool = False
    ) -> BookedPrediction:
        faults, draw = self._settings.faults, self._sales.draw("end", self._books.next_number())
        outcome = "unreachable" if self._uploads.unreachable(body) else None
        if self._sales.strikes("aborted", faults.aborted, draw.random(), body):
            outcome = "aborted"
        elif draw.random() < faults.canceled:
            outcome = "charged"
        return self._sales.sell(
            kind=kind_of(model),
            model=model,
            body=body,
            account=self._service.account(request),
            outcome=outcome,
            called=called,
        )

    # -- ask --------------------------------------------------------------------------------------

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """How a prediction stands."""
        found = self._sales.find(request, request.match_info["id"])
        if found is None:
            return problem(404, "The requested resource could not be found.")
        if quiet(self._settings.faults):
            return limited(web.json_response(self.document(request, found)))
        draw = self._sales.draw("poll", found.id, found.polls)
        past = self._books.poll_past(found.id)
        fault = poll_fault(self._settings.faults, past, draw)
        if fault is not None:
            hung = past.hung + (fault == "hung_poll")
            past = replace(past, row=past.row + 1, total=past.total + 1, hung=hung)
            self._books.note_poll_past(found.id, past)
            return await self._struck(request, found, fault, draw)
        told = self.document(request, found)
        empty = bool(told["output"]) and self.plan(found).empty_first and not past.told
        if empty and past.empty < EMPTY_POLLS:
            now = replace(past, row=0, empty=past.empty + 1)
            told["output"] = None
        else:
            now = replace(past, row=0, told=int(bool(past.told or told["output"])))
        if now != past:
            self._books.note_poll_past(found.id, now)
        return limited(web.json_response(told))

    async def _struck(
        self, request: web.Request, found: BookedPrediction, fault: str, draw: random.Random
    ) -> web.StreamResponse:
        if fault == "garbage":
            return web.Response(body=garbage(found, draw), content_type="application/json")
        if fault == "poll_reset":
            return reset(request)
        if fault == "hung_poll":
            await self._service.hold(request, self._settings.held_s)
            return drop(request)
        if fault == "poll_error":
            return broken(draw)
        word = {"status": odd_word(draw)} if fault == "odd_status" else {}
        return limited(web.json_response({"id": found.id, "model": found.model, **word}))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """End a prediction now; the time that it ran is charged."""
        found = self._books.find(request.match_info["id"])
        if found is None or found.account != self._service.account(request):
            return problem(404, "The requested resource could not be found.")
        if not self._sales.ended(found):
            self._books.cancel(found.id, charged=time.time() >= _started_at(found))
            found = self._books.find(found.id) or found
        return limited(web.json_response(self.document(request, found)))

    # -- tell -------------------------------------------------------------------------------------

    def document(self, request: web.Request, sold: BookedPrediction) -> dict[str, Any]:
        """A prediction as it stands now."""
        word, place = self._word(sold), f"{root(request)}/v1/predictions/{sold.id}"
        removed = self._is_removed(sold)
        named = {VERSION: "hidden", DEPLOYMENT: ""} | sold.body
        given = {name: sold.body[name] for name in sold.body if name not in (VERSION, DEPLOYMENT)}
        output = self._output(request, sold) if word == "succeeded" and not removed else None
        told: dict[str, Any] = {
            "id": sold.id,
            "model": sold.model,
            "version": named[VERSION],
            "input": {} if removed else given,
            "logs": "",
            "output": output,
            "data_removed": removed,
            "error": _ERRORS.get(sold.outcome) if word == "failed" else None,
            "source": "api",
            "status": word,
            "created_at": at(sold.created_at),
            "urls": {"get": place, "cancel": f"{place}/cancel"},
        }
        if named[DEPLOYMENT]:
            told["deployment"] = named[DEPLOYMENT]
        never = word == "canceled" and sold.outcome != "charged"
        started = word not in ("starting", "aborted") and not never
        if started:
            told["started_at"] = at(_started_at(sold))
        if self._sales.ended(sold):
            spent_s = round(sold.ready_at - _started_at(sold), 3) if started else 0.0
            told |= {"completed_at": at(sold.ready_at), "metrics": {"predict_time": spent_s}}
        return told

    def _word(self, sold: BookedPrediction) -> str:
        if self._books.is_cancelled(sold.id):
            return "canceled"
        if self._sales.ended(sold):
            return _WORDS.get(sold.outcome, "failed")
        back = self.plan(sold).backwards and sold.polls % 2
        return "starting" if back or time.time() < _started_at(sold) else "processing"

    def _is_removed(self, sold: BookedPrediction) -> bool:
        if not self._sales.ended(sold):
            return False
        removed = self._settings.faults.output_removed
        early = removed > 0 and self._sales.draw("removed", sold.id).random() < removed
        return early or time.time() >= sold.ready_at + KEPT_S

    def _output(self, request: web.Request, sold: BookedPrediction) -> Any:
        """The output in one of the shapes that models give it."""
        if transcribes(sold.body):
            return [f"{word} " for word in transcript(sold.body).split()]
        plan, urls = self.plan(sold), self._sales.urls(request, sold)
        if plan.fewer and len(urls) > 1:
            del urls[-1]
        if plan.shape == "objects":
            return {"files": [{"file": url} for url in urls], "seed": sold.number}
        if plan.shape == "output.url":
            return {f"{sold.type}_{n}": url for n, url in enumerate(urls)}
        return urls[0] if len(urls) == 1 and plan.shape is None else urls

    def plan(self, sold: BookedPrediction) -> Plan:
        """What is wrong with the answers about a prediction."""
        return plan_of(self._settings.faults, self._settings.seed, sold.id)


def _started_at(sold: BookedPrediction) -> float:
    return sold.created_at + (sold.ready_at - sold.created_at) * _STARTS


def _invalid(field: str) -> dict[str, str]:
    return {"type": "required", "field": field, "description": f"{field} is not as it should be"}
