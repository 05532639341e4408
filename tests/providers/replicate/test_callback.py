"""What Replicate sends back: signed by a secret that its API tells."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from asyncpipe.errors import UsageError, WebhookKeysAway
from asyncpipe.jobs import Job, JobType
from asyncpipe.providers import HasCallbacks
from asyncpipe.providers.replicate import Replicate
from tests.support.servers import always, noting
from tests.support.signed import NOW, SECRET, STANDARD, STANDARD_BODY


@pytest.mark.parametrize(
    ("status", "told"),
    [(200, {"key": SECRET}), (401, {"title": "Unauthenticated"}), (200, {"key": 7}), (200, [])],
)
def test_the_secret_comes_from_the_api(status: int, told: Any) -> None:
    """With the key; while it is not told, deliveries are to come again."""

    async def respond(request: web.BaseRequest) -> web.Response:
        assert request.path == "/v1/webhooks/default/secret"
        assert request.headers["Authorization"] == "Bearer r8_key"
        return web.json_response(told, status=status)

    async def main() -> str:
        async with noting(respond) as api, Replicate("r8_key", base_url=api.url) as provider:
            found = await provider.verifier.verify(STANDARD, STANDARD_BODY, NOW)
            return f"{found.prediction_id} {found.status}"

    if told == {"key": SECRET}:
        assert asyncio.run(main()) == "p1 succeeded"
    else:
        with pytest.raises(WebhookKeysAway):
            asyncio.run(main())


def test_a_submit_asks_to_be_called_back_at_the_end() -> None:
    """Beside the input, and for nothing on the way."""
    url = "http://127.0.0.1:8000/hooks"
    answer = always(b'{"id":"p1","status":"starting","urls":{}}', status=201)

    async def main() -> list[Any]:
        async with noting(answer) as api:
            for webhook_url in (None, url):
                provider = Replicate("r8_key", base_url=api.url, webhook_url=webhook_url)
                async with provider:
                    assert isinstance(provider, HasCallbacks)
                    await provider.submit(Job(model="a/b", type=JobType.IMAGE, prompt="a mug"))
            return [json.loads(body) for body in api.bodies]

    plain, asked = asyncio.run(main())
    assert asked == {**plain, "webhook": url, "webhook_events_filter": ["completed"]}
    with pytest.raises(UsageError, match="cannot be called from outside"):
        Replicate("r8_key", webhook_url=url)
