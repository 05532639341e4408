"""What Atlas Cloud says in a callback and how it signs it: Ed25519 over time, dot and body."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.callbacks import private_key
from asyncpipe.simulator.faults import dice, plan_of
from asyncpipe.simulator.poll import PollAnswer, Polls
from asyncpipe.simulator.wire import Service

KEY_ID = "simulator-1"

_PREFIX = "X-AtlasCloud-Webhook-"


class SignedByAtlas:
    """Writes callbacks, and publishes the key that they are signed with."""

    def __init__(self, service: Service, polls: Polls) -> None:
        self._settings, self._books, self._polls = service.settings, service.books, polls

    async def keys(self, request: web.Request) -> web.Response:
        """Answer the key set."""
        self._books.count("callback_keys")
        public = private_key(self._settings.seed).public_key().public_bytes_raw()
        key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": KEY_ID}
        return web.json_response({"keys": [{**key, "x": _unpadded(public)}]})

    async def write(
        self, request: web.Request, prediction: BookedPrediction, at: int, forged: bool
    ) -> tuple[bytes, dict[str, str]]:
        """Body and headers; of one that is forged nothing but its signature is wrong."""
        told, seed = await self._polls.tell(request, prediction), self._settings.seed
        if plan_of(self._settings.faults, seed, prediction.id).inline:
            told = PollAnswer(status=told.status)
        event = f"{prediction.type}.task.terminal"
        body = json.dumps(_body(prediction, told, event, seed), ensure_ascii=False).encode()
        text = f"{at}.".encode() + body
        signature = private_key(f"{seed}-forged" if forged else seed).sign(text)
        headers = {
            "Id": prediction.id,
            "Event": event,
            "Timestamp": str(at),
            "Key-Id": KEY_ID,
            "Signature-Ed25519": _unpadded(signature),
            "Signature": hmac.digest(b"of another time", text, "sha256").hex(),
        }
        return body, {f"{_PREFIX}{name}": value for name, value in headers.items()}


def _body(prediction: BookedPrediction, told: PollAnswer, event: str, seed: int) -> dict[str, Any]:
    """What is said of an end, whether it has come or not; a failure may stand under an OK."""
    failed = told.status == "failed"
    says_so = failed and dice(seed, "callback says so", prediction.id).random() < 0.5
    return {
        "session_id": prediction.id,
        "event_type": event,
        "status": "ERROR" if says_so else "OK",
        "payload": {
            "status": "failed" if failed else "succeeded",
            "outputs": [*told.outputs],
            "error_code": told.code,
        },
        "error": told.error,
    }


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
