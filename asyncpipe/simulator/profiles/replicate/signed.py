"""How Replicate signs a callback: Standard Webhooks, HMAC-SHA256 by a secret that its API tells."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.profiles.replicate.words import limited
from asyncpipe.simulator.wire import Service


class SignedByReplicate:
    """Writes callbacks, whose body is the prediction as ``document`` shows it."""

    def __init__(
        self, service: Service, document: Callable[[web.Request, BookedPrediction], dict[str, Any]]
    ) -> None:
        self._books, self._seed, self._document = service.books, service.settings.seed, document

    async def secret(self, request: web.Request) -> web.Response:
        """Tell the secret to whoever has the key."""
        self._books.count("callback_keys")
        key = base64.b64encode(_secret(self._seed)).decode()
        return limited(web.json_response({"key": f"whsec_{key}"}))

    async def write(
        self, request: web.Request, prediction: BookedPrediction, at: int, forged: bool
    ) -> tuple[bytes, dict[str, str]]:
        """Body and headers; of one that is forged nothing but its signature is wrong."""
        body = json.dumps(self._document(request, prediction)).encode()
        message = f"msg_{prediction.id}"
        secret = _secret(f"{self._seed}-forged" if forged else self._seed)
        signature = hmac.digest(secret, f"{message}.{at}.".encode() + body, "sha256")
        return body, {
            "webhook-id": message,
            "webhook-timestamp": str(at),
            "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        }


def _secret(seed: object) -> bytes:
    return hashlib.sha256(f"callbacks {seed}".encode()).digest()
