"""The history: an account's predictions, newest first, and what may be wrong with the list."""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import (
    HISTORY_ERRORS_IN_A_ROW,
    Plan,
    RowPlan,
    dice,
    row_plan,
)
from asyncpipe.simulator.poll import Polls, poll_answer
from asyncpipe.simulator.wire import Service, broken_gateway, refusal

MOST_ROWS = 50

_STATUSES = ("", "created", "processing", "completed", "failed", "timeout")

_ERRORS = (429, 500, 502, 503)

_DEFAULTS = {"seed": -1, "enable_base64_output": False, "negative_prompt": "", "num_images": 1}
"""What a provider may add to a body: fields that were not sent, with what they are then."""


class History:
    """Answer questions for an account's predictions."""

    def __init__(self, service: Service, polls: Polls) -> None:
        self._service = service
        self._books = service.books
        self._settings = service.settings
        self._polls = polls
        self._failed = 0

    async def history(self, request: web.Request) -> web.Response:
        """One page of the list."""
        self._books.count("histories")
        if (fault := self._fault()) is not None:
            return fault
        query = request.query
        number, size = _count(query.get("no", "1")), _count(query.get("size", "20"))
        status = query.get("status", "").lower()
        if number is None or size is None or status not in _STATUSES:
            return refusal(400, "Invalid request parameters: no, size or status")
        size = min(size, MOST_ROWS)
        found = self._books.listed(
            self._service.account(request),
            model=query.get("model", ""),
            prediction_id=query.get("sessionID", ""),
            status=status,
        )
        ids = [each for each, created_at in found if self._is_listed(each, created_at)]
        page = ids[(number - 1) * size : number * size]
        items = [await self._row(request, each) for each in page]
        data = {"items": items, "pageNo": number, "pageSize": size, "total": len(ids)}
        return web.json_response({"code": 200, "message": "", "data": data})

    def _fault(self) -> web.Response | None:
        faults, seed = self._settings.faults, self._settings.seed
        draw = dice(seed, "history", self._books.counter("histories"))
        if draw.random() < faults.no_history:
            return refusal(404, "not found")
        if draw.random() >= faults.history_error or self._failed >= HISTORY_ERRORS_IN_A_ROW:
            self._failed = 0
            return None
        self._failed += 1
        return broken_gateway(draw, _ERRORS)

    def _plan(self, prediction_id: str) -> RowPlan:
        return row_plan(self._settings.faults, self._settings.seed, prediction_id)

    def _is_listed(self, prediction_id: str, created_at: float) -> bool:
        late = self._settings.faults.history_lag and self._plan(prediction_id).late
        return not late or time.time() >= created_at + self._settings.history_lag_s

    async def _row(self, request: web.Request, prediction_id: str) -> dict[str, Any]:
        prediction = self._books.find(prediction_id)
        assert prediction is not None, "nothing is taken out of the books"
        told = await self._polls.tell(request, prediction)
        result = poll_answer(prediction, told, Plan(), wire="canonical")["data"]
        row = {
            "ID": prediction.id,
            "createdAt": int(prediction.created_at),
            "model": prediction.model,
            "requestBody": json.dumps(prediction.body, ensure_ascii=False),
            "result": result,
            "status": told.status,
        }
        return self._spoiled(row, prediction, self._plan(prediction_id))

    def _spoiled(
        self, row: dict[str, Any], prediction: BookedPrediction, plan: RowPlan
    ) -> dict[str, Any]:
        body = dict(prediction.body)
        if plan.defaults:
            body = {**_DEFAULTS, **dict(reversed(body.items()))}
        if plan.foreign:
            body = {"model": prediction.model, "prompt": "somebody else's"}
        if plan.taken and (before := self._books.before(prediction.number)):
            row["ID"] = before.id
        row["requestBody"] = json.dumps(body, ensure_ascii=False)
        if plan.missing is not None:
            sent = [name for name in body if name != "model"]
            lacks = ["ID", "createdAt", "requestBody", *sent][plan.missing % (3 + len(sent))]
            row.pop(lacks, None)
            if lacks in sent:
                del body[lacks]
                row["requestBody"] = json.dumps(body, ensure_ascii=False)
        return row


def _count(text: str) -> int | None:
    """A number from 1 up; None for anything else."""
    digits = text.isascii() and text.isdigit() and len(text) < 10
    return int(text) or None if digits else None
