"""What fal says in a callback and how it signs it: Ed25519 over four lines, in hex."""

from __future__ import annotations

import base64
import hashlib
import json

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.callbacks import private_key
from asyncpipe.simulator.sales import Sales
from asyncpipe.simulator.wire import Service

USER = "user-simulated"

_PREFIX = "X-Fal-Webhook-"


class SignedByFal:
    """Writes callbacks, and publishes the key that they are signed with."""

    def __init__(self, service: Service) -> None:
        self._settings, self._books, self._sales = service.settings, service.books, Sales(service)

    async def keys(self, request: web.Request) -> web.Response:
        """Answer the key set; its keys have no names."""
        self._books.count("callback_keys")
        public = private_key(self._settings.seed).public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        return web.json_response({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})

    async def write(
        self, request: web.Request, prediction: BookedPrediction, at: int, forged: bool
    ) -> tuple[bytes, dict[str, str]]:
        """Body and headers; of one that is forged nothing but its signature is wrong."""
        body = json.dumps(self._body(request, prediction)).encode()
        lines = [prediction.id, USER, str(at), hashlib.sha256(body).hexdigest()]
        seed = self._settings.seed
        signature = private_key(f"{seed}-forged" if forged else seed).sign(
            "\n".join(lines).encode()
        )
        headers = {
            "Request-Id": prediction.id,
            "User-Id": USER,
            "Timestamp": str(at),
            "Signature": signature.hex(),
        }
        return body, {f"{_PREFIX}{name}": value for name, value in headers.items()}

    def _body(self, request: web.Request, prediction: BookedPrediction) -> dict[str, object]:
        ids = {"request_id": prediction.id, "gateway_request_id": prediction.id}
        if prediction.outcome != "completed":
            error = {"detail": [{"msg": "the request failed", "type": prediction.outcome}]}
            return {**ids, "status": "ERROR", "error": "Unexpected status code", "payload": error}
        outputs = [{"url": url} for url in self._sales.urls(request, prediction)]
        return {**ids, "status": "OK", "payload": {"images": outputs}}
