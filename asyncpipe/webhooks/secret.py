"""A secret that the sender tells whoever has its key: fetched when it is needed, kept for a day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from asyncpipe.errors import AsyncpipeError, WebhookKeysAway, WebhookRefused
from asyncpipe.webhooks.delivery import Delivery, RawHeaders
from asyncpipe.webhooks.keys import AWAY, COOL_DOWN_S, KEPT_S
from asyncpipe.webhooks.standard import Read, StandardWebhooks, usual


class FetchedSecret:
    """A verifier of Standard Webhooks whose secret ``fetch`` gets; asked once a minute at most.

    One that is refused may be signed by a new secret, so that the secret is asked for once more.
    """

    def __init__(self, fetch: Callable[[], Awaitable[str]], *, read: Read = usual) -> None:
        self._fetch, self._read = fetch, read
        self._lock = asyncio.Lock()
        self._secret = ""
        self._verifier: StandardWebhooks | None = None
        self._until = 0.0  # by the loop's clock
        self._tried_at: float | None = None

    async def verify(
        self, headers: RawHeaders, body: bytes, now: datetime | None = None
    ) -> Delivery:
        """The delivery that a request is, as ``Verifier`` says."""
        verifier = await self._known()
        try:
            return await verifier.verify(headers, body, now)
        except WebhookRefused as exc:
            if exc.word != "forged" or (newer := await self._renewed(verifier)) is verifier:
                raise
        return await newer.verify(headers, body, now)

    async def _known(self) -> StandardWebhooks:
        if self._verifier is not None and asyncio.get_running_loop().time() < self._until:
            return self._verifier
        return await self._renewed(None)

    async def _renewed(self, known: StandardWebhooks | None) -> StandardWebhooks:
        """Ask for the secret, unless that was done just now; the same verifier for the same one.

        ``known`` was found wanting. Raises WebhookKeysAway.
        """
        clock = asyncio.get_running_loop().time
        async with self._lock:
            fresh = self._verifier is not None and clock() < self._until
            if self._verifier is not None and fresh and self._verifier is not known:
                return self._verifier  # renewed while this one waited
            if self._tried_at is not None and clock() < self._tried_at + COOL_DOWN_S:
                if self._verifier is not None and fresh:
                    return self._verifier
                raise WebhookKeysAway(AWAY)
            self._tried_at = clock()
            try:
                secret = await self._fetch()
                if secret != self._secret or self._verifier is None:
                    self._verifier = StandardWebhooks(secret, read=self._read)
            except AsyncpipeError:
                raise WebhookKeysAway(AWAY) from None
            self._secret, self._until = secret, clock() + KEPT_S
            return self._verifier
