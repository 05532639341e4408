"""Replicate's list of predictions, and what may be wrong with it."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from asyncpipe.simulator.faults import HISTORY_ERRORS_IN_A_ROW, dice, row_plan
from asyncpipe.simulator.profiles.replicate.predictions import Predictions
from asyncpipe.simulator.profiles.replicate.words import broken, limited, problem
from asyncpipe.simulator.wire import Service, root

ROWS = 100
"""Predictions to a page."""

_ERRORS = (429, 500, 502, 503)

_DEFAULTS = {"go_fast": True, "aspect_ratio": "1:1", "output_format": "webp"}
"""What may be added to an input: fields that were not sent, with what they are then."""


class PredictionList:
    """Answer questions for an account's predictions, newest first."""

    def __init__(self, service: Service, predictions: Predictions) -> None:
        self._service, self._books, self._settings = service, service.books, service.settings
        self._predictions = predictions
        self._failed = 0

    async def page(self, request: web.Request) -> web.StreamResponse:
        """One page; ``cursor`` is the last prediction of the page before."""
        self._books.count("histories")
        if (fault := self._fault()) is not None:
            return fault
        account = self._service.account(request)
        found = self._books.listed(account, model="", prediction_id="", status="")
        ids = [each for each, created_at in found if self._is_listed(each, created_at)]
        cursor = request.query.get("cursor", "")
        if cursor and cursor not in ids:
            return problem(404, "Invalid cursor")
        start = ids.index(cursor) + 1 if cursor else 0
        page = ids[start : start + ROWS]
        more = start + ROWS < len(ids)
        told = {
            "next": f"{root(request)}/v1/predictions?cursor={page[-1]}" if more else None,
            "previous": None,
            "results": [self._row(request, each) for each in page],
        }
        return limited(web.json_response(told))

    def _fault(self) -> web.Response | None:
        faults = self._settings.faults
        draw = dice(self._settings.seed, "history", self._books.counter("histories"))
        if draw.random() < faults.no_history:
            return problem(404, "The requested resource could not be found.")
        if draw.random() >= faults.history_error or self._failed >= HISTORY_ERRORS_IN_A_ROW:
            self._failed = 0
            return None
        self._failed += 1
        return broken(draw, _ERRORS)

    def _is_listed(self, prediction_id: str, created_at: float) -> bool:
        faults, seed = self._settings.faults, self._settings.seed
        late = faults.history_lag and row_plan(faults, seed, prediction_id).late
        return not late or time.time() >= created_at + self._settings.history_lag_s

    def _row(self, request: web.Request, prediction_id: str) -> dict[str, Any]:
        sold = self._books.find(prediction_id)
        assert sold is not None, "nothing is taken out of the books"
        row = self._predictions.document(request, sold)
        del row["output"], row["logs"]
        plan = row_plan(self._settings.faults, self._settings.seed, prediction_id)
        if plan.defaults and row["input"]:
            row["input"] = _DEFAULTS | row["input"]
        if plan.foreign:
            row["input"] = {"prompt": "somebody else's"}
        if plan.taken and (before := self._books.before(sold.number)):
            row["id"] = before.id
        if plan.missing is not None:
            sent = [name for name in row["input"] if name not in _DEFAULTS]
            lacks = ["id", "created_at", "input", *sent][plan.missing % (3 + len(sent))]
            row.pop(lacks, None)
            if lacks in sent:
                row["input"] = {name: v for name, v in row["input"].items() if name != lacks}
        return row
