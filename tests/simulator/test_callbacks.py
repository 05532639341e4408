"""Callbacks of the simulator: who may be called, how they are signed, and again until taken."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from asyncpipe.simulator.faults import Faults
from tests.support.servers import noting
from tests.support.simulator_client import Client, run

P = "X-AtlasCloud-Webhook-"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:9/x", 200),
        ("https://me.example/x", 200),
        ("http://me.example/x", 400),
        ("https://10.0.0.1/x", 400),
        ("https://me.example/" + "x" * 1024, 400),
        ("ftp://127.0.0.1/x", 400),
        ("http://[::1", 400),
        (7, 400),
    ],
)
def test_a_url_that_cannot_be_called_is_refused_at_the_submit(url: Any, status: int) -> None:
    """Nothing is sold for it; what is sold has no trace of it."""

    async def steps(client: Client) -> None:
        reply = await client.submit(webhook_url=url)
        assert reply.status == status
        assert len(client.books.predictions()) == (status == 200)
        assert not any("webhook_url" in each.body for each in client.books.predictions())

    run(steps, generation_s=(9e3, 9e3))


@pytest.mark.parametrize("failed", [0.0, 1.0])
def test_it_is_signed_and_sent_until_it_is_taken(failed: float) -> None:
    """By the key it publishes, over time, dot and body; an OK may stand over a failure."""

    async def steps(client: Client) -> list[dict[str, Any]]:
        answers = iter([503, 404, *[200] * 30])
        done = asyncio.Event()

        async def respond(request: web.BaseRequest) -> web.Response:
            status = next(answers)
            if len(api.bodies) == 12:
                done.set()
            return web.Response(status=status)

        async with noting(respond) as api:
            bought = [await client.buy(webhook_url=f"{api.url}/hooks") for _ in range(10)]
            await done.wait()
            key = (await client.ask("GET", "/webhooks/jwks.json")).json["keys"][0]
            public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
            for request, body in zip(api.requests, api.bodies, strict=True):
                head = request.headers
                signature = base64.urlsafe_b64decode(head[f"{P}Signature-Ed25519"] + "==")
                public.verify(signature, f"{head[f'{P}Timestamp']}.".encode() + body)
                assert head[f"{P}Key-Id"] == key["kid"]
                assert head[f"{P}Event"] == "image.task.terminal"
                assert head[f"{P}Id"] == json.loads(body)["session_id"]
                assert len(head[f"{P}Signature"]) == 2 * hashlib.sha256().digest_size
            assert {json.loads(body)["session_id"] for body in api.bodies} == {*bought}
            return [json.loads(body) for body in api.bodies]

    told = run(steps, speed=1000, faults=Faults(failed=failed))
    assert {each["payload"]["status"] for each in told} == {"failed" if failed else "succeeded"}
    assert {each["status"] for each in told} == ({"OK", "ERROR"} if failed else {"OK"})
