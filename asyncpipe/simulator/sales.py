"""What every profile does with a submit: refuse it by chance, or sell it; and what was sold."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import (
    FAILED_IN_A_ROW,
    callback_fault,
    dice,
    media_plan,
    plan_of,
    refusal,
)
from asyncpipe.simulator.models import charge, medium, outputs_asked
from asyncpipe.simulator.wire import Service, root

HIDDEN_POLLS = 2
"""Polls that ``not_found_first`` answers 404."""

SUFFIX = {"image": ".png", "video": ".mp4", "audio": ".wav", "model": ".glb"}
"""How the URL of an output ends, by what it is."""

_GENERATION_S = {"image": (8.0, 20.0), "video": (30.0, 90.0), "audio": (8.0, 20.0)}


class Sales:
    """Sells predictions of any model, with the faults of the settings; the wire is the caller's."""

    def __init__(self, service: Service) -> None:
        self._service, self._books, self._settings = service, service.books, service.settings

    def refused(self) -> str | None:
        """Count a submit; the name of the fault that refuses it, or None: it may be sold."""
        self._books.count("submits")
        return refusal(self._settings.faults, self._settings.seed, self._books.submits())

    def sell(
        self,
        *,
        kind: str,
        model: str,
        body: dict[str, Any],
        account: str,
        price: int | None = None,
        outcome: str | None = None,
        called: bool = False,
    ) -> BookedPrediction:
        """Enter a prediction in the books, charged from now on; returns how it will end.

        The books have ``body`` with its model in it, and a prompt or the like: media are drawn so.
        ``kind`` is image, video or audio. ``price`` (micro-dollars) and ``outcome`` are drawn, or
        those of the model, unless told. ``called``: somebody wants to be called back.
        """
        low, high = self._settings.generation_s or _GENERATION_S[kind]
        now, number = time.time(), self._books.next_number()
        faults, seed = self._settings.faults, self._settings.seed
        draw = random.Random(f"{seed}-{number}")
        wait_s = draw.uniform(low, high) / self._settings.speed
        hidden = draw.random() < faults.not_found_first
        prediction_id = f"{draw.getrandbits(128):032x}"
        plan = plan_of(faults, seed, prediction_id)
        body = {"model": model, **body}
        early = called and callback_fault(faults, seed, prediction_id, "early")
        instant = plan.instant or early
        if price is None:
            price = charge(body, catalog=self._settings.catalog)
        prediction = BookedPrediction(
            number=number,
            id=prediction_id,
            type=kind,
            model=model,
            body=body,
            created_at=now,
            ready_at=now if instant else now + wait_s,
            outcome=outcome or self._outcome(draw.random(), body),
            price=price + price // 2 if plan.overrun else price,
            outputs=outputs_asked(body),
            hidden_polls=HIDDEN_POLLS if hidden and not instant else 0,
            account=account,
        )
        self._books.sell(prediction)
        return prediction

    def _outcome(self, draw: float, body: dict[str, Any]) -> str:
        faults = self._settings.faults
        if faults.failed <= draw < faults.failed + faults.moderated:
            return "moderated"
        return "failed" if self.strikes("failed", faults.failed, draw, body) else "completed"

    def strikes(self, end: str, chance: float, draw: float, body: dict[str, Any]) -> bool:
        """Whether a bad end strikes that may be bought anew: not too often for one request."""
        if not 0 < chance < 1:
            return draw < chance
        same = json.dumps(body, sort_keys=True).encode()
        row = f"{end} {hashlib.sha256(same).hexdigest()[:16]}"
        if draw < chance and self._books.counter(row) < FAILED_IN_A_ROW:
            self._books.count(row)
            return True
        self._books.reset(row)
        return False

    def too_dear(self, account: str, price: int) -> bool:
        """Whether an account lacks the money for a price in micro-dollars."""
        balance = self._settings.balance_usd
        if balance is None:
            return False
        return self._books.charged(account) + Decimal(price).scaleb(-6) > balance

    def comes_late(self, sell: Callable[[], object]) -> bool:
        """Whether the submit counted last is sold, by ``sell``, later than its connection ends."""
        chance = self._settings.faults.late_sale
        if chance <= self.draw("late", self._books.submits()).random():
            return False

        def sell_then() -> None:
            if not self._service.leaving.is_set():
                sell()

        asyncio.get_running_loop().call_later(self._settings.history_lag_s, sell_then)
        return True

    def lost(self, prediction: BookedPrediction) -> str | None:
        """The name of the fault that loses the answer to a submit that was sold, or None."""
        return plan_of(self._settings.faults, self._settings.seed, prediction.id).lost

    def find(self, request: web.Request, prediction_id: str) -> BookedPrediction | None:
        """A prediction of the key's account, its poll counted; None where it has none, or hides."""
        prediction = self._books.find(prediction_id)
        if prediction is None or prediction.account != self._service.account(request):
            return None
        self._books.note_poll(prediction.id)
        return None if prediction.polls < prediction.hidden_polls else prediction

    def ended(self, prediction: BookedPrediction) -> bool:
        """Whether a prediction has ended by now."""
        return time.time() >= prediction.ready_at

    def urls(self, request: web.Request, prediction: BookedPrediction) -> list[str]:
        """Where a completed prediction's outputs are."""
        return [
            output_url(self._service, request, prediction, index)
            for index in range(prediction.outputs)
        ]

    def draw(self, *what: object) -> random.Random:
        """Dice of the simulator's own seed."""
        return dice(self._settings.seed, *what)


def output_url(
    service: Service, request: web.Request, prediction: BookedPrediction, index: int
) -> str:
    """Where an output is; an expired URL is told until it was tried, and after that the fresh."""
    plan = media_plan(service.settings.faults, service.settings.seed, prediction.id, index)
    suffix = "" if plan.untyped else SUFFIX[medium(prediction.type, prediction.model)]
    path = f"/media/{prediction.id}/{index}{suffix}"
    if plan.expired is None:
        return f"{root(request)}{path}"
    tried, _ = service.books.fetches(prediction.id, index)
    return f"{root(request)}{path}?Signature={plan.fresh if tried else plan.old}"
