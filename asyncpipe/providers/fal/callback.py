"""How fal signs what it sends back, and where in that the request and its status are."""

from __future__ import annotations

import hashlib
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
    from_hex,
    word_in,
)

_PREFIX = "X-Fal-Webhook-"

_SIGNATURE_BYTES = 64


def verifier(storage: str) -> PublishedKeys:
    """Make a verifier; fal publishes its keys at the host of its storage."""
    keys = KeyRing(partial(fetch_keys, f"{storage}/.well-known/jwks.json"))
    return PublishedKeys(keys, claim=claim, read=read)


def claim(headers: Headers, body: bytes) -> Claim:
    """What was signed: four lines, the last of them the body's SHA-256. Raises WebhookRefused."""
    at = headers.seconds(f"{_PREFIX}Timestamp")
    lines = [headers.one(f"{_PREFIX}{name}") for name in ("Request-Id", "User-Id", "Timestamp")]
    text = "\n".join([*lines, hashlib.sha256(body).hexdigest()]).encode()
    signature = from_hex(headers.one(f"{_PREFIX}Signature"))
    if signature is None or len(signature) != _SIGNATURE_BYTES:
        raise WebhookRefused(f"the header {_PREFIX}Signature has none", "malformed", MALFORMED)
    return Claim(signed=Signed(text=text, at=at), signature=signature)


def read(headers: Headers, payload: Mapping[str, Any], at: int) -> Delivery:
    """The delivery; after fal's own retries its request has another id than the gateway's."""
    delivery = headers.one(f"{_PREFIX}Request-Id")
    ids = [payload.get("request_id"), payload.get("gateway_request_id"), delivery]
    told = dict.fromkeys(each for each in ids if isinstance(each, str) and each)
    first, *others = told
    return Delivery(
        prediction_id=first,
        status=word_in(payload.get("payload"), "status") or word_in(payload, "status"),
        payload=payload,
        delivery_id=delivery,
        at=at_of(at),
        also=tuple(others),
    )
