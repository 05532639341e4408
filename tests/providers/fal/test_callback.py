"""What fal sends back: a literal delivery, and everything that makes it none."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

from asyncpipe.errors import UsageError, WebhookRefused
from asyncpipe.jobs import Job, JobType
from asyncpipe.providers import HasCallbacks
from asyncpipe.providers.fal import Fal
from asyncpipe.providers.fal.callback import claim, read
from asyncpipe.webhooks import Delivery, Headers, KeyRing, PublishedKeys
from tests.support.servers import always, noting
from tests.support.signed import AT, JWKS, NOW, later

BODY = b'{"request_id":"r1","gateway_request_id":"g1","status":"OK","payload":{"images":[]}}'
P = "X-Fal-Webhook-"
HEADERS = {
    f"{P}Request-Id": "r1",
    f"{P}User-Id": "u1",
    f"{P}Timestamp": str(AT),
    f"{P}Signature": (
        "90737a817c8a1c627021c7bfb2991d952d76b4c3946ad58474023ef257660a1c"
        "7f86e1d761a570e5e0283bdfbd745afb8be6b2b45616112dfb540dc516d9860d"
    ),
}


def taken(headers: Any = HEADERS, body: bytes = BODY, now: datetime = NOW) -> Delivery:
    async def fetch() -> bytes:
        return JWKS

    async def main() -> Delivery:
        verifier = PublishedKeys(KeyRing(fetch), claim=claim, read=read)
        return await verifier.verify(headers, body, now)

    return asyncio.run(main())


def refused(*args: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(WebhookRefused) as caught:
        taken(*args, **options)
    return caught.value.word, caught.value.status


def test_a_delivery_is_read_with_all_its_ids() -> None:
    """fal's own retries give a request another id than its gateway has told."""
    found = taken()
    assert (found.prediction_id, found.also, found.delivery_id) == ("r1", ("g1",), "r1")
    assert (found.status, found.at) == ("OK", NOW)
    without = read(Headers(HEADERS), {"status": "ERROR", "payload": {"status": "x"}}, AT)
    assert (without.prediction_id, without.also, without.status) == ("r1", (), "x")


@pytest.mark.parametrize("name", ["Request-Id", "User-Id", "Timestamp", "Signature"])
def test_each_header_is_signed_and_plain(name: str) -> None:
    """Changed, it is forged; with blanks, twice there or missing it is refused unread."""
    value = HEADERS[P + name]
    changed = value[:-1] + ("1" if value[-1] != "1" else "2")
    assert refused({**HEADERS, P + name: changed}) == ("forged", 401)
    for odd in (f"{value} ", f"\t{value}", f"{value}\n", ""):
        assert refused({**HEADERS, P + name: odd}) == ("malformed", 400)
    assert refused([*HEADERS.items(), (P + name, value)]) == ("malformed", 400)
    assert refused({k: v for k, v in HEADERS.items() if k != P + name}) == ("malformed", 400)


def test_body_and_time_count() -> None:
    """Each byte, and five minutes each way; a signature in base64 is none."""
    assert refused(body=BODY + b" ") == ("forged", 401)
    assert taken(now=later(300)).at == NOW
    assert refused(now=later(301)) == refused(now=later(-301)) == ("stale", 400)
    assert refused({**HEADERS, f"{P}Signature": "A" * 86}) == ("malformed", 400)
    assert refused({**HEADERS, f"{P}Signature": "ab" * 63}) == ("malformed", 400)


def test_a_submit_asks_to_be_called_back() -> None:
    """In its query, so that the model's input stays as it is."""
    url = "http://127.0.0.1:8000/hooks?a=1&b=2"
    answer = always(b'{"status":"IN_QUEUE","request_id":"r1"}')
    job = Job(model="fal-ai/flux/dev", type=JobType.IMAGE, prompt="a mug")

    async def main() -> tuple[list[str], list[bytes]]:
        async with noting(answer) as api:
            for webhook_url in (None, url):
                async with Fal("id:secret", base_url=api.url, webhook_url=webhook_url) as provider:
                    assert isinstance(provider, HasCallbacks)
                    await provider.submit(job)
            return [each.path_qs.partition("?")[2] for each in api.requests], api.bodies

    (plain, asked), (first, second) = asyncio.run(main())
    assert plain == ""
    assert asked == "fal_webhook=" + quote(url, safe="")
    assert first == second
    with pytest.raises(UsageError, match="cannot be called from outside"):
        Fal("id:secret", webhook_url=url)
