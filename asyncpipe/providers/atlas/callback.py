"""How Atlas Cloud signs what it sends back, and where in that the prediction and its status are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from asyncpipe.errors import WebhookRefused
from asyncpipe.webhooks import (
    MALFORMED,
    Claim,
    Delivery,
    Headers,
    KeyRing,
    PublishedKeys,
    Signed,
    at_of,
    fetch_keys,
    from_base64,
    id_in,
    word_in,
)

_PREFIX = "X-AtlasCloud-Webhook-"

_SIGNATURE_BYTES = 64


def verifier(base_url: str) -> PublishedKeys:
    """Make a verifier for the API at ``base_url``, which publishes its keys there."""
    keys = KeyRing(partial(fetch_keys, f"{base_url}/webhooks/jwks.json"))
    return PublishedKeys(keys, claim=claim, read=read)


def claim(headers: Headers, body: bytes) -> Claim:
    """What was signed: the time, a dot, the body. Raises WebhookRefused."""
    at = headers.seconds(f"{_PREFIX}Timestamp")
    text = headers.one(f"{_PREFIX}Timestamp").encode() + b"." + body
    return Claim(
        signed=Signed(text=text, at=at),
        signature=_signature(headers),
        key_id=headers.one(f"{_PREFIX}Key-Id"),
    )


def _signature(headers: Headers) -> bytes:
    """The Ed25519 signature.

    The bare header holds an HMAC of another kind today, and will hold this one some day.
    """
    name = f"{_PREFIX}Signature-Ed25519"
    if name not in headers:
        name = f"{_PREFIX}Signature"
    signature = from_base64(headers.one(name), url_safe=True)
    if signature is None or len(signature) != _SIGNATURE_BYTES:
        raise WebhookRefused(f"the header {name} has no signature", "malformed", MALFORMED)
    return signature


def read(headers: Headers, payload: Mapping[str, Any], at: int) -> Delivery:
    """The delivery; raises WebhookRefused where headers and body name two predictions.

    The status is the inner one: it may be failed under an "OK". The headers' id is not signed.
    """
    prediction_id = id_in(payload, "session_id")
    name = f"{_PREFIX}Id"
    if name in headers and headers.one(name) != prediction_id:
        raise WebhookRefused(f"the header {name} is of another one", "malformed", MALFORMED)
    inner = payload.get("payload")
    return Delivery(
        prediction_id=prediction_id,
        status=word_in(inner, "status") or word_in(payload, "status"),
        payload=payload,
        delivery_id=prediction_id,
        at=at_of(at),
    )
