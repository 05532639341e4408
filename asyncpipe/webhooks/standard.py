"""Standard Webhooks, both ways: how it is signed, and how a signature is checked.

``id.timestamp.body`` is signed with HMAC-SHA256 (``v1``, secrets ``whsec_…``) or with Ed25519
(``v1a``, public keys ``whpk_…``). The header may hold several signatures: one that is right does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from asyncpipe.errors import UsageError, WebhookRefused
from asyncpipe.webhooks.delivery import (
    MALFORMED,
    Delivery,
    Headers,
    RawHeaders,
    Signed,
    at_of,
    check_body,
    check_window,
    from_base64,
    id_in,
    payload_of,
    word_in,
)
from asyncpipe.webhooks.keys import forged, is_signed
from asyncpipe.webhooks.verifier import Replays

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

MOST_SIGNATURES = 16

LEAST_SECRET, MOST_SECRET = 24, 64
"""Bytes of a secret, by the standard."""

Read = Callable[[Mapping[str, Any]], tuple[str, str]]
"""From a body's JSON to the prediction's id and the status word; raises WebhookRefused."""


def usual(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Id and status where most senders have them: on top, or in ``data``."""
    data = payload.get("data")
    place = data if isinstance(data, Mapping) else payload
    word = word_in(place, "status") or word_in(payload, "status", "type")
    return id_in(place, "id", "prediction_id", "request_id"), word


class StandardWebhooks:
    """A verifier of Standard Webhooks, as Replicate and Higgsfield send them.

    ``secrets`` are one or several, ``whsec_…`` or ``whpk_…``: while one is being replaced both are
    right. ``read`` finds id and status in the body. Raises UsageError for what is no secret.
    """

    def __init__(self, secrets: str | Sequence[str], *, read: Read = usual) -> None:
        said = [secrets] if isinstance(secrets, str) else [*secrets]
        if not said:
            raise UsageError("no secret to check webhooks with: give one, whsec_… or whpk_…")
        self._public = [_public_key(text) for text in said if text.startswith("whpk_")]
        self._shared = [secret_of(text) for text in said if not text.startswith("whpk_")]
        self._read, self._replays = read, Replays()

    def __repr__(self) -> str:
        return f"StandardWebhooks({len(self._shared) + len(self._public)} secrets)"

    async def verify(
        self, headers: RawHeaders, body: bytes, now: datetime | None = None
    ) -> Delivery:
        """The delivery that a request is, as ``Verifier`` says; it never waits."""
        body, given = check_body(body), Headers(headers)
        now = now or datetime.now(UTC)
        message, at = given.one(ID), given.seconds(TIMESTAMP)
        signatures = given.words(SIGNATURE)
        if len(signatures) > MOST_SIGNATURES:
            raise WebhookRefused("it has too many signatures", "malformed", MALFORMED)
        check_window(at, now)
        signed = Signed(text=_text(message, at, body), at=at)
        # All of them, whatever the first ones say.
        if not any([self._is_right(each, signed.text) for each in signatures]):
            raise forged()
        payload = payload_of(body)
        prediction_id, status = self._read(payload)
        self._replays.take(signed, now)
        return Delivery(
            prediction_id=prediction_id,
            status=status,
            payload=payload,
            delivery_id=message,
            at=at_of(at),
        )

    def _is_right(self, signature: str, text: bytes) -> bool:
        version, _, encoded = signature.partition(",")
        given = from_base64(encoded)
        if given is None:
            return False
        if version == "v1":
            expected = [_hmac(secret, text) for secret in self._shared]
            return any([hmac.compare_digest(each, given) for each in expected])
        if version == "v1a":
            return any([is_signed(key, given, text) for key in self._public])
        return False  # of a version to come


def sign(secret: str, message: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that sign ``body`` as the message ``message``, sent at ``at`` in Unix seconds.

    Raises UsageError for what is no secret.
    """
    signature = base64.b64encode(_hmac(secret_of(secret), _text(message, at, body))).decode()
    return {ID: message, TIMESTAMP: str(at), SIGNATURE: f"v1,{signature}"}


def secret_of(text: str) -> bytes:
    """The bytes of a secret, ``whsec_`` and base64; raises UsageError, which does not repeat it."""
    secret = from_base64(text.strip().removeprefix("whsec_"))
    if secret is None or not LEAST_SECRET <= len(secret) <= MOST_SECRET:
        raise UsageError(
            f"a secret of webhooks is whsec_ and {LEAST_SECRET} to {MOST_SECRET} bytes in base64, "
            "as whsec_$(openssl rand -base64 32) makes one"
        )
    return secret


def _public_key(text: str) -> bytes:
    key = from_base64(text.strip().removeprefix("whpk_"))
    if key is None or len(key) != 32:
        raise UsageError("a public key of webhooks is whpk_ and 32 bytes in base64")
    return key


def _text(message: str, at: int, body: bytes) -> bytes:
    return f"{message}.{at}.".encode() + body


def _hmac(secret: bytes, text: bytes) -> bytes:
    return hmac.digest(secret, text, hashlib.sha256)
