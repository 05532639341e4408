"""What a provider calls back: it has a prediction polled at once, and decides nothing else.

A delivery may be late, come twice, out of order, before the submit's answer, or be about somebody
else's prediction. Whatever it says of an end, of outputs or of money, the poll that it causes has
to say itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asyncpipe.errors import UsageError, WebhookRefused
from asyncpipe.jobs import now
from asyncpipe.providers import HasCallbacks, Provider
from asyncpipe.webhooks import Delivery, RawHeaders, Verifier

logger = logging.getLogger("asyncpipe.webhooks")

KEPT_S = 180.0
"""How long a delivery waits for its prediction to be known: a submit is answered within it."""

MOST_KEPT = 10_000
"""So many deliveries wait; of more the oldest are forgotten."""

SAY_AGAIN_S = 60.0
"""How often the same kind of refusal is logged."""


def calls_back(provider: Provider) -> bool:
    """Whether a provider was told where to call back."""
    return isinstance(provider, HasCallbacks) and provider.webhook_url is not None


@dataclass(slots=True, eq=False)
class Callback:
    """One prediction that is polled, and its next poll, which a delivery brings forward.

    ``backstop_s``: it is polled this seldom until it is ``heard`` of; None: it is not called back.
    """

    backstop_s: float | None = None
    heard: bool = False
    _fresh: bool = False
    _sleeping: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """It was delivered: poll now, or once more after the poll that is under way."""
        self.heard = self._fresh = True
        _wake(self._sleeping)

    async def until(self, due: float) -> None:
        """Sleep until ``due``, by the loop's clock, or until it is delivered."""
        loop = asyncio.get_running_loop()
        if self._fresh or due <= loop.time():
            self._fresh = False
            await asyncio.sleep(0)
            return
        self._sleeping = loop.create_future()
        timer = loop.call_at(due, _wake, self._sleeping)
        try:
            await self._sleeping
        finally:
            timer.cancel()
            self._sleeping, self._fresh = None, False


def _wake(sleeping: asyncio.Future[None] | None) -> None:
    if sleeping is not None and not sleeping.done():
        sleeping.set_result(None)


class Callbacks:
    """Who is polled, by the prediction's id, and what was delivered of others, for a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._polled: dict[str, Callback] = {}
        self._kept: OrderedDict[str, float] = OrderedDict()

    @contextmanager
    def expecting(self, prediction_id: str) -> Iterator[Callback]:
        """Within it deliveries of a prediction reach its poller; those that came before, too."""
        callback = Callback()
        self._drop_old()
        if self._kept.pop(prediction_id, None) is not None:
            callback.ring()
        self._polled[prediction_id] = callback
        try:
            yield callback
        finally:
            if self._polled.get(prediction_id) is callback:
                del self._polled[prediction_id]

    def hear(self, ids: Iterable[str]) -> bool:
        """Have a prediction polled at once; return whether somebody polls it.

        ``ids`` are all that it is known by. Those of nobody are kept for a while.
        """
        found = [callback for each in ids if (callback := self._polled.get(each)) is not None]
        for callback in found:
            callback.ring()
        if not found:
            self._keep(ids)
        return bool(found)

    def _keep(self, ids: Iterable[str]) -> None:
        self._drop_old()
        for each in ids:
            self._kept[each] = self._clock() + KEPT_S
            self._kept.move_to_end(each)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def _drop_old(self) -> None:
        while self._kept and next(iter(self._kept.values())) <= self._clock():
            self._kept.popitem(last=False)


class Deliveries:
    """Takes deliveries as they come over the network: verified, counted, heard.

    ``counts`` has how many woke a poll, were kept for a prediction that nobody polls, or were
    refused, each by its word.
    """

    def __init__(
        self, providers: Iterable[Provider], callbacks: Callbacks, clock: Callable[[], float]
    ) -> None:
        self._providers, self._callbacks, self._clock = tuple(providers), callbacks, clock
        self._said: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    async def take(self, headers: RawHeaders, body: bytes, verifier: Verifier | None) -> int:
        """Return the HTTP status to answer; raises UsageError where nothing tells forgeries."""
        try:
            delivery = await self._verified(headers, body, [verifier] if verifier else self._own())
        except WebhookRefused as exc:
            self._refuse(exc)
            return exc.status
        ids = (delivery.prediction_id, *delivery.also)
        self.counts["woken" if self._callbacks.hear(ids) else "kept"] += 1
        return 200

    async def _verified(
        self, headers: RawHeaders, body: bytes, verifiers: Iterable[Verifier]
    ) -> Delivery:
        """What one of them takes; else raises what the first says that it is meant for."""
        refusals: list[WebhookRefused] = []
        for verifier in verifiers:
            try:
                return await verifier.verify(headers, body, now())
            except WebhookRefused as exc:
                refusals.append(exc)
        # Without the headers of a sender it is malformed to that one.
        raise next((each for each in refusals if each.word != "malformed"), refusals[0])

    def _own(self) -> list[Verifier]:
        if own := [each.verifier for each in self._providers if isinstance(each, HasCallbacks)]:
            return own
        raise UsageError(
            f"{self._providers[0].name} says nothing of how it signs what it calls back: give a "
            "verifier, as asyncpipe.webhooks.StandardWebhooks(SECRET)"
        )

    def _refuse(self, refusal: WebhookRefused) -> None:
        """Count it, and say so now and then: whoever forges may do so as often as he likes."""
        word, clock = refusal.word, self._clock()
        self.counts[word] += 1
        if clock < self._said.get(word, clock):
            return
        self._said[word] = clock + SAY_AGAIN_S
        logger.warning(
            "a webhook is refused (%s, %d so far): %s",
            word,
            self.counts[word],
            refusal,
            extra={"action": "webhook.refused"},
        )
