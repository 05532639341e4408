"""Verifiers: a request's headers and raw body to a delivery, or the reason why not."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from asyncpipe.errors import WebhookRefused
from asyncpipe.webhooks.delivery import (
    REPLAYED,
    WINDOW_S,
    Delivery,
    Headers,
    RawHeaders,
    Signed,
    check_body,
    check_window,
    payload_of,
)
from asyncpipe.webhooks.keys import KeyRing

MOST_REMEMBERED = 20_000
"""Signatures that are known again; only right ones are remembered."""


class Verifier(Protocol):
    """Tells deliveries from forgeries; one for each sender, kept for as long as they come."""

    async def verify(
        self, headers: RawHeaders, body: bytes, now: datetime | None = None
    ) -> Delivery:
        """The delivery that a request is; ``body`` are its raw bytes.

        ``now`` is the time (with a zone) at which it is looked at, by default the present. Raises
        WebhookRefused with the HTTP status to answer, of which WebhookKeysAway (503) means that it
        should be delivered again.
        """


class Replays:
    """Which signed texts were taken before, for as long as their time lets them pass."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def take(self, signed: Signed, now: datetime) -> None:
        """Remember it; raises WebhookRefused for one that was taken before.

        By the text: a signature can be written in more than one way.
        """
        clock = now.timestamp()
        while self._seen:
            oldest, at = next(iter(self._seen.items()))
            if at >= clock - WINDOW_S and len(self._seen) < MOST_REMEMBERED:
                break
            del self._seen[oldest]
        digest = hashlib.sha256(signed.text).digest()
        if digest in self._seen:
            raise WebhookRefused("the same was delivered before", "replayed", REPLAYED)
        self._seen[digest] = signed.at


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a delivery's headers claim, with the signature to check and the key's id, if it says."""

    signed: Signed
    signature: bytes
    key_id: str | None = None


class PublishedKeys:
    """A verifier for a sender that signs with Ed25519 and publishes its keys.

    ``claim`` finds in headers and body what was signed, ``read`` makes the delivery of the body's
    JSON once the signature is right; both raise WebhookRefused.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        claim: Callable[[Headers, bytes], Claim],
        read: Callable[[Headers, Mapping[str, Any], int], Delivery],
    ) -> None:
        self._keys, self._claim, self._read = keys, claim, read
        self._replays = Replays()

    async def verify(
        self, headers: RawHeaders, body: bytes, now: datetime | None = None
    ) -> Delivery:
        """The delivery that a request is, as ``Verifier`` says."""
        body, given = check_body(body), Headers(headers)
        now = now or datetime.now(UTC)
        claim = self._claim(given, body)
        check_window(claim.signed.at, now)
        await self._keys.check(claim.signed.text, claim.signature, claim.key_id)
        delivery = self._read(given, payload_of(body), claim.signed.at)
        self._replays.take(claim.signed, now)
        return delivery
